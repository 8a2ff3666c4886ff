"""Medians, as aligned text or Markdown (one form serves both), as JSON, and into the README."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from load import SCENARIOS, Sample, Scenario
from proxies import TRIO_PROXY

README = Path(__file__).with_name("README.md")
START, END = "<!-- results -->", "<!-- /results -->"


@dataclass
class Results:
    """All samples, by proxy and scenario, and what was run."""

    facts: dict[str, str]
    versions: dict[str, str] = field(default_factory=dict)
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    idle_kib: dict[str, float] = field(default_factory=dict)
    start_ms: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    #: Proxies that failed a measurement altogether.
    broken: list[str] = field(default_factory=list)

    def fail(self, proxy: str, what: str, why: object) -> None:
        self.broken.append(proxy)
        self.notes.append(f"{proxy}, {what}: {why}")

    def add(self, proxy: str, scenario: Scenario, sample: Sample) -> None:
        self.samples.setdefault(proxy, {}).setdefault(scenario.name, []).append(sample)
        if sample.errors:
            self.notes.append(f"{proxy}, {scenario.name}: errors {sample.errors}")

    def of(self, proxy: str, scenario: str) -> list[Sample]:
        return self.samples.get(proxy, {}).get(scenario, [])

    def failed(self, proxy: str) -> bool:
        """It did not start, or some request was not answered well."""
        runs = [run for scenario in self.samples.get(proxy, {}).values() for run in scenario]
        return proxy not in self.versions or any(run.errors for run in runs) or proxy in self.broken


def median(runs: Sequence[Sample], name: str) -> float:
    return statistics.median(getattr(run, name) for run in runs)


def spread(runs: Sequence[Sample]) -> float:
    """Largest minus smallest rate over the median: how far to trust the line."""
    rates = [run.requests_per_second for run in runs]
    return (max(rates) - min(rates)) / max(1e-9, statistics.median(rates))


Column = tuple[str, Callable[[Sequence[Sample]], float], str]

_SMALL: tuple[Column, ...] = (
    ("requests/s", lambda runs: median(runs, "requests_per_second"), ",.0f"),
    ("spread", spread, ".0%"),
    ("p50 ms", lambda runs: median(runs, "p50_ms"), ".2f"),
    ("p99 ms", lambda runs: median(runs, "p99_ms"), ".2f"),
    ("p99/p50", lambda runs: median(runs, "p99_ms") / max(1e-9, median(runs, "p50_ms")), ".1f"),
    ("CPU µs/request", lambda runs: median(runs, "cpu_us"), ",.1f"),
    ("core used", lambda runs: median(runs, "busy"), ".0%"),
)
_BULK: tuple[Column, ...] = (
    ("MiB/s", lambda runs: median(runs, "mib_per_second"), ",.0f"),
    ("spread", spread, ".0%"),
    ("p50 ms", lambda runs: median(runs, "p50_ms"), ".2f"),
    ("p99 ms", lambda runs: median(runs, "p99_ms"), ".2f"),
    ("CPU µs/MiB", lambda runs: median(runs, "cpu_us"), ",.0f"),
    ("core used", lambda runs: median(runs, "busy"), ".0%"),
)


def _scenario_table(results: Results, scenario: Scenario) -> str:
    columns = _BULK if scenario.mib else _SMALL
    ours = results.of(TRIO_PROXY, scenario.name)
    rows = [["proxy", *(title for title, _, _ in columns), "our rate / its", "our CPU / its"]]
    for proxy in results.samples:
        runs = results.of(proxy, scenario.name)
        if not runs:
            continue
        row = [proxy, *(format(value(runs), form) for _, value, form in columns)]
        rows.append([*row, *_ratios(ours, runs)])
    return table(rows)


def _ratios(ours: Sequence[Sample], theirs: Sequence[Sample]) -> list[str]:
    """Our rate and our CPU for a request as multiples of theirs."""
    if not ours:
        return ["", ""]
    names = ("requests_per_second", "cpu_us")
    return [f"{median(ours, n) / max(1e-9, median(theirs, n)):.2f}×" for n in names]


def _other_table(results: Results) -> str:
    rows = [["proxy", "KiB/idle connection", "ms to first answer"]]
    for proxy, start in results.start_ms.items():
        idle = results.idle_kib.get(proxy)
        rows.append([proxy, "" if idle is None else f"{idle:.1f}", f"{start:.0f}"])
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(_aligned(row, widths)) + " |" for row in rows]
    rule = [f":{'-' * (widths[0] - 1)}", *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join(lines)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    yield row[0].ljust(widths[0])
    for cell, width in zip(row[1:], widths[1:], strict=True):
        yield cell.rjust(width)


def markdown(results: Results) -> str:
    parts = ["\n".join(f"- {key}: {value}" for key, value in results.facts.items())]
    parts.append("- " + "; ".join(f"{name} {text}" for name, text in results.versions.items()))
    parts.extend(
        f"**{scenario.title}**\n\n{_scenario_table(results, scenario)}"
        for scenario in SCENARIOS
        if any(results.of(proxy, scenario.name) for proxy in results.samples)
    )
    parts.append(f"**Memory and start**\n\n{_other_table(results)}")
    if results.notes:
        parts.append("Notes:\n\n" + "\n".join(f"- {note}" for note in results.notes))
    return "\n\n".join(parts).replace("\n\n- ", "\n- ", 1)


def write_json(results: Results, path: Path) -> None:
    path.write_text(json.dumps(asdict(results), indent=2) + "\n")


def write_readme(results: Results) -> None:
    """Replace what stands between the markers. Raises ValueError if they are not there."""
    before, _, rest = README.read_text().partition(START)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{README} lacks {START} or {END}")
    README.write_text(f"{before}{START}\n{markdown(results)}\n{END}{after}")
