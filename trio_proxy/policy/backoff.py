"""How long to wait before the next try, by our own rule or by the upstream's wish."""

from __future__ import annotations

from datetime import UTC, datetime

#: Seconds; the longest delay before the first retry (Envoy's ``retry_back_off.base_interval``).
BASE_SECONDS = 0.025

#: Seconds; the longest delay before any retry (Envoy's ``max_interval``: ten times the base).
CAP_SECONDS = 0.25

#: Doublings after which the cap holds in any case; keeps the power small for every attempt.
_MOST_DOUBLINGS = 10

#: Seconds; what a larger number counts as (RFC 9111 §1.2.2 has it so for its delta-seconds).
LONGEST_RETRY_AFTER = 2.0**31

#: RFC 9110 §5.6.7: the one to send, and the two obsolete ones that a recipient must accept.
_HTTP_DATES = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y")


def full_jitter(attempt: int, random: float) -> float:
    """Seconds to wait before retry number ``attempt``, the first being 0.

    Uniform in [0, min(`CAP_SECONDS`, `BASE_SECONDS` * 2 ** attempt)) for a ``random`` that is
    uniform in [0, 1). It is the "full jitter" of Envoy's ``retry_back_off``: clients that failed
    together do not come back together.
    """
    doublings = min(max(attempt, 0), _MOST_DOUBLINGS)
    return random * min(CAP_SECONDS, BASE_SECONDS * 2.0**doublings)


def retry_after_seconds(value: bytes, wall_now: float) -> float | None:
    """Seconds that a Retry-After field asks to wait (RFC 9110 §10.2.3), None if it is malformed.

    ``value`` is a number of seconds or an HTTP-date in any of its three forms, which is compared
    with ``wall_now``, seconds since the epoch. The answer lies in [0, `LONGEST_RETRY_AFTER`]: a
    date in the past asks for no delay. Raises nothing, whatever the bytes.
    """
    value = value.strip(b" \t")
    if value.isdigit():
        # float(), not int(): it has no limit on the number of digits (CVE-2020-10735).
        seconds = float(value)
    else:
        at = _maybe_date(value)
        if at is None:
            return None
        seconds = at - wall_now
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER)


def _maybe_date(value: bytes) -> float | None:
    """Seconds since the epoch of an HTTP-date; a two-digit year lies in 1969–2068, as in POSIX.

    The names of days and months are read in the locale of the process, which is C, as HTTP wants
    it, unless the program that embeds the proxy has changed it; then a date may be malformed.
    """
    for form in _HTTP_DATES:
        try:
            date = datetime.strptime(value.decode("ascii"), form)
        except ValueError:
            continue
        return date.replace(tzinfo=UTC).timestamp()
    return None
