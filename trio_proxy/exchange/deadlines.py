"""Which budget runs out first, and what it is called.

An exchange has a budget for each kind of wait (connect, read, write, …), one for each try at an
upstream (try), and one for the whole (total). Before a wait the nearest of them is asked for
together with its name, so that an error can say which one ran out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping


class Deadlines:
    """The budgets of one exchange.

    ``seconds`` maps the name of a wait to its length, `math.inf` for none; the total budget is
    not running before `start_total`.
    """

    __slots__ = ("is_inherited", "seconds", "total_at", "total_seconds", "try_at")

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.seconds = seconds
        self.total_at = math.inf
        self.total_seconds = math.inf
        self.try_at = math.inf
        #: The total budget is one that a trusted peer has shortened.
        self.is_inherited = False

    def restart(self, seconds: Mapping[str, float]) -> None:
        """Begin anew, for the next exchange."""
        self.seconds = seconds
        self.total_at = self.total_seconds = self.try_at = math.inf
        self.is_inherited = False

    def start_total(self, now: float, at_most: float | None = None) -> None:
        """Let the total budget run from ``now``; ``at_most`` seconds can shorten it only."""
        seconds = self.seconds["total"]
        if at_most is not None and at_most < seconds:
            seconds, self.is_inherited = at_most, True
        self.total_seconds = seconds
        self.total_at = now + seconds

    def start_try(self, now: float) -> None:
        """Let the budget of one try run from ``now``."""
        self.try_at = now + self.seconds["try"]

    def extend_try(self, seconds: float) -> None:
        """Not to be counted: that long the client kept everybody waiting for its body."""
        self.try_at += seconds

    def stop_try(self) -> None:
        """The try has got its response head, or failed."""
        self.try_at = math.inf

    def stop_total(self) -> None:
        """Take the total budget away: what follows is a tunnel."""
        self.total_at = math.inf

    def nearest(self, wait: str, now: float) -> tuple[float, str]:
        """When a wait that begins ``now`` must end, and the name of the budget that says so.

        An empty ``wait`` stands for one that only the total budget bounds.
        """
        at = now + self.seconds[wait] if wait else math.inf
        if wait == "write" and self.try_at < at:
            at, wait = self.try_at, "try"
        if self.total_at <= at:
            return self.total_at, "total"
        return at, wait

    def nearest_in_try(self, wait: str, now: float) -> tuple[float, str]:
        """`nearest` while a try is under way: its own budget counts, too.

        That does not run in an empty ``wait`` nor in one for the client, which are not the
        upstream's.
        """
        at = now + self.seconds[wait] if wait else math.inf
        if wait and wait != "client_write" and self.try_at <= at:
            at, wait = self.try_at, "try"
        if self.total_at <= at:
            return self.total_at, "total"
        return at, wait

    def length(self, budget: str) -> float:
        """Seconds that a budget had from its beginning."""
        return self.total_seconds if budget == "total" else self.seconds[budget]

    def remaining_total(self, now: float) -> float:
        """Seconds left of the total budget, never negative; `math.inf` if it is not running."""
        return max(0.0, self.total_at - now)
