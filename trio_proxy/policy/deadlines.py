"""Which budget runs out first, and what it is called.

An exchange has a budget for each kind of wait (connect, read, write, …) and one for the whole
(total). Before a wait the nearest of the two is asked for together with its name, so that an
error can say which one ran out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping


class Deadlines:
    """The budgets of one exchange.

    ``seconds`` maps the name of a wait to its length, `math.inf` for none; the total budget is
    not running before `start_total`.
    """

    __slots__ = ("seconds", "total_at", "total_seconds")

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.seconds = seconds
        self.total_at = math.inf
        self.total_seconds = math.inf

    def start_total(self, now: float, at_most: float | None = None) -> None:
        """Let the total budget run from ``now``; ``at_most`` seconds can shorten it only."""
        seconds = self.seconds["total"]
        if at_most is not None and at_most < seconds:
            seconds = at_most
        self.total_seconds = seconds
        self.total_at = now + seconds

    def stop_total(self) -> None:
        """Take the total budget away: what follows is a tunnel."""
        self.total_at = math.inf

    def nearest(self, wait: str, now: float) -> tuple[float, str]:
        """When a wait that begins ``now`` must end, and the name of the budget that says so.

        An empty ``wait`` stands for one that only the total budget bounds.
        """
        at = now + self.seconds[wait] if wait else math.inf
        if self.total_at <= at:
            return self.total_at, "total"
        return at, wait

    def length(self, budget: str) -> float:
        """Seconds that a budget had from its beginning."""
        return self.total_seconds if budget == "total" else self.seconds[budget]

    def remaining_total(self, now: float) -> float:
        """Seconds left of the total budget, never negative; `math.inf` if it is not running."""
        return max(0.0, self.total_at - now)
