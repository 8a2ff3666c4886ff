"""The results as text, and into the README."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import plots
import reach
import tables
from results import Results, Section

README = Path(__file__).with_name("README.md")
START, END = "<!-- results -->", "<!-- /results -->"


def markdown(results: Results, pictures: list[str] | None = None) -> str:
    """All tables; ``pictures`` are the plots that can be shown beside them."""
    parts = ["\n".join(_facts(results))]
    if found := reach.table_of(results):
        parts += ["### Reach", found]
    if pictures and plots.OVERVIEW in pictures:
        parts.append(_picture(plots.OVERVIEW, "requests per second and CPU of all proxies"))
    for name, title in tables.TITLES.items():
        if text := tables.of(results, name):
            section = results.section(name)
            parts += [f"### {title}", text, _measured(section)]
            parts += ["\n".join(f"- {note}" for note in section.notes)] if section.notes else []
            if pictures and plots.file_name(name) in pictures:
                parts.append(_picture(plots.file_name(name), title))
    return "\n\n".join(parts)


def _facts(results: Results) -> Iterator[str]:
    for key, value in results.facts.items():
        yield f"- {key}: {value}"
    yield "- " + "; ".join(f"{name} {text}" for name, text in results.versions.items())
    for note in results.notes:
        yield f"- {note}"


def _measured(section: Section) -> str:
    facts = [f"{key}: {value}" for key, value in section.facts.items()]
    others = [
        one["others"] for samples in section.samples.values() for one in samples if "others" in one
    ]
    if others:
        facts.append(f"others had {statistics.median(others):.0%} of the proxies' core")
    return "; ".join(facts)


def _picture(name: str, text: str) -> str:
    return f"![{text}]({plots.DIRECTORY.name}/{name})"


def write_readme(results: Results, pictures: list[str]) -> None:
    """Replace what stands between the markers. Raises ValueError if they are not there."""
    before, _, rest = README.read_text().partition(START)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{README} lacks {START} or {END}")
    README.write_text(f"{before}{START}\n{markdown(results, pictures)}\n{END}{after}")
