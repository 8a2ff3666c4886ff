"""Smooth weighted round robin among members that stay as they are, for many of them too.

The plain algorithm (`round_robin.SmoothRoundRobin`) has everybody gain its weight at every turn and
looks for who has most. But members of one weight gain alike, so which of them is before which
changes only when one of them is chosen. It is enough to keep each such rank in order, to note its
gains in one place, and to compare the first of every rank. The one chosen loses what all gained
together, which nearly always makes it the last of its rank: that is where it is put, and equal
weights are a plain rotation.

The turns are those of the plain algorithm exactly, as the numbers are: whole weights are added and
scaled by powers of two, and what a rank has gained is kept small.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from math import frexp, ldexp
from typing import Generic, TypeVar

#: A rank's gains are handed out when they are worth more than so many turns. That is seldom enough
#: to cost nothing, and soon enough for sums of whole weights to stay exact.
MOST_GAINED = 16.0

T = TypeVar("T")


def scale_of(total: float) -> float:
    """The power of two that brings the sum of all weights into [0.5, 1)."""
    return ldexp(1.0, -frexp(total)[1])


class _Rank(Generic[T]):
    """The members of one weight, the next of them first.

    A member is what it is owed without ``gained``, its place in the list counted downwards, and
    itself; so the greater tuple has its turn first.
    """

    __slots__ = ("gain", "gained", "members")

    def __init__(self, gain: float, members: Sequence[tuple[float, int, T]]) -> None:
        self.gain = gain
        self.gained = 0.0
        self.members = deque(sorted(members, reverse=True))

    def hand_out(self) -> None:
        """Give everybody what the rank has gained."""
        gained, self.gained = self.gained, 0.0
        self.members = deque([(owed + gained, place, each) for owed, place, each in self.members])

    def insert(self, member: tuple[float, int, T]) -> None:
        """Put back a member that is not the last."""
        behind = 0
        for other in reversed(self.members):
            if member < other:
                break
            behind += 1
        self.members.insert(len(self.members) - behind, member)


class Rotation(Generic[T]):
    """Whose turn it is among ``members`` with their ``weights``; ``owed`` is where they begin."""

    __slots__ = ("_cost", "_ranks")

    def __init__(
        self, members: Sequence[T], weights: Sequence[float], owed: Sequence[float]
    ) -> None:
        total = sum(weights)
        scale = scale_of(total)
        #: What a turn costs: all that everybody gains by it.
        self._cost = total * scale
        ranks: dict[float, list[tuple[float, int, T]]] = {}
        for index, (member, weight) in enumerate(zip(members, weights, strict=True)):
            ranks.setdefault(weight, []).append((owed[index], -index, member))
        self._ranks = [_Rank(weight * scale, rank) for weight, rank in ranks.items()]

    def next(self) -> T:
        """The one whose turn it is, which has it."""
        ranks = self._ranks
        rank = ranks[0]
        rank.gained += rank.gain
        if len(ranks) > 1:
            rank = self._first_rank()
        members = rank.members
        owed, place, chosen = members.popleft()
        member = (owed - self._cost, place, chosen)
        if members and member > members[-1]:
            rank.insert(member)
        else:
            members.append(member)
        if rank.gained > MOST_GAINED:
            rank.hand_out()
        return chosen

    def _first_rank(self) -> _Rank[T]:
        """The rank that has the next turn; the first in the list has gained already."""
        ranks = iter(self._ranks)
        first = next(ranks)
        owed, place, _ = first.members[0]
        owed += first.gained
        for rank in ranks:
            rank.gained += rank.gain
            due, other_place, _ = rank.members[0]
            due += rank.gained
            if due > owed or (due == owed and other_place > place):
                first, owed, place = rank, due, other_place
        return first

    def owed(self) -> Iterator[tuple[T, float]]:
        """What each is owed now, for whoever goes on from here."""
        for rank in self._ranks:
            for owed, _, member in rank.members:
                yield member, owed + rank.gained
