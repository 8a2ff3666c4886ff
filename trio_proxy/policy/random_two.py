"""Balancing by chance, and then by what the upstreams that were drawn have to do."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Collection, Sequence
from itertools import accumulate
from typing import Any

from trio_proxy.policy.candidate import C


class RandomTwo:
    """Two different members by chance, and of these the one with fewer requests for its weight.

    nginx's ``random two least_conn``. Nearly as even as least connections, and proxies that do not
    know of each other do not all run to the same member (Mitzenmacher, The power of two choices in
    randomized load balancing, 2001). Chances go by weight; the first drawn wins a tie, so an idle
    pool is divided by weight exactly. Takes two random numbers.
    """

    def __init__(self) -> None:
        self._standing: tuple[Any, ...] | None = None
        #: The weights of the standing candidates, each added to those before it.
        self._ends: list[float] = []

    def choose(self, candidates: Sequence[C], key: int, random: Callable[[], float]) -> C:
        last = len(candidates) - 1
        if last == 0:
            return candidates[0]
        if candidates is not self._standing:
            self._standing = candidates if isinstance(candidates, tuple) else None
            self._ends = list(accumulate([candidate.weight for candidate in candidates]))
        ends = self._ends
        # The bounds of each search say what rounding must not break: a member, and not the first.
        index = bisect(ends, random() * ends[last], 0, last)
        first = candidates[index]
        start = ends[index - 1] if index else 0.0
        point = random() * (ends[last] - first.weight)
        if point < start or index == last:
            second = candidates[bisect(ends, point, 0, index - 1)]
        else:
            second = candidates[bisect(ends, point + first.weight, index + 1, last)]
        if second.in_flight / second.weight < first.in_flight / first.weight:
            return second
        return first

    def keep(self, names: Collection[str]) -> None:
        """Nothing is remembered of any member."""
        self._standing = None
