"""How cost grows: the same load with more connections, upstreams, bytes or workers.

Each point has a process of its own, since memory that a larger load has left would stay. Rounds are
interleaved over all points of all proxies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import load
from contest import Server, in_turn, rest
from load import ACCEPT_SECONDS, LoadError, Scenario
from plan import Run, new_section
from proxies import OURS, PLAIN, SPEED, Proxy, Setup
from results import Sample, Section
from upstream import MIB

#: The load runs so much longer, in seconds, for each upstream, so that there are connections to all
#: of them.
PER_UPSTREAM = 0.002

#: From here on, bytes are counted instead of bodies, which are too few.
LARGE_BODY = MIB


@dataclass(frozen=True)
class Point:
    """One level of a curve: the load, and how the proxy is started for it."""

    level: int
    scenario: Scenario
    setup: Setup
    #: What the load runs longer than usual, before and while it is measured, in seconds.
    longer: float = 0.0

    @property
    def load(self) -> Scenario:
        return replace(self.scenario, settle=self.scenario.settle + self.longer)


def measure(run: Run, name: str) -> Section:
    """One curve for trio-proxy (with the ``speed`` extra if it is there) and for nginx."""
    section = new_section(runs=f"{run.sizes.growth_rounds} of {run.sizes.growth_seconds:g} s")
    points = _CURVES[name](run)
    proxies = _proxies(run)
    if name == "workers":
        proxies = [proxy for proxy in proxies if proxy.name in OURS]
    with contextlib.ExitStack() as stack:
        servers = [
            (server, point)
            for point in points
            for server in stack.enter_context(
                run.contest.servers(
                    proxies, point.setup, cores=run.bench.proxy_cores(point.setup.workers)
                )
            )
        ]
        for server, point in servers:
            if server.process.count() < point.setup.workers:
                section.notes.append(f"{server.name} does not start {point.level} workers")
                return section
        _rounds(run, servers, section)
    return section


def _proxies(run: Run) -> list[Proxy]:
    ours = run.chosen(SPEED) or run.chosen(PLAIN)
    return [*ours, *run.chosen("nginx")]


def _rounds(run: Run, servers: Sequence[tuple[Server, Point]], section: Section) -> None:
    points = dict(servers)
    for number in range(run.sizes.growth_rounds):
        for server in in_turn(list(points), number):
            point = points[server]
            try:
                seconds = run.sizes.growth_seconds + point.longer
                sample = load.run(point.load, server, run.upstream, run.load_core, seconds)
            except (LoadError, OSError) as exc:
                section.notes.append(f"{server.name}, {point.level}: {exc}")
            else:
                section.add(server.name, {"round": number, "level": point.level, **sample})
                _note_missing(section, server.name, point.scenario.connections, sample)
            rest(server)


def _note_missing(section: Section, proxy: str, connections: int, sample: Sample) -> None:
    if sample["connections"] < connections:
        accepted = f"{sample['connections']:,.0f} of {connections:,} connections"
        section.notes.append(f"{proxy}: only {accepted} accepted within {ACCEPT_SECONDS} s")


def _connections(run: Run) -> list[Point]:
    most = max(run.sizes.connections) + 500
    setup = run.setup(clients=most, upstream_conns=most)
    return [Point(level, Scenario(connections=level), setup) for level in run.sizes.connections]


def _upstreams(run: Run) -> list[Point]:
    return [
        Point(level, Scenario(), run.setup(level), level * PER_UPSTREAM)
        for level in run.sizes.upstreams
    ]


def _heads(run: Run) -> list[Point]:
    return [
        Point(level, Scenario(mode="head", size=level), run.setup()) for level in run.sizes.heads
    ]


def _bodies(run: Run) -> list[Point]:
    small = Scenario(mode="download", connections=8)
    return [
        Point(
            level,
            replace(small, path=f"/body/{level}", size=level, by_bytes=level >= LARGE_BODY),
            run.setup(),
        )
        for level in run.sizes.bodies
    ]


def _workers(run: Run) -> list[Point]:
    return [
        Point(level, Scenario(connections=64), run.setup(workers=level), run.sizes.growth_seconds)
        for level in run.sizes.workers
    ]


_CURVES: dict[str, Callable[[Run], list[Point]]] = {
    "connections": _connections,
    "upstreams": _upstreams,
    "heads": _heads,
    "bodies": _bodies,
    "workers": _workers,
}
CURVES = tuple(_CURVES)
