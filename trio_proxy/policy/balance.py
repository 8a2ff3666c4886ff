"""Which upstream comes next.

A policy is asked for the order in which to try the members of a pool; the caller takes the first
one that is available and has room. It is told only how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class Balancer(Protocol):
    """One balancing policy."""

    def order(self, count: int) -> Iterator[int]:
        """Indices of ``count`` members, the preferred one first, each at most once."""
        ...


class RoundRobin:
    """Each member in turn, in the order of the list (nginx's default without weights).

    A member that is passed over because it is full does not lose or gain a turn: the next request
    starts one further on all the same.
    """

    def __init__(self) -> None:
        self._next = 0

    def order(self, count: int) -> Iterator[int]:
        first = self._next % count if count else 0
        self._next = first + 1
        for offset in range(count):
            yield (first + offset) % count
