"""What was asked for beside what was measured, row by row.

A ratio is the median of the ratios in each round, with the smallest and the largest beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from plan import KIB
from proxies import PLAIN, SPEED
from results import Results, Sample, ratios
from tables import fairness, table

#: What is asked of the creep run, in KiB of RSS.
CREEP_KIB = 2 * KIB


@dataclass(frozen=True)
class Row:
    """One line: ``verdict`` is None where figures are only reported."""

    what: str
    asked: str
    measured: str
    verdict: bool | None

    def cells(self) -> list[str]:
        word = {None: "reported", True: "ok", False: "missed"}[self.verdict]
        return [self.what, self.asked, self.measured, word]


def table_of(results: Results) -> str:
    """The table; rows whose figures are missing are left out."""
    rows = [row.cells() for part in _PARTS for row in part(results)]
    return table([["", "asked", "measured (min–max)", ""], *rows]) if rows else ""


def _judged(
    what: str,
    values: list[float],
    *,
    least: float | None = None,
    most: float | None = None,
    aim: str = "",
    unit: str = "×",
) -> Iterator[Row]:
    """A row about a median that must reach a bound; nothing without values."""
    if not values:
        return
    middle = statistics.median(values)
    unit = unit if unit in ("", "×") else f" {unit}"
    asked = f"≥ {least:g}{unit}" if least is not None else f"≤ {most:g}{unit}"
    measured = f"{_short(middle)}{unit} ({_short(min(values))}–{_short(max(values))})"
    reached = middle >= least if least is not None else most is not None and middle <= most
    yield Row(what, f"{asked}{aim}", measured, reached)


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:,.0f}"


def _of(name: str) -> Callable[[Sample], float]:
    return lambda sample: sample[name]


def _ratios(results: Results, section: str, ours: str, theirs: str, name: str) -> list[float]:
    found = results.section(section)
    return ratios(found.of(ours), found.of(theirs), _of(name))


def _small(results: Results) -> Iterator[Row]:
    for number in (32, 256):
        section, where = f"small-{number}", f"{number} connections"
        rate = "requests_per_second"
        values = _ratios(results, section, SPEED, "aiohttp", rate)
        yield from _judged(
            f"{SPEED}: requests/s against aiohttp, {where}", values, least=1.4, aim="; aim 2×"
        )
        values = _ratios(results, section, PLAIN, "aiohttp", rate)
        yield from _judged(f"{PLAIN}: requests/s against aiohttp, {where}", values, least=0.9)
        values = _ratios(results, section, SPEED, "caddy", "cpu_us")
        yield from _judged(
            f"{SPEED}: CPU per exchange against Caddy, {where}", values, most=1.2, aim="; aim 0.8×"
        )


def _fair(results: Results) -> Iterator[Row]:
    for ours in (PLAIN, SPEED):
        values = [fairness(one) for one in results.section("small-256").of(ours)]
        yield from _judged(
            f"{ours}: p99/p50, 256 connections, saturated", values, most=2.0, unit=""
        )


def _bulk(results: Results) -> Iterator[Row]:
    for section in ("download", "upload"):
        for ours in (PLAIN, SPEED):
            for theirs, least in (("haproxy", 0.9), ("nginx", 1.3)):
                values = _ratios(results, section, ours, theirs, "mib_per_second")
                yield from _judged(
                    f"{ours}: 1 MiB {section}, bytes/s against {theirs}", values, least=least
                )


def _tunnel(results: Results) -> Iterator[Row]:
    for ours in (PLAIN, SPEED):
        values = _ratios(results, "tunnel", ours, "nginx", "messages_per_second")
        yield from _judged(f"{ours}: tunnel, messages/s against nginx", values, least=0.5)
        # The load may have been the bottleneck; then this says who could do how much.
        values = [1 / one for one in _ratios(results, "tunnel", ours, "nginx", "cpu_us")]
        yield from _judged(
            f"{ours}: tunnel, messages per CPU second against nginx", values, least=0.5
        )


def _idle(results: Results) -> Iterator[Row]:
    for ours in (PLAIN, SPEED):
        for one in results.section("idle").of(ours):
            yield from _judged(f"{ours}: RSS per idle connection", [one["kib"]], most=8, unit="KiB")
            count, answered = one["connections"], one["answered"]
            yield Row(
                f"{ours}: idle connections, one request on each",
                "all answered",
                f"{answered:,.0f} of {count:,.0f}",
                answered == count,
            )


def _latency(results: Results) -> Iterator[Row]:
    section = results.section("latency")
    for name in (PLAIN, SPEED, "nginx"):
        samples = section.of(name)
        if samples:
            p50, p99 = (
                statistics.median(one[key] for one in samples)
                for key in ("added_p50_ms", "added_p99_ms")
            )
            yield Row(
                f"{name}: latency added at half load, p50 / p99",
                "reported",
                f"{p50:.2f} / {p99:.2f} ms at {samples[0]['rate']:,.0f}/s",
                None,
            )


def _start(results: Results) -> Iterator[Row]:
    for ours in (PLAIN, SPEED):
        values = [one["ms"] / 1000 for one in results.section("start").of(ours)]
        yield from _judged(f"{ours}: start to first answer", values, most=0.4, unit="s")


def _workers(results: Results) -> Iterator[Row]:
    section = results.section("workers")
    for ours in (PLAIN, SPEED):
        values = ratios(section.of(ours, 2), section.of(ours, 1), _of("cpu_us"))
        yield from _judged(
            f"{ours}: CPU per request with 2 workers against 1",
            values,
            most=1.1,
            aim=" (unchanged)",
        )


def creep_memory(results: Results) -> Iterator[Row]:
    """RSS at the end of the creep run, and the trend: the allocator moves one reading by MiB."""
    for ours, samples in results.section("creep").samples.items():
        warm, *parts, end = samples[1:]
        load = f"after {end['requests']:,.0f} requests and {end['aborts']:,.0f} departed clients"
        yield _within(f"{ours}: RSS {load}", end["rss_kib"] - warm["rss_kib"])
        few = max(1, len(parts) // 4)
        first, last = (
            statistics.median(one["rss_kib"] for one in some)
            for some in (parts[:few], parts[-few:])
        )
        yield _within(f"{ours}: RSS in the last quarter of them against the first", last - first)


def _within(what: str, grown_kib: float) -> Row:
    return Row(what, "within 2 MiB", f"{grown_kib / KIB:+.2f} MiB", grown_kib <= CREEP_KIB)


def creep_returned(results: Results) -> Iterator[Row]:
    """Open files and tasks at the end of the creep run."""
    for ours, samples in results.section("creep").samples.items():
        start, end = samples[0], samples[-1]
        for name in ("files", "tasks"):
            came = f"{start[name]:.0f} → {end[name]:.0f}"
            title = {"files": "open files", "tasks": "tasks"}[name]
            yield Row(f"{ours}: {title}", "as at the start", came, end[name] <= start[name])


_PARTS: tuple[Callable[[Results], Iterator[Row]], ...] = (
    _small,
    _fair,
    _bulk,
    _idle,
    _tunnel,
    _latency,
    _start,
    _workers,
    creep_memory,
    creep_returned,
)
