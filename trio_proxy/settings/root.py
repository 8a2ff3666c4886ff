"""The whole configuration: what a TOML file becomes, and what library users construct.

All settings classes are frozen, keyword-only and have defaults, except for the upstreams.
Construction raises `SettingError` (a ValueError) with a readable message. Names, units and defaults
are those of ``conf/reference.toml``, which also names nginx's directives of the same meaning.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from trio_proxy.settings.middleware import MiddlewareSettings
from trio_proxy.settings.pool import DEFAULT_POOL, PoolSettings
from trio_proxy.settings.rate_limit import RateLimitSettings
from trio_proxy.settings.retry import Retry
from trio_proxy.settings.route import RouteSettings
from trio_proxy.settings.table import SettingError, Table, quote, show
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
    """The whole configuration. Only upstreams have no default: there is one at least.

    ``upstreams`` are those of the pool named ``default`` (the short form), which takes everything
    unless there are ``routes``. Without any upstream each route needs a handler.
    """

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
        default=(), validator=check.tuple_of(check.instance_of(UpstreamSettings))
    )
    #: Further pools, by their names.
    pools: Mapping[str, PoolSettings] = field(
        factory=dict,
        validator=check.mapping_of(check.token("a pool"), check.instance_of(PoolSettings)),
    )
    routes: tuple[RouteSettings, ...] = field(
        default=(), validator=check.tuple_of(check.instance_of(RouteSettings))
    )
    #: What routes can have requests pass, by their names.
    middlewares: Mapping[str, MiddlewareSettings] = field(
        factory=dict,
        validator=check.mapping_of(
            check.token("a middleware"), check.instance_of(MiddlewareSettings)
        ),
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

    @property
    def every_pool(self) -> Mapping[str, PoolSettings]:
        """All the pools by their names, that of the short form included."""
        if not self.upstreams:
            return self.pools
        return {DEFAULT_POOL: PoolSettings(upstreams=self.upstreams), **self.pools}

    @property
    def every_route(self) -> Sequence[RouteSettings]:
        """All the routes; without ``[[routes]]`` there is one, to the default pool."""
        return self.routes or (RouteSettings(pool=DEFAULT_POOL),)

    def remarks(self) -> Iterator[str]:
        """What is allowed and still looks like a slip: what no route leads to.

        As with nginx and Traefik that is no error: whoever takes a route away for an hour leaves
        its pool and its middlewares where they are.
        """
        used = {route.pool for route in self.every_route}
        for name in self.every_pool:
            if name in used:
                continue
            if name == DEFAULT_POOL and self.upstreams:
                yield "upstreams: no route leads to them"
            else:
                yield f"pools.{name}: no route leads to it"
        passed = {name for route in self.every_route for name in route.middlewares}
        for name in self.middlewares:
            if name not in passed:
                yield f"middlewares.{name}: no route leads through it"

    def unknown_names(
        self, *, handlers: Iterable[str] = (), middlewares: Iterable[str] = ()
    ) -> Iterator[SettingError]:
        """The names in routes that nothing has, beside what the program gives by these names.

        `trio_proxy.open_proxy` refuses them, and so does `trio_proxy.load_file`.
        """
        yield from unknown_names(self.routes, self.middlewares, handlers, middlewares)

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[SettingError]:
        yield from _place_conflicts(values)
        if "upstreams" in values and "pools" in values:
            yield from _pool_conflicts(values)
            yield from _route_conflicts(values)
        yield from _cookie_conflicts(values)


def _upstreams_of(values: Mapping[str, Any]) -> Iterator[tuple[str, UpstreamSettings]]:
    """Each upstream that is right by itself, with the path of its table."""
    groups = {"upstreams": values.get("upstreams", ())}
    for name, pool in values.get("pools", {}).items():
        groups[f"pools.{name}.upstreams"] = pool.upstreams if pool else ()
    for path, upstreams in groups.items():
        for index, upstream in enumerate(upstreams):
            if upstream:
                yield f"{path}[{index}]", upstream


def _place_conflicts(values: Mapping[str, Any]) -> Iterator[SettingError]:
    listen, metrics = values.get("listen", ()), values.get("metrics_listen")
    yield from places.repeated("listen", listen)
    upstreams = values.get("upstreams", ())
    yield from places.repeated("upstreams", [each and each.place for each in upstreams])
    for path, upstream in _upstreams_of(values):
        if any(each and places.clash(upstream.address, each) for each in listen):
            wrong = f"{upstream.address} is where the proxy itself listens"
            yield SettingError(path, wrong, "expected another server")
    if metrics and any(each and places.clash(metrics, each) for each in listen):
        wrong = f"{metrics} is both listen and metrics_listen"
        yield SettingError("metrics_listen", wrong, "expected different addresses")


def _pool_conflicts(values: Mapping[str, Any]) -> Iterator[SettingError]:
    upstreams, pools = values["upstreams"], values["pools"]
    routes = values.get("routes", ())
    if not upstreams and not pools:
        if routes and all(route is None or route.handler is not None for route in routes):
            return
        expected = "expected at least one [[upstreams]] table"
        yield SettingError("upstreams", "is missing", expected)
    elif not upstreams and not values.get("routes", "faulty"):
        yield SettingError("routes", "is missing", "expected a [[routes]] table for each pool")
    elif upstreams and DEFAULT_POOL in pools:
        wrong = "is given beside [[upstreams]], which are that pool's"
        yield SettingError(f"pools.{DEFAULT_POOL}", wrong, "expected one of the two")


def _route_conflicts(values: Mapping[str, Any]) -> Iterator[SettingError]:
    names = [*([DEFAULT_POOL] if values["upstreams"] else []), *values["pools"]]
    first_of: dict[str, int] = {}
    for index, route in enumerate(values.get("routes", ())):
        if route is None:
            continue
        first = first_of.setdefault(route.path, index)
        if first != index:
            wrong = f"{quote(route.path)} is there already, at index {first}"
            yield SettingError(f"routes[{index}].path", wrong, "expected each path once")
        if names and route.pool is not None and route.pool not in names:
            yield _unknown_name(f"routes[{index}].pool", route.pool, "pool", names)


def unknown_names(
    routes: Iterable[RouteSettings | None],
    tables: Iterable[str],
    handlers: Iterable[str],
    middlewares: Iterable[str],
) -> Iterator[SettingError]:
    """See `Settings.unknown_names`; ``tables`` are the names of tables, None is a faulty route."""
    known, handlers = [*tables, *middlewares], [*handlers]
    for index, route in enumerate(routes):
        if route is None:
            continue
        if route.handler is not None and route.handler not in handlers:
            yield _unknown_name(f"routes[{index}].handler", route.handler, "handler", handlers)
        for place, name in enumerate(route.middlewares):
            if name not in known:
                key = f"routes[{index}].middlewares[{place}]"
                yield _unknown_name(key, name, "middleware", known)


_WHERE_FROM = {
    "pool": "a [pools.NAME] table",
    "handler": "a program to give it to trio_proxy.open_proxy: a file alone has none",
    "middleware": "a [middlewares.NAME] table",
}


def _unknown_name(key: str, name: str, what: str, names: list[str]) -> SettingError:
    alike = difflib.get_close_matches(name, names, n=1)
    expected = f"expected {_any_of(names) if names else _WHERE_FROM[what]}"
    if alike:
        expected = f"did you mean {quote(alike[0])}?"
    return SettingError(key, f"is {quote(name)}, and there is no such {what}", expected)


def _any_of(names: list[str]) -> str:
    shown = ", ".join(map(quote, names[:10]))
    return f"one of {shown}" + (", …" if len(names) > 10 else "") if len(names) > 1 else shown


def _cookie_conflicts(values: Mapping[str, Any]) -> Iterator[SettingError]:
    """A cookie is the whole site's: two pools would write over each other's without end."""
    common = values.get("balance")
    tables = {"": common} if values.get("upstreams") else {}
    for name, pool in values.get("pools", {}).items():
        tables[f"pools.{name}."] = pool and (pool.balance or common)
    first_of: dict[str, str] = {}
    for path, balance in tables.items():
        if not balance or not balance.sticky_cookie:
            continue
        first = first_of.setdefault(balance.sticky_cookie, path)
        if first != path:
            other = first.removeprefix("pools.").removesuffix(".") or DEFAULT_POOL
            wrong = f"is {quote(balance.sticky_cookie)}, which is that of pool {other} already"
            expected = "expected a cookie of its own for each pool"
            yield SettingError(f"{path}balance.sticky_cookie", wrong, expected)
