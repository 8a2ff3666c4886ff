"""Every setting of the proxy: what a TOML file becomes, and what library users construct.

All classes are frozen, keyword-only and have defaults, except for the upstreams. Construction
raises `SettingError` (a ValueError) with a readable message. Names, units and defaults are those
of ``conf/reference.toml``, which also names nginx's directives of the same meaning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import attrs
from attrs import field, frozen
from attrs.validators import optional

import trio_proxy.settings.checks as check
import trio_proxy.settings.places as places
from trio_proxy.http.addresses import Address, TcpAddress
from trio_proxy.settings.checks import milliseconds, number, to_seconds
from trio_proxy.settings.messages import free_field_name
from trio_proxy.settings.table import SettingError, Table, show
from trio_proxy.settings.upstreams import (
    MAX_CONNECTIONS,
    Balance,
    BreakerSettings,
    Dns,
    Health,
    RateLimitSettings,
    Retry,
    UpstreamSettings,
)

#: What nginx's client_max_body_size can hold (a signed 64-bit ``off_t``).
MAX_BODY_BYTES = 2**63 - 1

#: More processes than this are a slip of the pen; the largest machines have as many cores.
MAX_WORKERS = 1024

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
#: How many processes serve; "auto" is one for each core that the process may use.
Workers: TypeAlias = int | Literal["auto"]
#: A network whose forwarding fields are believed; "unix" is every client of a unix-socket listener.
TrustedPeer: TypeAlias = IPv4Network | IPv6Network | Literal["unix"]


@frozen(kw_only=True)
class Timeouts(Table):
    """Deadlines in milliseconds, each for one kind of wait; 0 means none."""

    connect_ms: int = milliseconds(1000)
    read_ms: int = milliseconds(15_000)
    write_ms: int = milliseconds(15_000)
    total_ms: int = milliseconds(30_000)
    head_ms: int = milliseconds(10_000)
    body_ms: int = milliseconds(15_000)
    idle_ms: int = milliseconds(75_000)
    upstream_idle_ms: int = milliseconds(60_000)
    tunnel_idle_ms: int = milliseconds(300_000)
    drain_ms: int = milliseconds(30_000)

    @cached_property
    def seconds(self) -> Mapping[str, float]:
        """Each budget by its short name ("connect", …) in seconds; infinity where there is none."""
        names = [each.name for each in attrs.fields(Timeouts)]
        return MappingProxyType(
            {name.removesuffix("_ms"): to_seconds(getattr(self, name)) for name in names}
        )


@frozen(kw_only=True)
class Limits(Table):
    """How much of everything: connections, waiting requests, bytes."""

    max_client_conns: int = number(1000, 1, MAX_CONNECTIONS)
    max_conns_per_upstream: int = number(100, 1, MAX_CONNECTIONS)
    #: Requests that wait for an upstream connection; with 0 none waits.
    max_queue: int = number(1000, 0, MAX_CONNECTIONS)
    queue_ms: int = milliseconds(5000)
    #: Who of those that wait comes first: always the oldest, or under overload the newest.
    queue: Literal["fifo", "lifo"] = field(default="fifo", validator=check.one_of("fifo", "lifo"))
    #: The wait beyond which a queue that stands counts as overload, for ``lifo``.
    queue_target_ms: int = milliseconds(100, 1)
    max_head_bytes: int = number(32_768, 1024, 1_048_576)
    max_header_fields: int = number(100, 1, 10_000)
    max_target_bytes: int = number(8192, 16, 1_048_576)
    #: 0 means no limit.
    max_body_bytes: int = number(0, 0, MAX_BODY_BYTES)

    @property
    def queue_seconds(self) -> float:
        """The longest wait for an upstream connection in seconds; infinity for 0."""
        return to_seconds(self.queue_ms)

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[SettingError]:
        target, head = values.get("max_target_bytes", 0), values.get("max_head_bytes", math.inf)
        if target > head:
            wrong = f"is {target}, but the whole head may have only {head} bytes"
            yield SettingError(
                "max_target_bytes", wrong, f"expected at most max_head_bytes, {head}"
            )


def _workers(_: object, key: attrs.Attribute[Any], value: object) -> None:
    if value != "auto" and not (type(value) is int and 1 <= value <= MAX_WORKERS):
        expected = f'expected an integer from 1 to {MAX_WORKERS}, or "auto"'
        raise SettingError(key.name, f"is {show(value)}", expected)


def _trusted_peer(_: object, key: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, IPv4Network | IPv6Network) and value != "unix":
        raise SettingError(key.name, f"is {show(value)}", 'expected a network or "unix"')


@frozen(kw_only=True)
class HeaderSettings(Table):
    """What is believed, added and passed on in message heads."""

    trusted_proxies: tuple[TrustedPeer, ...] = field(
        default=(), validator=check.tuple_of(_trusted_peer)
    )
    forwarded: bool = field(default=False, validator=check.boolean)
    host: Literal["preserve", "upstream"] = field(
        default="preserve", validator=check.one_of("preserve", "upstream")
    )
    #: The field that carries the rest of the total budget in milliseconds; "" for none.
    deadline_header: str = field(default="", validator=free_field_name)
    expose_upstream: bool = field(default=False, validator=check.boolean)


@frozen(kw_only=True)
class LoggingSettings(Table):
    """What is logged and how."""

    level: LogLevel = field(
        default="info", validator=check.one_of("debug", "info", "warning", "error")
    )
    format: Literal["text", "json"] = field(default="text", validator=check.one_of("text", "json"))
    access: bool = field(default=True, validator=check.boolean)


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
