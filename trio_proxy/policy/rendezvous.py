"""Balancing by a hash, so that what belongs together goes to the same upstream."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import inf, log
from typing import Any

from trio_proxy.policy.candidate import C, in_flight_of
from trio_proxy.policy.hashing import mix_all

#: How far above its share a member may be before a hashed key goes elsewhere: the least that
#: HAProxy calls reasonable for ``hash-balance-factor`` (125 percent). A float holds it exactly.
LOAD_FACTOR = 1.25


class RendezvousHash:
    """The same member for the same key, unless that one has far more than its share to do.

    Each member draws a number from the key and its own name, and the highest wins (Thaler and
    Ravishankar, Using name-based mappings to increase hit rates, 1998; for the weights,
    draft-mohanty-bess-weighted-hrw). A member that goes gives away its own keys and no others; a
    new one takes only what it wins. So all are asked for every request, and a choice costs in
    proportion to their number. A ring of points would be quicker for hundreds of members, but
    divides less evenly and has to be rebuilt whenever one of them fails or recovers.

    A member is passed over if this request would give it more than `LOAD_FACTOR` times its share
    of all requests in flight, rounded up (Mirrokni, Thorup and Zadimoghaddam, Consistent hashing
    with bounded loads, 2018; HAProxy's ``hash-balance-factor``). There is always one that has less.
    The weights are the configured ones: with those of a slow start, keys would move all the time.

    Without ``is_bounded`` a key stays with its member whatever the load, as sessions want it.
    """

    def __init__(self, *, is_bounded: bool = True) -> None:
        self._is_bounded = is_bounded
        self._standing: tuple[Any, ...] | None = None
        #: Of the standing candidates: their seeds, and whether they all have the same weight.
        self._seeds: list[int] = []
        self._are_equal = False

    def choose(self, candidates: Sequence[C], key: int, random: Callable[[], float]) -> C:
        if len(candidates) == 1:
            return candidates[0]
        first = self._highest(candidates, key)
        if first.in_flight == 0 or not self._is_bounded:
            return first
        in_flight = sum(map(in_flight_of, candidates))
        weights = sum([candidate.base_weight for candidate in candidates])
        # in_flight + 1 <= ceil(bound * base_weight / weights), without the division's rounding.
        bound = LOAD_FACTOR * (in_flight + 1)
        if first.in_flight * weights < bound * first.base_weight:
            return first
        room = [each for each in candidates if each.in_flight * weights < bound * each.base_weight]
        return self._highest(room, key)

    def keep(self, names: Collection[str]) -> None:
        """Nothing is remembered of any member."""
        self._standing = None

    def _highest(self, candidates: Sequence[C], key: int) -> C:
        """The candidate whose number, stretched by its weight, is highest."""
        if candidates is not self._standing:
            self._standing = candidates if isinstance(candidates, tuple) else None
            self._seeds = [candidate.seed for candidate in candidates]
            self._are_equal = len({candidate.base_weight for candidate in candidates}) == 1
        numbers = mix_all(key, self._seeds)
        if self._are_equal:
            return candidates[numbers.index(max(numbers))]
        chosen, highest = candidates[0], -inf
        for candidate, number in zip(candidates, numbers, strict=True):
            # log(u) / weight ranks as -weight / log(u) does, but u may be 1.
            score = log((number + 0.5) * 2.0**-64) / candidate.base_weight
            if score > highest:
                chosen, highest = candidate, score
        return chosen
