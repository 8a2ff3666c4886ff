"""``[pools.NAME]``: upstreams that answer the same requests, and how they are used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import field, frozen
from attrs.validators import optional

import trio_proxy.settings.checks as check
import trio_proxy.settings.places as places
from trio_proxy.settings.balance import Balance
from trio_proxy.settings.breaker import BreakerSettings
from trio_proxy.settings.dns import Dns
from trio_proxy.settings.health import Health
from trio_proxy.settings.limits import PoolLimits
from trio_proxy.settings.retry import Retry
from trio_proxy.settings.table import SettingError, Table
from trio_proxy.settings.upstream import UpstreamSettings

#: The pool that the short form of the configuration describes.
DEFAULT_POOL = "default"


@frozen(kw_only=True)
class PoolSettings(Table):
    """The upstreams of one pool; where a table is None, the file's is that of the pool, too.

    In a file a key that the pool's own table leaves out is that of the file's table.
    """

    upstreams: tuple[UpstreamSettings, ...] = field(
        validator=check.tuple_of(check.instance_of(UpstreamSettings), at_least_one="upstream"),
        metadata={"expected": "expected at least one [[pools.NAME.upstreams]] table"},
    )
    limits: PoolLimits | None = field(
        default=None, validator=optional(check.instance_of(PoolLimits))
    )
    balance: Balance | None = field(default=None, validator=optional(check.instance_of(Balance)))
    retry: Retry | None = field(default=None, validator=optional(check.instance_of(Retry)))
    health: Health | None = field(default=None, validator=optional(check.instance_of(Health)))
    breaker: BreakerSettings | None = field(
        default=None, validator=optional(check.instance_of(BreakerSettings))
    )
    dns: Dns | None = field(default=None, validator=optional(check.instance_of(Dns)))

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[SettingError]:
        upstreams = values.get("upstreams", ())
        yield from places.repeated("upstreams", [each and each.place for each in upstreams])
