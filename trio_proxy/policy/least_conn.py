"""Balancing by what each upstream has to do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from trio_proxy.policy.candidate import C, in_flight_of
from trio_proxy.policy.round_robin import SmoothRoundRobin


class LeastConnections:
    """The member with the fewest requests for its weight; several such take turns.

    nginx's ``least_conn``. An idle pool is smooth round robin.
    """

    def __init__(self) -> None:
        self._turns = SmoothRoundRobin()
        self._standing: tuple[Any, ...] | None = None
        #: Whether the standing candidates all have the same weight.
        self._are_equal = False

    def __repr__(self) -> str:
        return f"<LeastConnections turns={self._turns}>"

    def choose(self, candidates: Sequence[C], key: int, random: Callable[[], float]) -> C:
        if len(candidates) == 1:
            return candidates[0]
        if candidates is not self._standing:
            self._standing = candidates if isinstance(candidates, tuple) else None
            self._are_equal = len({candidate.weight for candidate in candidates}) == 1
        loads: list[float]
        if self._are_equal:
            loads = list(map(in_flight_of, candidates))
        else:
            loads = [candidate.in_flight / candidate.weight for candidate in candidates]
        least = min(loads)
        ties = loads.count(least)
        if ties == 1:
            return candidates[loads.index(least)]
        if ties == len(loads):
            return self._turns.choose(candidates, key, random)
        pairs = zip(loads, candidates, strict=True)
        tied = [candidate for load, candidate in pairs if load == least]
        return self._turns.choose(tied, key, random)

    def keep(self, names: Collection[str]) -> None:
        self._standing = None
        self._turns.keep(names)
