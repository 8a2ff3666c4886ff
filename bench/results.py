"""All samples, by section and proxy, and the JSON file that keeps them between runs.

A run replaces the sections that it measured and leaves the others, so each section has its own
date.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from proxies import OURS

#: Figures of one measurement by name, ``round`` among them; ``level`` in growth curves.
Sample = dict[str, float]
Samples = Sequence[Sample]

#: results / sections / section / samples / proxy / sample.
SAMPLE_DEPTH = 5


@dataclass
class Section:
    """One thing that was measured."""

    facts: dict[str, str] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, proxy: str, sample: Sample) -> None:
        rounded = {name: float(f"{value:.6g}") for name, value in sample.items()}
        self.samples.setdefault(proxy, []).append(rounded)
        if errors := sample.get("errors"):
            self.notes.append(f"{proxy}: {errors:.0f} errors")

    def of(self, proxy: str, level: float | None = None) -> list[Sample]:
        """The samples of a proxy, of one level only if asked."""
        found = self.samples.get(proxy, [])
        return [one for one in found if level is None or one["level"] == level]


@dataclass
class Results:
    """What is known of this machine."""

    facts: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    sections: dict[str, Section] = field(default_factory=dict)
    #: Peers that are not there, sections that could not be measured.
    notes: list[str] = field(default_factory=list)

    def section(self, name: str) -> Section:
        return self.sections.get(name) or Section()

    def updated(self, later: Results) -> Results:
        """These with the sections of a later run in their place."""
        return Results(
            later.facts,
            {**self.versions, **later.versions},
            {**self.sections, **later.sections},
            later.notes,
        )

    def complaints(self, expected: Iterable[str]) -> list[str]:
        """What is wrong with our own figures: sections that lack them, and errors in them."""
        ours = [name for name in OURS if name in self.versions]
        found = [] if ours else [f"{OURS[0]} did not start"]
        for name in expected:
            section = self.section(name)
            if not any(section.of(proxy) for proxy in ours):
                found.append(f"{name}: nothing was measured")
            found += [f"{name}: {note}" for note in section.notes if note.startswith(OURS[0])]
        return found


def load(path: Path) -> Results:
    """Read what `save` wrote; nothing if it is not there."""
    if not path.exists():
        return Results()
    found = json.loads(path.read_text())
    sections = {name: Section(**section) for name, section in found.pop("sections").items()}
    return Results(sections=sections, **found)


def save(results: Results, path: Path) -> None:
    """Write JSON, a line for each sample."""
    text = json.dumps(asdict(results), indent=1)
    path.write_text(_one_line_objects(text) + "\n")


def _one_line_objects(text: str) -> str:
    """Put each sample into one line; they are what lies deepest."""
    lines: list[str] = []
    for line in text.splitlines():
        word = line.strip()
        depth = len(line) - len(line.lstrip())
        if depth > SAMPLE_DEPTH:
            lines[-1] += word if lines[-1].endswith("{") else f" {word}"
        elif depth == SAMPLE_DEPTH and word.startswith("}"):
            lines[-1] += word
        else:
            lines.append(line)
    return "\n".join(lines)


def median(samples: Samples, name: str) -> float:
    return statistics.median(one[name] for one in samples)


def extent(samples: Samples, name: str) -> tuple[float, float]:
    """The smallest and the largest: how far to trust a median."""
    values = [one[name] for one in samples]
    return min(values), max(values)


def ratios(ours: Samples, theirs: Samples, value: Callable[[Sample], float]) -> list[float]:
    """Ours over theirs in each round that has both: what slows a round down slows both."""
    other = {one["round"]: value(one) for one in theirs}
    return [value(one) / other[one["round"]] for one in ours if other.get(one["round"])]
