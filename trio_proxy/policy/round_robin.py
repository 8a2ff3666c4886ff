"""Balancing by turns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import inf
from typing import Any

from trio_proxy.policy.candidate import C
from trio_proxy.policy.rotation import Rotation, scale_of


class SmoothRoundRobin:
    """Each member in turn, as often as its weight says, and the turns of one spread out.

    nginx's default (``upstream``, ``weight``): all candidates gain their weight, the one that has
    most is chosen and loses what all gained together. Weights 5, 1, 1 give a a b a c a a, equal
    weights the order of the list, and W picks among weights that add up to W are divided exactly.
    At any moment a member has had less than one turn too many and, of n members, at most
    1/2 + 1/3 + … + 1/n too few; the proof is beside the test of it.

    A member that is no candidate neither gains nor loses. Unlike in nginx, what members have is
    scaled to the total weight: otherwise it would be worth hundreds of turns when a heavy member
    leaves or new weights are a hundredth of the old ones. The scale is a power of two, so sums of
    whole weights stay exact and ties are ties.
    """

    def __init__(self) -> None:
        #: What those are owed that are not in `_rotation`.
        self._owed: dict[str, float] = {}
        #: The candidates of the last choice, if they may be the same at the next.
        self._standing: tuple[Any, ...] | None = None
        #: Of the standing candidates, once they have been asked for again.
        self._rotation: Rotation[Any] | None = None

    def __repr__(self) -> str:
        return f"<SmoothRoundRobin owed={self._owed} rotation={self._rotation}>"

    def choose(self, candidates: Sequence[C], key: int, random: Callable[[], float]) -> C:
        if candidates is self._standing:
            rotation: Rotation[C] | None = self._rotation
            if rotation is None:
                rotation = self._rotation = self._rotation_of(candidates)
            return rotation.next()
        self._settle()
        self._standing = candidates if isinstance(candidates, tuple) else None
        return self._choose_plainly(candidates)

    def _rotation_of(self, candidates: Sequence[C]) -> Rotation[C]:
        weights = [candidate.weight for candidate in candidates]
        owed = [self._owed.get(candidate.name, 0.0) for candidate in candidates]
        return Rotation(candidates, weights, owed)

    def _settle(self) -> None:
        """End the rotation."""
        if self._rotation is not None:
            for candidate, owed in self._rotation.owed():
                self._owed[candidate.name] = owed
            self._rotation = None
        self._standing = None

    def _choose_plainly(self, candidates: Sequence[C]) -> C:
        chosen = candidates[0]
        if len(candidates) == 1:
            return chosen
        owed = self._owed
        weights = [candidate.weight for candidate in candidates]
        total = sum(weights)
        scale = scale_of(total)
        most = -inf
        for candidate, weight in zip(candidates, weights, strict=True):
            name = candidate.name
            owed[name] = due = owed.get(name, 0.0) + weight * scale
            if due > most:
                most, chosen = due, candidate
        owed[chosen.name] = most - total * scale
        return chosen

    def keep(self, names: Collection[str]) -> None:
        """Forget the others; those that stay share what the others were owed.

        So all together are owed nothing, and a newcomer is neither ahead nor behind.
        """
        self._settle()
        wanted = set(names)
        kept = {name: due for name, due in self._owed.items() if name in wanted}
        if len(kept) < len(self._owed):
            mean = sum(kept.values()) / max(1, len(kept))
            self._owed = {name: due - mean for name, due in kept.items()}
