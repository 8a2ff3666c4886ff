"""``[rate_limit]``: a token bucket per client."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import attrs
from attrs import field, frozen

import trio_proxy.settings.places as places
from trio_proxy.settings.checks import number
from trio_proxy.settings.messages import request_key
from trio_proxy.settings.table import SettingError, Table, show


def _per_second(_: object, key: attrs.Attribute[Any], value: object) -> None:
    sound = type(value) in (int, float) and 0.001 <= value <= 1_000_000  # type: ignore[operator]
    if not sound:
        raise SettingError(key.name, f"is {show(value)}", "expected a number from 0.001 to 1000000")


def _store(_: object, key: attrs.Attribute[Any], value: object) -> None:
    if value != "" and not places.is_redis_url(value):
        # Not shown: it may hold a password.
        expected = 'expected "redis://USER:PASSWORD@HOST:PORT/DB", special characters as %XX, or ""'
        raise SettingError(key.name, "is not a Redis URL", expected)
    if value and find_spec("coredis") is None:
        expected = 'expected it to be installed: pip install "trio-proxy[redis]"'
        raise SettingError(key.name, "needs the package coredis", expected)


@frozen(kw_only=True)
class RateLimitSettings(Table):
    """A token bucket per client (nginx: ``limit_req`` with ``nodelay``)."""

    #: Requests per second; a fraction is allowed.
    rate: float = field(default=100, validator=_per_second)
    #: The most that may come at once.
    burst: int = number(200, 1, 1_000_000)
    key: str = field(
        default="client_ip", validator=request_key("client_ip", "global", prefixes=("header",))
    )
    #: Where the buckets are; "" is the process's own memory.
    store: str = field(default="", validator=_store, repr=False)
    #: Buckets kept in memory; beyond, the one that was not used for longest goes.
    max_keys: int = number(100_000, 1, 10_000_000)
