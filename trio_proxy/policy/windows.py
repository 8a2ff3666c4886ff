"""Counts over a sliding window, in a fixed number of buckets.

Time is cut into buckets of equal width that begin at multiples of the width, so a window is the
bucket that ``now`` lies in, of which only a part has passed yet, and some full buckets before it.
It therefore slides by whole buckets, and its length swings by one bucket between two moments.
Keeping every timestamp would be exact, but would cost memory for each event.
"""

from __future__ import annotations

from collections import deque

#: A bucket number before the beginning of any clock that counts seconds.
_NEVER = -(1 << 62)


class SlidingCount:
    """How many events the last ``seconds`` have seen.

    The buckets are ``seconds / buckets`` wide. The window is the partial bucket of ``now`` and

    - ``buckets - 1`` full ones before it: longer than ``seconds`` less one bucket, never longer
      than ``seconds``; nothing that is ``seconds`` old or older is counted;
    - with ``at_least``, ``buckets`` full ones before it: ``seconds`` or longer, by less than one
      bucket; whatever is at most ``seconds`` old is counted.

    Both bounds are exact if the width is a whole number of seconds, and otherwise to within the
    rounding of a float. A ``now`` that is earlier than one before counts as that later one.
    """

    __slots__ = ("_counts", "_latest", "_total", "_width")

    def __init__(self, seconds: float, buckets: int = 10, *, at_least: bool = False) -> None:
        size = buckets + at_least
        self._width = seconds / buckets
        self._counts = deque([0] * size, maxlen=size)
        self._latest = _NEVER
        self._total = 0

    def __repr__(self) -> str:
        return f"<SlidingCount {self._total} in {list(self._counts)} of {self._width:g} s>"

    def add(self, now: float, count: int = 1) -> None:
        """Count ``count`` events that happen ``now``."""
        self._advance(now)
        self._counts[-1] += count
        self._total += count

    def total(self, now: float) -> int:
        """The events in the window that ends ``now``."""
        self._advance(now)
        return self._total

    def clear(self) -> None:
        """Forget every event."""
        self._counts.extend([0] * len(self._counts))
        self._total = 0

    def _advance(self, now: float) -> None:
        latest = int(now // self._width)
        passed = latest - self._latest
        if passed > 0:
            counts = self._counts
            for _ in range(min(passed, len(counts))):
                self._total -= counts[0]
                counts.append(0)
            self._latest = latest
