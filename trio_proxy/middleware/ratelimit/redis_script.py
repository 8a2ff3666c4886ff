"""The token bucket as a Lua script for Redis, and what its replies mean."""

from __future__ import annotations

import hashlib

from trio_proxy.policy.token_bucket import ROUNDING, Grant, Rate

#: Missing tokens and the time in microseconds, at which they were counted, are kept apart: a TAT in
#: microseconds since the epoch has no room in a double for a fraction of a token at high rates. If
#: the clock of Redis is set back (or a replica's is behind), a bucket gains nothing but does not
#: wait for the clock either. ``%.17g`` because Lua's own ``tostring`` keeps 14 digits; a Lua number
#: in a reply would be cut to an integer. Needs Redis 5, which replicates what a script wrote.
SCRIPT = b"""
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local missing, at = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%d+)$')
missing, at = tonumber(missing) or 0, tonumber(at) or now
missing = math.max(0, missing - math.max(0, now - at) * rate / 1000000)
local allowed = missing + 1 <= burst + %ROUNDING%
if allowed then missing = missing + 1 end
if allowed or now < at then
  redis.call('SET', KEYS[1], string.format('%.17g %.0f', missing, now),
             'PX', string.format('%.0f', math.ceil(missing / rate * 1000)))
end
return {allowed and 1 or 0, string.format('%.17g', missing)}
""".replace(b"%ROUNDING%", b"%r" % ROUNDING)
SCRIPT_SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()


def key_prefix(rate: Rate) -> bytes:
    """What keys in Redis begin with: different limits must not meet in one bucket."""
    return b"trio-proxy:rate:%r:%d:" % (float(rate.per_second), rate.burst)


def grant_of(rate: Rate, reply: object) -> Grant:
    """What the script's reply means. Raises ValueError if it is not one of the script's."""
    match reply:
        case [(0 | 1) as allowed, bytes(text)]:
            missing = float(text)
            if 0 <= missing <= rate.burst + ROUNDING:
                return rate.grant(missing, allowed=bool(allowed))
    raise ValueError(f"the answer makes no sense: {reply!r:.100}")
