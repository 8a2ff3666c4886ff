"""The settings of upstreams and of what happens when they fail.

As in `trio_proxy.settings`, of which this is the half that a pool is made of: names, units and
defaults are those of ``conf/reference.toml``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias, get_args

import attrs
from attrs import field, frozen
from attrs.validators import optional

import trio_proxy.settings.checks as check
import trio_proxy.settings.places as places
from trio_proxy.http.addresses import Address, TcpAddress, UnixAddress
from trio_proxy.settings.checks import milliseconds, number
from trio_proxy.settings.messages import (
    cookie_name,
    host_field,
    request_key,
    request_path,
    status_pattern,
)
from trio_proxy.settings.table import SettingError, Table, show

MAX_CONNECTIONS = 1_000_000
MAX_WEIGHT = 65_535

#: ``weighted`` is another word for ``round_robin``, which always heeds weights.
Policy: TypeAlias = Literal[
    "round_robin", "weighted", "least_conn", "random_two", "ip_hash", "hash"
]


@frozen(kw_only=True)
class UpstreamSettings(Table):
    """Where requests go: ``host`` and ``port``, or ``srv``, or ``unix``, the path of a socket.

    A host name stands for each address that it has, and ``srv`` (RFC 2782, as
    ``_http._tcp.app.example``) for each server that is named there: all of them become members of
    the pool with the settings given here.
    """

    host: str | None = field(default=None, validator=optional(places.host))
    port: int | None = field(default=None, validator=optional(check.whole(1, 65535)))
    srv: str | None = field(default=None, validator=optional(places.service))
    unix: str | None = field(default=None, validator=optional(places.unix_path))
    weight: int = number(1, 1, MAX_WEIGHT)
    #: Connections, idle ones included; None takes `Limits.max_conns_per_upstream`.
    max_conns: int | None = field(default=None, validator=optional(check.whole(1, MAX_CONNECTIONS)))
    #: So many failures within ``fail_timeout_ms`` take it out for as long; 0 is never.
    max_fails: int = number(1, 0, 1000)
    fail_timeout_ms: int = milliseconds(10_000, 1)
    #: Used only when no other is available.
    backup: bool = field(default=False, validator=check.boolean)
    slow_start_ms: int = milliseconds(0)
    #: Gets no new requests but those of clients that are stuck to it.
    drain: bool = field(default=False, validator=check.boolean)

    @property
    def address(self) -> Address:
        """Where it is; of ``srv`` the name that is asked, with port 0."""
        if self.unix is not None:
            return UnixAddress(self.unix)
        if self.srv is not None:
            return TcpAddress(_same_name(self.srv), 0)
        assert self.host is not None
        assert self.port is not None
        return places.canonical(TcpAddress(self.host, self.port))

    @property
    def place(self) -> Address | str:
        """What no other upstream may have: the address, or the name of ``srv``."""
        return self.address if self.srv is None else _same_name(self.srv)

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[SettingError]:
        # A faulty key is absent from the values, and was given all the same.
        keys = ("host", "port", "srv", "unix")
        given = {key for key in keys if values.get(key, "faulty") is not None}
        alone = next((key for key in ("unix", "srv") if key in given), None)
        expected = "expected host and port, or srv, or unix"
        if not given:
            yield SettingError("", "has no address", expected)
        elif alone is not None and len(given) > 1:
            wrong = "is given beside " + " and ".join(sorted(given - {alone}))
            yield SettingError(alone, wrong, expected)
        elif given == {"host"}:
            yield SettingError("port", "is missing", "expected an integer from 1 to 65535")
        elif given == {"port"}:
            yield SettingError("host", "is missing", "expected a host name or an IP address")


def _same_name(srv: str) -> str:
    return srv.lower().rstrip(".")


@frozen(kw_only=True)
class Balance(Table):
    """How an upstream is chosen."""

    policy: Policy = field(
        default="round_robin",
        validator=check.one_of(*get_args(Policy)),
    )
    #: What ``hash`` looks at; no other policy does.
    key: str = field(
        default="client_ip",
        validator=request_key("client_ip", "path", "uri", "host", prefixes=("header", "cookie")),
    )
    #: Name of a cookie that pins a client to an upstream; "" for none.
    sticky_cookie: str = field(default="", validator=cookie_name)
    #: Makes the cookie's values; "" draws a new one at each start.
    sticky_secret: str = field(default="", validator=check.text(1024, is_secret=True), repr=False)

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[SettingError]:
        if values.get("sticky_secret") and values.get("sticky_cookie") == "":
            expected = "expected a sticky_cookie beside it"
            yield SettingError("sticky_secret", "is of no use alone", expected)


#: What can befall a try before its response head, and the statuses that can be retried.
RETRY_CONDITIONS = ("connect", "reset", "timeout", "429", "500", "502", "503", "504")


@frozen(kw_only=True)
class Retry(Table):
    """When a failed try is followed by another (nginx: ``proxy_next_upstream``)."""

    #: Tries in all; 1 is no retry.
    attempts: int = number(2, 1, 100)
    try_timeout_ms: int = milliseconds(0)
    on: tuple[str, ...] = field(
        default=("connect", "reset", "timeout"),
        validator=check.tuple_of(check.one_of(*RETRY_CONDITIONS)),
    )
    unsafe_methods: bool = field(default=False, validator=check.boolean)
    #: How much of a request's body is kept for another try.
    replay_bytes: int = number(65_536, 0, 1_073_741_824)
    budget_percent: int = number(20, 0, 1000)


def _statuses(*default: str) -> Any:
    return field(default=default, validator=check.tuple_of(status_pattern))


@frozen(kw_only=True)
class Health(Table):
    """Active checks, which are off without a path, and what counts for the passive ones."""

    path: str = field(default="", validator=request_path)
    interval_ms: int = milliseconds(5000, 10)
    timeout_ms: int = milliseconds(1000, 1)
    #: Passed checks in a row that bring an upstream back, and failed ones that take it out.
    rise: int = number(2, 1, 1000)
    fall: int = number(3, 1, 1000)
    expect: tuple[str, ...] = field(
        default=("2xx", "3xx"), validator=check.tuple_of(status_pattern, at_least_one="status")
    )
    #: Text that must be in the first 64 KiB of the body; "" for any body.
    expect_body: str = field(default="", validator=check.text(1024))
    #: What Host says in a check; "" is the upstream's name or address.
    host: str = field(default="", validator=host_field)
    #: Statuses that count as failures of a request for ``max_fails``.
    fail_statuses: tuple[str, ...] = _statuses()
    #: With less than this share of a pool's upstreams available, not counting the backups, health
    #: is ignored; 0: only with none.
    panic_percent: int = number(0, 0, 100)


@frozen(kw_only=True)
class BreakerSettings(Table):
    """When an upstream that fails is left alone altogether."""

    window_ms: int = milliseconds(10_000, 100)
    min_requests: int = number(20, 1, 1_000_000)
    error_percent: int = number(50, 1, 100)
    open_ms: int = milliseconds(5000, 1)
    half_open_requests: int = number(3, 1, 10_000)
    #: Statuses that count as errors, beside connect errors, resets and timeouts.
    error_statuses: tuple[str, ...] = _statuses("5xx")


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


@frozen(kw_only=True)
class Dns(Table):
    """How the host names of upstreams are looked up (nginx: ``resolver``)."""

    #: How often names are asked for again; 0 is never.
    refresh_ms: int = milliseconds(30_000)
    #: Servers to ask; none asks as the system does, by its hosts file and resolver.
    nameservers: tuple[str, ...] = field(default=(), validator=check.tuple_of(places.nameserver))
