"""What a queue can know about itself: whether it stands, and how long one more would wait."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque

#: Grants in one backlog, and served requests, below which nothing is estimated.
LEAST_SAMPLES = 8

#: The latest grants that the rate is taken from: enough to smooth, few enough to follow a change.
MOST_GRANTS = 64

#: The latest holding times that are looked at.
MOST_SAMPLES = 256

#: Holding times are put in order when at least `LEAST_SAMPLES` of them, and this share, are others.
STALE_SHARE = 1 / 8

#: How long a holding time is remembered, in seconds.
MEMORY_SECONDS = 10.0

#: The share of its chances that a request may lose by waiting.
WORTH = 0.99


class StandingDelay:
    """Whether a queue stands instead of merely taking up a burst (CoDel, RFC 8289 §3 and §4).

    A queue that takes up a burst drains within an interval; one whose oldest waiter has waited
    ``target_seconds`` or longer, at every moment for ``interval_seconds``, only adds delay. The
    interval is 100 ms unless told, as in RFC 8289 §4.3.
    """

    __slots__ = ("_standing_at", "interval_seconds", "target_seconds")

    def __init__(self, target_seconds: float, interval_seconds: float = 0.1) -> None:
        self.target_seconds = target_seconds
        self.interval_seconds = interval_seconds
        self._standing_at = math.inf

    def __repr__(self) -> str:
        return f"<StandingDelay target={self.target_seconds:g} s standing_at={self._standing_at}>"

    def observe(self, oldest_wait: float, now: float) -> bool:
        """Take the delay of the oldest waiter, in seconds; whether the queue stands ``now``.

        True once the delay has not been seen below the target for the interval, which begins with
        the first observation at or above it; False at once when it is below.
        """
        if oldest_wait < self.target_seconds:
            self._standing_at = math.inf
            return False
        if self._standing_at == math.inf:
            self._standing_at = now + self.interval_seconds
        return now >= self._standing_at

    def emptied(self) -> None:
        """Nobody waits: the delay is none."""
        self._standing_at = math.inf


class WaitEstimate:
    """How long a waiter will wait, from how fast the queue moves, and how long a place is held.

    Both err to the short side, since what is shed on a wrong guess is lost: each is 0.0 before it
    has `LEAST_SAMPLES`, and a few very long requests do not show.
    """

    __slots__ = ("_changes", "_grants", "_longest", "_ordered", "_samples")

    def __init__(self) -> None:
        self._grants: deque[float] = deque(maxlen=MOST_GRANTS)
        self._samples: deque[tuple[float, float]] = deque(maxlen=MOST_SAMPLES)
        #: Their holding times in order, as they were not long ago.
        self._ordered: list[float] = []
        #: The last of these: who has so much time left has every chance.
        self._longest = 0.0
        #: Samples that have come or gone since.
        self._changes = 0

    def __repr__(self) -> str:
        return f"<WaitEstimate grants={len(self._grants)} samples={len(self._samples)}>"

    def granted(self, now: float) -> None:
        """A waiter has got a place, and others still queue."""
        self._grants.append(now)

    def emptied(self) -> None:
        """The queue has run empty: its rate was that of a backlog which is over."""
        self._grants.clear()

    def wait(self, position: int, now: float) -> float:
        """Seconds until the one at ``position`` gets a place, the head of the queue being at 0.

        The mean gap between the latest grants, for each that is before it and for itself. The gap
        since the last grant, which is not over yet, counts as soon as it is longer than the mean,
        so the estimate grows while nothing moves.
        """
        grants = self._grants
        count = len(grants)
        if count < LEAST_SAMPLES:
            return 0.0
        oldest = grants[0]
        mean_gap, mean_gap_now = (grants[-1] - oldest) / (count - 1), (now - oldest) / count
        return (position + 1) * (mean_gap if mean_gap > mean_gap_now else mean_gap_now)

    def served(self, seconds: float, now: float) -> None:
        """A request has given its place back ``now`` after it held it for ``seconds``."""
        self._samples.append((now, seconds))
        self._changes += 1

    def chance(self, seconds: float, now: float) -> float:
        """The share of the latest requests that held their place for at most so long."""
        self._refresh(now)
        count = len(self._ordered)
        return bisect_right(self._ordered, seconds) / count if count else 1.0

    def is_hopeless(self, wait: float, remaining: float, total: float, now: float) -> bool:
        """Whether a request that has ``remaining`` seconds left cannot afford to ``wait``.

        It is when the wait costs it more than a hundredth of the chance to end in time that it had
        at first, with all its ``total`` seconds. So work of one length needs just that length, work
        that varies needs room for its tail, and streams that outlast every deadline count for
        nothing. Where nothing is known, nobody is sent away.
        """
        if remaining == math.inf:
            return False
        self._refresh(now)
        if remaining - wait >= self._longest or len(self._samples) < LEAST_SAMPLES:
            return False
        return self.chance(remaining - wait, now) < WORTH * self.chance(total, now)

    def _refresh(self, now: float) -> None:
        samples = self._samples
        while samples and now - samples[0][0] > MEMORY_SECONDS:
            samples.popleft()
            self._changes += 1
        if self._changes >= LEAST_SAMPLES and self._changes >= STALE_SHARE * len(samples):
            self._changes = 0
            known = samples if len(samples) >= LEAST_SAMPLES else ()
            self._ordered = sorted([seconds for _, seconds in known])
            self._longest = self._ordered[-1] if known else 0.0
