"""What a run consists of: sizes, and what every section needs to measure."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from contest import Contest
from processes import Bench
from proxies import Proxy, Setup
from results import Results, Section
from upstream import BODIES, MAX_ADDRESSES, MIB, Upstream

KIB = 1024


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured. Times are in seconds."""

    seconds: float = 1.5
    rounds: int = 5
    starts: int = 7
    idle_connections: int = 10_000
    connections: Sequence[int] = (1, 10, 100, 1000, 5000)
    upstreams: Sequence[int] = (1, 10, 100, MAX_ADDRESSES)
    #: Bytes. What a browser sends has about 800.
    heads: Sequence[int] = (205, KIB, 4 * KIB, 16 * KIB, 32 * KIB)
    bodies: Sequence[int] = BODIES
    workers: Sequence[int] = (1, 2)
    creep_requests: int = 1_000_000
    creep_aborts: int = 100_000
    #: As a share of these, before them.
    creep_warm_up: float = 0.1
    #: Into how many parts the run is cut; after each there is a sample.
    creep_parts: int = 20

    @property
    def growth_seconds(self) -> float:
        """The points of a curve support each other, so they are measured for less long."""
        return self.seconds / 2

    @property
    def growth_rounds(self) -> int:
        return min(3, self.rounds)


#: Little of everything, to see that it works.
SMOKE = Sizes(
    seconds=0.4,
    rounds=1,
    starts=1,
    idle_connections=500,
    connections=(1, 100),
    upstreams=(1, 100),
    heads=(205, 32 * KIB),
    bodies=(0, MIB),
    creep_requests=10_000,
    creep_aborts=1_000,
    creep_warm_up=0.5,
    creep_parts=2,
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of the benchmark, for the functions that measure a section."""

    bench: Bench
    contest: Contest
    upstream: Upstream
    sizes: Sizes
    #: Those that were found able, in the order of `proxies.ALL`.
    proxies: Sequence[Proxy]
    #: What has been measured in this run.
    results: Results

    @property
    def load_core(self) -> int:
        return self.bench.load_core

    def setup(self, upstreams: int = 1, **more: int) -> Setup:
        return Setup(upstreams=self.upstream.addresses(upstreams), **more)

    def rounds(self) -> Iterator[int]:
        return iter(range(self.sizes.rounds))

    def chosen(self, *names: str) -> list[Proxy]:
        return [proxy for proxy in self.proxies if proxy.name in names]


def new_section(**facts: str) -> Section:
    """With what holds at this moment."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Section({"date": now, "load average before": f"{os.getloadavg()[0]:.1f}", **facts})
