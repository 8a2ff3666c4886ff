"""How the load of an upstream that is new, or back, grows (nginx: ``slow_start``)."""

from __future__ import annotations

import math

#: The share of its weight that it begins with (Envoy's default ``min_weight_percent``).
FLOOR = 0.1


class SlowStart:
    """The share of an upstream's weight, which grows evenly for ``seconds``; 0 is at once."""

    __slots__ = ("_began_at", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began_at = -math.inf

    def __repr__(self) -> str:
        return f"<SlowStart of {self.seconds:g} s, began at {self._began_at}>"

    @property
    def is_running(self) -> bool:
        """Whether `share` has to be asked: it began, and was not seen to end."""
        return self._began_at > -math.inf

    def apply(self, seconds: float) -> None:
        """Take the length of a new configuration; it counts from the beginning of a running one."""
        self.seconds = seconds
        if not seconds:
            self._began_at = -math.inf

    def begin(self, now: float) -> None:
        """Start, or start again."""
        if self.seconds:
            self._began_at = now

    def share(self, now: float) -> float:
        """The share of the weight ``now``, from `FLOOR` to 1.0; at 1.0 it has ended."""
        if not self.is_running:
            return 1.0
        elapsed = now - self._began_at
        if elapsed >= self.seconds:
            self._began_at = -math.inf
            return 1.0
        return max(FLOOR, elapsed / self.seconds)
