"""What a balancing policy may look at of an upstream."""

from __future__ import annotations

from operator import attrgetter
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """An upstream that may be picked now."""

    @property
    def name(self) -> str:
        """What identifies it for as long as it is configured: ``10.0.0.1:9000``."""
        ...

    @property
    def weight(self) -> float:
        """Its weight now, above 0; a fraction of the configured one during a slow start."""
        ...

    @property
    def base_weight(self) -> int:
        """Its weight as configured, at least 1."""
        ...

    @property
    def in_flight(self) -> int:
        """How many requests it is serving."""
        ...

    @property
    def seed(self) -> int:
        """`hashing.seed_of` its name."""
        ...


C = TypeVar("C", bound=Candidate)

#: For `map`: how many requests each of them is serving.
in_flight_of = attrgetter("in_flight")
