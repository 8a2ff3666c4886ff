"""Token buckets: how many requests a key may send, as one float per key (GCRA).

A bucket holds ``burst`` tokens and gains ``per_second`` of them until it is full; a request takes
one or is refused. The Generic Cell Rate Algorithm (ITU-T I.371) keeps of this only the time at
which the bucket will be full again: whatever is full need not be kept at all, and forgetting a
bucket can only ever be in its client's favour. The behaviour is that of nginx's ``limit_req`` with
``nodelay``, whose burst does not count the one request that is always allowed; this one's does.

Rejected: counters per window (two bursts fit around the edge of a window), and logs of times (as
much memory per client as it may send).
"""

from __future__ import annotations

import math
from collections import OrderedDict

from attrs import frozen

from trio_proxy.http.messages import Field

#: The part of a token that may be missing all the same: times are floats, and a client that comes
#: at exactly the allowed rate must not be refused for their last digit.
ROUNDING = 0.001

#: Full buckets that one request throws away: more than the one that it can add, so that the table
#: shrinks again after a flood of keys, and few enough that no request pays for all of them.
SWEEP = 2

#: The policy's name in ``RateLimit`` and ``RateLimit-Policy``, a Structured Fields String. An
#: upstream can have limits of its own in the same lists, and many call theirs "default".
POLICY_NAME = b'"trio-proxy"'


@frozen
class Rate:
    """Tokens gained per second, of which there can be fractions, and the most there can be."""

    per_second: float
    burst: int

    def grant(self, missing: float, *, allowed: bool) -> Grant:
        """What a request is told that left its bucket ``missing`` so many tokens."""
        left = self.burst - missing
        return Grant(
            allowed=allowed,
            limit=self.burst,
            remaining=max(0, math.floor(left + ROUNDING)),
            reset_seconds=missing / self.per_second,
            retry_after=0.0 if allowed else max(0.0, 1 - left) / self.per_second,
        )


@frozen
class Grant:
    """The answer to one request, and how its bucket stands after it.

    ``limit`` and ``remaining`` are requests that may be sent at once: by a client with a full
    bucket, and by this one now. ``reset_seconds`` is until the bucket is full again if nothing more
    is taken; ``retry_after`` until one request will be allowed, in seconds, 0 if this one was.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: float
    retry_after: float


class TokenBuckets:
    """A bucket for each key, at most ``max_keys`` of them.

    Beyond that the one that was not used for longest goes, and its key starts with a full bucket
    again: under a flood of keys the limit fails open for those that come seldom, and holds for a
    key that comes often.
    """

    def __init__(self, rate: Rate, max_keys: int) -> None:
        self._rate = rate
        self._max_keys = max_keys
        #: When each bucket will be full; the least recently used first. Not a dict: the first key
        #: of one that loses its first keys is found only by passing over all that were deleted.
        self._full_at: OrderedDict[bytes, float] = OrderedDict()

        #: Buckets not used since the rate was another, what it was, and when it changed.
        self._before: OrderedDict[bytes, float] = OrderedDict()
        self._rate_before, self._changed_at = rate.per_second, 0.0

    def __len__(self) -> int:
        return len(self._full_at) + len(self._before)

    def __repr__(self) -> str:
        return f"<TokenBuckets {self._rate} keys={len(self)}/{self._max_keys}>"

    def apply(self, rate: Rate, max_keys: int, now: float) -> None:
        """Go on with other settings. What a bucket lacks it lacks still, if not more than it holds.

        At another rate it is filled by that from ``now`` on; so that this takes no longer with many
        keys, each is seen to when it is used. A key that was not used between two such changes
        starts with a full bucket.
        """
        if rate.per_second != self._rate.per_second:
            self._before, self._full_at = self._full_at, OrderedDict()
            self._rate_before, self._changed_at = self._rate.per_second, now
        self._rate = rate
        self._max_keys = max_keys
        self._shrink()

    def take(self, key: bytes, now: float) -> Grant:
        """Take a token for ``key`` if there is one. ``now`` is in seconds on any steady clock."""
        rate = self._rate
        full_at = self._full_at.pop(key, None)
        if full_at is None:
            old = self._before.pop(key, None)
            full_at = now if old is None else self._carried_over(old)
        missing = min(max(0.0, full_at - now) * rate.per_second, rate.burst)
        allowed = missing + 1 <= rate.burst + ROUNDING
        if allowed:
            missing += 1
        self._full_at[key] = now + missing / rate.per_second
        self._sweep(now)
        self._shrink()
        return rate.grant(missing, allowed=allowed)

    def _carried_over(self, full_at: float) -> float:
        """When a bucket from before the last change of the rate will be full."""
        if full_at <= self._changed_at:
            return full_at
        missing = (full_at - self._changed_at) * self._rate_before
        return self._changed_at + min(missing, self._rate.burst) / self._rate.per_second

    def _sweep(self, now: float) -> None:
        for _ in range(SWEEP):
            table = self._before or self._full_at
            oldest = next(iter(table), None)
            if oldest is None:
                return
            full_at = table[oldest]
            if (self._carried_over(full_at) if table is self._before else full_at) > now:
                return
            del table[oldest]

    def _shrink(self) -> None:
        while len(self) > self._max_keys:
            (self._before or self._full_at).popitem(last=False)


def rate_limit_fields(rate: Rate, grant: Grant) -> list[Field]:
    """The response fields that tell a client where it stands.

    ``RateLimit-Policy`` and ``RateLimit`` are those of draft-ietf-httpapi-ratelimit-headers-11
    (May 2026; the same in form since -08). ``RateLimit-Limit``, ``-Remaining`` and ``-Reset`` are
    those of the drafts up to -06, which is what most clients read.

    ``w`` is the time in which an empty bucket fills, in whole seconds, as the drafts know no
    others, and ``q`` what may be sent in so long a time for ever. ``t`` and ``RateLimit-Reset`` are
    the seconds until the bucket is full, but in a refusal those until one request is allowed: there
    -11 §6 wants no time after that of Retry-After, and -01 §4 exactly its time.
    """
    window = max(1, math.ceil(rate.burst / rate.per_second))
    quota = max(rate.burst, math.floor(window * rate.per_second))
    reset = math.ceil(grant.reset_seconds if grant.allowed else grant.retry_after)
    return [
        (b"RateLimit-Policy", b"%s;q=%d;w=%d" % (POLICY_NAME, quota, window)),
        (b"RateLimit", b"%s;r=%d;t=%d" % (POLICY_NAME, grant.remaining, reset)),
        (b"RateLimit-Limit", b"%d" % grant.limit),
        (b"RateLimit-Remaining", b"%d" % grant.remaining),
        (b"RateLimit-Reset", b"%d" % reset),
    ]
