"""From settings to what runs: the one place where handlers, pools and plans are joined."""

from __future__ import annotations

import math
from collections.abc import Mapping

from trio_proxy.codec.h1.requests import HeadLimits
from trio_proxy.exchange.contract import Handler
from trio_proxy.exchange.deadlines import Budgets
from trio_proxy.front.plan import Plan
from trio_proxy.handlers.proxy import ProxyHandler
from trio_proxy.handlers.router import Router
from trio_proxy.policy.breaker import BreakerRules
from trio_proxy.policy.forwarding import HeaderRules
from trio_proxy.policy.retry import RetryRules
from trio_proxy.routing.table import Route, RouteTable
from trio_proxy.server.plugins import Plugins
from trio_proxy.server.ratelimits import RateLimits
from trio_proxy.settings import (
    BreakerSettings,
    Health,
    PoolLimits,
    PoolSettings,
    RouteSettings,
    Settings,
    UpstreamSettings,
)
from trio_proxy.settings.checks import to_seconds
from trio_proxy.settings.messages import status_set
from trio_proxy.upstream.pool.discovery import ServiceName, Spec
from trio_proxy.upstream.pool.pool import Pool
from trio_proxy.upstream.pool.rules import (
    CheckRules,
    HealthRules,
    MemberRules,
    PoolRules,
    QueueRules,
)
from trio_proxy.upstream.tries import MessageRules


def pool_rules(settings: Settings, pool: PoolSettings) -> PoolRules:
    """Members, bounds and policies of a pool; the tables that it does not have are the file's."""
    balance, retry = pool.balance or settings.balance, pool.retry or settings.retry
    health, breaker = pool.health or settings.health, pool.breaker or settings.breaker
    limits, dns = pool.limits or settings.limits, pool.dns or settings.dns
    seconds = settings.timeouts.seconds
    return PoolRules(
        members={_spec(each): _member_rules(each, limits) for each in pool.upstreams},
        policy="round_robin" if balance.policy == "weighted" else balance.policy,
        key=balance.key,
        sticky_cookie=balance.sticky_cookie,
        sticky_secret=balance.sticky_secret,
        panic_percent=health.panic_percent,
        health=_health_rules(health, breaker),
        checks=_check_rules(health),
        queue=QueueRules(
            max_length=limits.max_queue,
            seconds=limits.queue_seconds,
            is_lifo=limits.queue == "lifo",
            target_seconds=limits.queue_target_ms / 1000,
        ),
        retry=RetryRules(
            attempts=retry.attempts,
            on=frozenset(retry.on),
            unsafe_methods=retry.unsafe_methods,
            replay_bytes=retry.replay_bytes,
        ),
        budget_percent=retry.budget_percent,
        idle_seconds=seconds["upstream_idle"],
        drain_seconds=seconds["drain"],
        refresh_seconds=to_seconds(dns.refresh_ms),
        nameservers=dns.nameservers,
    )


def _spec(upstream: UpstreamSettings) -> Spec:
    return upstream.address if upstream.srv is None else ServiceName(upstream.srv)


def _member_rules(upstream: UpstreamSettings, limits: PoolLimits) -> MemberRules:
    return MemberRules(
        max_conns=upstream.max_conns or limits.max_conns_per_upstream,
        weight=upstream.weight,
        backup=upstream.backup,
        drain=upstream.drain,
        max_fails=upstream.max_fails,
        fail_seconds=upstream.fail_timeout_ms / 1000,
        slow_start_seconds=upstream.slow_start_ms / 1000,
    )


def _health_rules(health: Health, breaker: BreakerSettings | None) -> HealthRules:
    return HealthRules(
        rise=health.rise,
        fall=health.fall,
        fail_statuses=status_set(health.fail_statuses),
        breaker=None if breaker is None else _breaker_rules(breaker),
        error_statuses=frozenset() if breaker is None else status_set(breaker.error_statuses),
    )


def _breaker_rules(breaker: BreakerSettings) -> BreakerRules:
    return BreakerRules(
        window_seconds=breaker.window_ms / 1000,
        min_requests=breaker.min_requests,
        error_percent=breaker.error_percent,
        open_seconds=breaker.open_ms / 1000,
        half_open_requests=breaker.half_open_requests,
    )


def _check_rules(health: Health) -> CheckRules | None:
    if not health.path:
        return None
    return CheckRules(
        path=health.path,
        host=health.host,
        interval_seconds=health.interval_ms / 1000,
        timeout_seconds=health.timeout_ms / 1000,
        expect=status_set(health.expect),
        expect_body=health.expect_body,
    )


def budgets(
    settings: Settings, pool: PoolSettings | None = None, at_most: float = math.inf
) -> Budgets:
    """How long everything may take; ``at_most`` seconds, whatever the settings say.

    The budgets for a pool's queue and tries are its own.
    """
    limits = (pool and pool.limits) or settings.limits
    retry = (pool and pool.retry) or settings.retry
    seconds = {
        **settings.timeouts.seconds,
        "client_write": settings.timeouts.seconds["write"],
        "queue": limits.queue_seconds,
        "try": to_seconds(retry.try_timeout_ms),
    }
    return Budgets({name: min(length, at_most) for name, length in seconds.items()})


def header_rules(settings: Settings) -> HeaderRules:
    """The ``[headers]`` table as the hot path wants it."""
    headers = settings.headers
    return HeaderRules(
        trusted=tuple(peer for peer in headers.trusted_proxies if not isinstance(peer, str)),
        trusts_unix="unix" in headers.trusted_proxies,
        forwarded=headers.forwarded,
        preserve_host=headers.host == "preserve",
        deadline_header=headers.deadline_header.encode(),
        expose_upstream=headers.expose_upstream,
    )


def head_limits(settings: Settings) -> HeadLimits:
    """Bounds on heads, of requests and responses alike."""
    limits = settings.limits
    return HeadLimits(
        head_bytes=limits.max_head_bytes,
        fields=limits.max_header_fields,
        target_bytes=limits.max_target_bytes,
    )


def proxy_plan(
    settings: Settings, pools: Mapping[str, Pool], limits: RateLimits, plugins: Plugins
) -> Plan:
    """What client connections need to know of the configuration.

    A single route of everything costs a request no look-up.
    """
    headers, heads = header_rules(settings), head_limits(settings)
    rules = MessageRules(headers, heads)
    proxying = {
        name: ProxyHandler(pools[name], budgets(settings, pool), rules)
        for name, pool in settings.every_pool.items()
    }

    def target_of(route: RouteSettings) -> Handler:
        if route.pool is not None:
            handler: Handler = proxying[route.pool]
        else:
            assert route.handler is not None
            handler = plugins.handler(route.handler)
        return limits.limited(plugins.in_front_of(handler, route))

    routes = [Route(each.path, target_of(each)) for each in settings.every_route]
    only = routes[0] if len(routes) == 1 and routes[0].path == "/" else None
    return Plan(
        handler=Router(RouteTable(routes)) if only is None else only.target,
        route="" if only is None else only.path,
        budgets=budgets(settings),
        rules=headers,
        head_limits=heads,
        max_body_bytes=settings.limits.max_body_bytes,
    )


#: No wait on the metrics port is longer: a scraper that is slow holds one of few connections.
METRICS_WAIT_SECONDS = 10.0


def metrics_plan(settings: Settings, handler: Handler) -> Plan:
    """The metrics port: as strict, with short deadlines, and no request bodies to speak of."""
    return Plan(
        handler=handler,
        budgets=budgets(settings, at_most=METRICS_WAIT_SECONDS),
        max_body_bytes=1024,
    )
