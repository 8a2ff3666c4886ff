"""The whole configuration: what a TOML file becomes, and what library users construct.

All settings classes are frozen, keyword-only and have defaults, except for the upstreams.
Construction raises `SettingError` (a ValueError) with a readable message. Names, units and defaults
are those of ``conf/reference.toml``, which also names nginx's directives of the same meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

import attrs
from attrs import field, frozen
from attrs.validators import optional

import trio_proxy.settings.checks as check
import trio_proxy.settings.places as places
from trio_proxy.http.addresses import Address, TcpAddress
from trio_proxy.settings.balance import Balance
from trio_proxy.settings.breaker import BreakerSettings
from trio_proxy.settings.dns import Dns
from trio_proxy.settings.headers import HeaderSettings
from trio_proxy.settings.health import Health
from trio_proxy.settings.limits import Limits
from trio_proxy.settings.logging import LoggingSettings
from trio_proxy.settings.rate_limit import RateLimitSettings
from trio_proxy.settings.retry import Retry
from trio_proxy.settings.table import SettingError, Table, show
from trio_proxy.settings.timeouts import Timeouts
from trio_proxy.settings.upstream import UpstreamSettings

#: More processes than this are a slip of the pen; the largest machines have as many cores.
MAX_WORKERS = 1024

#: How many processes serve; "auto" is one for each core that the process may use.
Workers: TypeAlias = int | Literal["auto"]


def _workers(_: object, key: attrs.Attribute[Any], value: object) -> None:
    if value != "auto" and not (type(value) is int and 1 <= value <= MAX_WORKERS):
        expected = f'expected an integer from 1 to {MAX_WORKERS}, or "auto"'
        raise SettingError(key.name, f"is {show(value)}", expected)


@frozen(kw_only=True)
class Settings(Table):
    """The whole configuration. Only ``upstreams`` has no default."""

    listen: tuple[Address, ...] = field(
        default=(TcpAddress("127.0.0.1", 8080),),
        validator=check.tuple_of(places.address, at_least_one="address"),
    )
    #: Where ``GET /metrics`` is answered; None for nowhere.
    metrics_listen: Address | None = field(default=None, validator=optional(places.address))
    pid_file: str | None = field(default=None, validator=optional(check.path))
    #: Of the program; `trio_proxy.open_proxy` is always in the one process that it is called in.
    workers: Workers = field(default=1, validator=_workers)
    upstreams: tuple[UpstreamSettings, ...] = field(
        validator=check.tuple_of(check.instance_of(UpstreamSettings), at_least_one="upstream"),
        metadata={"expected": "expected at least one [[upstreams]] table"},
    )
    timeouts: Timeouts = field(factory=Timeouts, validator=check.instance_of(Timeouts))
    limits: Limits = field(factory=Limits, validator=check.instance_of(Limits))
    balance: Balance = field(factory=Balance, validator=check.instance_of(Balance))
    retry: Retry = field(factory=Retry, validator=check.instance_of(Retry))
    health: Health = field(factory=Health, validator=check.instance_of(Health))
    #: None for no breaker.
    breaker: BreakerSettings | None = field(
        default=None, validator=optional(check.instance_of(BreakerSettings))
    )
    #: None for no limit.
    rate_limit: RateLimitSettings | None = field(
        default=None, validator=optional(check.instance_of(RateLimitSettings))
    )
    dns: Dns = field(factory=Dns, validator=check.instance_of(Dns))
    headers: HeaderSettings = field(
        factory=HeaderSettings, validator=check.instance_of(HeaderSettings)
    )
    logging: LoggingSettings = field(
        factory=LoggingSettings, validator=check.instance_of(LoggingSettings)
    )

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[SettingError]:
        listen, metrics = values.get("listen", ()), values.get("metrics_listen")
        yield from places.repeated("listen", listen)
        upstreams = values.get("upstreams", ())
        yield from places.repeated("upstreams", [each and each.place for each in upstreams])
        for index, upstream in enumerate(upstreams):
            if upstream and any(each and places.clash(upstream.address, each) for each in listen):
                wrong = f"{upstream.address} is where the proxy itself listens"
                yield SettingError(f"upstreams[{index}]", wrong, "expected another server")
        if metrics and any(each and places.clash(metrics, each) for each in listen):
            wrong = f"{metrics} is both listen and metrics_listen"
            yield SettingError("metrics_listen", wrong, "expected different addresses")
