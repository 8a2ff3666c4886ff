"""Counts over a sliding window, in a fixed number of buckets.

Time is cut into buckets of equal width that begin at multiples of the width, so a window is the
bucket that ``now`` lies in, of which only a part has passed yet, and some full buckets before it.
It therefore slides by whole buckets, and its length swings by one bucket between two moments.
Keeping every timestamp would be exact, but would cost memory for each event.
"""

from __future__ import annotations

from collections import deque
from math import inf, nextafter

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

    __slots__ = ("_counts", "_latest", "_newest", "_total", "_until", "_width")

    def __init__(self, seconds: float, buckets: int = 10, *, at_least: bool = False) -> None:
        size = buckets + at_least
        self._width = seconds / buckets
        #: The buckets, oldest first; what falls in the last is in `_newest` until that is over.
        self._counts = deque([0] * size, maxlen=size)
        self._latest = _NEVER
        #: Moments before this one are surely in the last bucket, or count as if they were.
        self._until = -inf
        self._newest = 0
        #: Of all but the last.
        self._total = 0

    def __repr__(self) -> str:
        *full, _ = self._counts
        counts = [*full, self._newest]
        return f"<SlidingCount {sum(counts)} in {counts} of {self._width:g} s>"

    def add(self, now: float, count: int = 1) -> None:
        """Count ``count`` events that happen ``now``."""
        if now >= self._until:
            self._advance(now)
        self._newest += count

    def total(self, now: float) -> int:
        """The events in the window that ends ``now``."""
        if now >= self._until:
            self._advance(now)
        return self._total + self._newest

    def clear(self) -> None:
        """Forget every event."""
        self._counts.extend([0] * len(self._counts))
        self._total = self._newest = 0

    def _advance(self, now: float) -> None:
        latest = int(now // self._width)
        passed = latest - self._latest
        if passed > 0:
            counts = self._counts
            counts[-1], self._newest = self._newest, 0
            self._total += counts[-1]
            for _ in range(min(passed, len(counts))):
                self._total -= counts[0]
                counts.append(0)
            self._latest = latest
            # The product may be rounded up, past the end of the bucket.
            self._until = nextafter((latest + 1) * self._width, -inf)
