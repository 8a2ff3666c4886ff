"""Each section as a Markdown table, which is readable text as well."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from compare import SCENARIOS
from growth import CURVES
from plan import KIB
from proxies import ALL
from results import Results, Sample, Samples, Section, extent, median, ratios
from upstream import MIB

TITLES = {
    "small-32": "Small exchanges, 32 connections",
    "small-256": "Small exchanges, 256 connections",
    "download": "Responses of 1 MiB, 8 connections",
    "upload": "Uploads of 1 MiB, 8 connections",
    "tunnel": "WebSocket tunnel, messages of 1 KiB both ways, 32 connections",
    "latency": "Latency at half of each proxy's own saturated rate, 32 connections",
    "idle": "Idle keep-alive connections",
    "start": "From the start of the process to the first answer",
    "connections": "Growth: client connections",
    "upstreams": "Growth: upstreams",
    "heads": "Growth: size of the request head",
    "bodies": "Growth: size of the response body, 8 connections",
    "workers": "Growth: workers on one core, 64 connections",
    "creep": "Creep",
}
SECTIONS = tuple(TITLES)

#: A column: its title, and its cell for the samples of one proxy.
Column = tuple[str, Callable[[Section, Samples], str]]


def _figure(title: str, name: str, form: str) -> Column:
    return title, lambda _, samples: format(median(samples, name), form)


def _range(title: str, name: str, form: str) -> Column:
    def cell(_: Section, samples: Samples) -> str:
        low, high = extent(samples, name)
        return f"{low:{form}}–{high:{form}}"

    return title, cell


def _against(title: str, other: str, name: str) -> Column:
    """The median of the ratios to another proxy, round by round."""

    def cell(section: Section, samples: Samples) -> str:
        found = ratios(samples, section.of(other), lambda one: one[name])
        return f"{statistics.median(found):.2f}×" if found else ""

    return title, cell


def fairness(sample: Sample) -> float:
    return sample["p99_ms"] / max(1e-9, sample["p50_ms"])


_SMALL: tuple[Column, ...] = (
    _figure("requests/s", "requests_per_second", ",.0f"),
    _range("min–max", "requests_per_second", ",.0f"),
    _figure("p50 ms", "p50_ms", ".2f"),
    _figure("p99 ms", "p99_ms", ".2f"),
    ("p99/p50", lambda _, samples: f"{statistics.median(map(fairness, samples)):.1f}"),
    _figure("CPU µs/request", "cpu_us", ",.1f"),
    _figure("core used", "busy", ".0%"),
    _against("rate / aiohttp's", "aiohttp", "requests_per_second"),
    _against("CPU / Caddy's", "caddy", "cpu_us"),
)
_BULK: tuple[Column, ...] = (
    _figure("MiB/s", "mib_per_second", ",.0f"),
    _range("min–max", "mib_per_second", ",.0f"),
    _figure("CPU µs/MiB", "cpu_us", ",.0f"),
    _figure("core used", "busy", ".0%"),
    _against("rate / HAProxy's", "haproxy", "mib_per_second"),
    _against("rate / nginx's", "nginx", "mib_per_second"),
)
_TUNNEL: tuple[Column, ...] = (
    _figure("messages/s", "messages_per_second", ",.0f"),
    _range("min–max", "messages_per_second", ",.0f"),
    _figure("CPU µs/message", "cpu_us", ",.1f"),
    _figure("core used", "busy", ".0%"),
    _against("rate / nginx's", "nginx", "messages_per_second"),
    _against("CPU / nginx's", "nginx", "cpu_us"),
)
_LATENCY: tuple[Column, ...] = (
    _figure("requests/s", "rate", ",.0f"),
    _figure("p50 ms", "p50_ms", ".2f"),
    _figure("p99 ms", "p99_ms", ".2f"),
    _figure("direct p50", "direct_p50_ms", ".2f"),
    _figure("direct p99", "direct_p99_ms", ".2f"),
    _figure("added p50", "added_p50_ms", ".2f"),
    _figure("added p99", "added_p99_ms", ".2f"),
    _range("min–max", "added_p99_ms", ".2f"),
)
_IDLE: tuple[Column, ...] = (
    _figure("KiB/connection", "kib", ".1f"),
    _figure("connections", "connections", ",.0f"),
    _figure("answered", "answered", ",.0f"),
)
_START: tuple[Column, ...] = (
    _figure("ms", "ms", ".0f"),
    _range("min–max", "ms", ".0f"),
)
_COLUMNS = {
    **{name: _BULK if scenario.size else _SMALL for name, scenario in SCENARIOS.items()},
    "tunnel": _TUNNEL,
    "latency": _LATENCY,
    "idle": _IDLE,
    "start": _START,
}


def of(results: Results, name: str) -> str:
    """The table of a section; empty if there is nothing in it."""
    section = results.section(name)
    if not section.samples:
        return ""
    if name in CURVES:
        return _curve(section, name)
    if name == "creep":
        return _creep(section)
    columns = _COLUMNS[name]
    rows = [["proxy", *(title for title, _ in columns)]]
    for proxy in ALL:
        samples = section.of(proxy.name)
        if samples:
            rows += [[proxy.name, *(cell(section, samples) for _, cell in columns)]]
    return table(rows)


def level_text(curve: str, level: float) -> str:
    """A level with its unit, if it is in bytes."""
    if curve not in ("heads", "bodies") or not level:
        return f"{level:,.0f}"
    number, unit = (level / MIB, "MiB") if level >= MIB else (level / KIB, "KiB")
    return f"{number:.2g} {unit}" if number < 10 else f"{number:.0f} {unit}"


def _curve(section: Section, name: str) -> str:
    rows = [[name]]
    for proxy in section.samples:
        rows[0] += [f"{proxy}: requests/s", "CPU µs/request", "RSS MiB"]
    levels = sorted({one["level"] for samples in section.samples.values() for one in samples})
    for level in levels:
        row = [level_text(name, level)]
        for proxy in section.samples:
            samples = section.of(proxy, level)
            row += _curve_cells(samples) if samples else ["", "", ""]
        rows.append(row)
    return table(rows)


def _curve_cells(samples: Samples) -> list[str]:
    rate = median(samples, "requests_per_second")
    return [
        f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}",
        f"{median(samples, 'cpu_us'):,.1f}",
        f"{median(samples, 'rss_kib') / KIB:,.1f}",
    ]


def _creep(section: Section) -> str:
    rows = [["", "requests", "departed clients", "RSS MiB", "open files", "tasks"]]
    for samples in section.samples.values():
        named = {"start": samples[0], "after the warm-up": samples[1], "end": samples[-1]}
        for when, one in named.items():
            counts = (f"{one[key]:,.0f}" for key in ("requests", "aborts"))
            state = (f"{one['rss_kib'] / KIB:.1f}", f"{one['files']:.0f}", f"{one['tasks']:.0f}")
            rows.append([when, *counts, *state])
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
