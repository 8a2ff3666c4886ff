"""The counters of several workers as those of one proxy.

Counters, histograms and most gauges add up. What cannot be added is the word of the worker that
sees the worst: an upstream is up if all find it up, it drains if any drains it, and its breaker
shows the state that lets the least through.

A counter of the whole must never fall while its name is shown, or Prometheus takes it for a reset
and counts everything again. So what a worker has counted stays in the sums after it has died, and
so does what it knew of an upstream that it has forgotten, for as long as another one knows that
upstream. Once nobody does, it is forgotten altogether, as in a proxy of one process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trio_proxy.telemetry.stats import Histogram, Stats, UpstreamKey, UpstreamStats

#: The states of a breaker, from the one that lets everything through; "" is for none.
_BREAKER_STATES = ("", "closed", "half_open", "open")

#: How what cannot be added is combined.
_RULES: dict[str, Callable[[Any, Any], Any]] = {
    "up": min,
    "draining": max,
    "weight": max,
    "breaker": lambda one, other: max(one, other, key=_BREAKER_STATES.index),
}

#: What a worker takes with it when it ends, and what its place is then filled with.
_GAUGES: dict[type, dict[str, Any]] = {
    Stats: {"client_connections": 0, "requests_in_flight": 0, "queue_length": {}},
    UpstreamStats: {
        "active": 0,
        "idle": 0,
        "up": True,
        "draining": False,
        "weight": 0,
        "breaker": "",
    },
}


def combined(one: Stats, other: Stats) -> Stats:
    """Both together, as an object of its own."""
    result: Stats = _slot_by_slot(one, other)
    return result


def _slot_by_slot(one: Any, other: Any) -> Any:
    result = type(one)()
    for name in one.__slots__:
        combine = _RULES.get(name, _sum)
        setattr(result, name, combine(getattr(one, name), getattr(other, name)))
    return result


def _sum(one: Any, other: Any) -> Any:
    """What two workers have counted; never one of the objects that were given."""
    if isinstance(one, dict):
        both = one.keys() & other.keys()
        return {**one, **other, **{key: _sum(one[key], other[key]) for key in both}}
    if isinstance(one, list):
        return [_sum(*pair) for pair in zip(one, other, strict=True)]
    if isinstance(one, Histogram):
        result = Histogram(one.bounds)
        result.counts, result.sum = _sum(one.counts, other.counts), one.sum + other.sum
        return result
    if isinstance(one, UpstreamStats):
        return _slot_by_slot(one, other)
    return one + other


def _counters_of(stats: Any) -> Any:
    """What remains of a worker, or of what it knew of an upstream."""
    gauges = _GAUGES[type(stats)]
    result = type(stats)()
    for name in stats.__slots__:
        setattr(result, name, gauges.get(name, getattr(stats, name)))
    return result


class Ledger:
    """The last known counters of each worker, and those of the workers that are no more.

    The objects that it is given are its own from then on.
    """

    def __init__(self) -> None:
        self._living: dict[object, Stats] = {}
        self._remains = Stats()

    def __repr__(self) -> str:
        return f"<Ledger living={len(self._living)} requests={self.total().requests_total}>"

    def update(self, worker: object, stats: Stats) -> None:
        """Take the counters of a worker, in place of those it had before."""
        known = self._living.get(worker)
        self._living[worker] = stats
        if known is not None:
            for key, before in known.upstreams.items():
                now = stats.upstreams.get(key)
                if now is None or now.requests < before.requests:  # forgotten, perhaps begun anew
                    self._bury_upstream(key, before)
        self._forget_upstreams()

    def remove(self, worker: object) -> None:
        """The worker has ended; its counters stay."""
        stats = self._living.pop(worker, None)
        if stats is None:
            return
        upstreams, stats.upstreams = stats.upstreams, {}
        self._remains = combined(self._remains, _counters_of(stats))
        for key, one in upstreams.items():
            self._bury_upstream(key, one)
        self._forget_upstreams()

    def _bury_upstream(self, key: UpstreamKey, stats: UpstreamStats) -> None:
        remains = self._remains.upstream(*key)
        self._remains.upstreams[key] = _slot_by_slot(remains, _counters_of(stats))

    def _forget_upstreams(self) -> None:
        """Those that no worker knows, as long as there is one to know them."""
        known = {key for stats in self._living.values() for key in stats.upstreams}
        if self._living:
            for key in self._remains.upstreams.keys() - known:
                self._remains.forget_upstream(*key)

    def total(self) -> Stats:
        """All of them together."""
        result = combined(self._remains, Stats())
        for stats in self._living.values():
            result = combined(result, stats)
        return result
