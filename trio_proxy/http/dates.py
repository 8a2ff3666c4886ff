"""The time of day in fields (RFC 9110 §5.6.7)."""

from __future__ import annotations

from email.utils import formatdate
from functools import lru_cache


def http_date(now: float) -> bytes:
    """``now``, in seconds since the Unix epoch, as Date has it."""
    return _http_date_of(int(now))


@lru_cache(maxsize=1)
def _http_date_of(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()
