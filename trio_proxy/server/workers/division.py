"""Each worker's share of the limits.

What bounds the proxy as a whole is divided, rounded up so that nobody gets nothing: connections of
clients and to upstreams, the queue, and the rate limit unless its buckets are in a store that all
share. Everything else is a rule for one connection or request, which is the same for each worker,
or something that a worker knows by itself: health, breakers, retry budget, turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import attrs

from trio_proxy.settings import (
    PoolLimits,
    PoolSettings,
    RateLimitSettings,
    Settings,
    UpstreamSettings,
)

L = TypeVar("L", bound=PoolLimits)

#: The keys of the tables ``limits`` that are divided. 0 stays 0.
DIVIDED_LIMITS = ("max_client_conns", "max_conns_per_upstream", "max_queue")

#: The lowest rate that settings can have, per second.
_LOWEST_RATE = 0.001


def share_of(settings: Settings, workers: int) -> Settings:
    """What one of so many workers is to heed."""
    return attrs.evolve(
        settings,
        limits=_limits(settings.limits, workers),
        upstreams=_upstreams(settings.upstreams, workers),
        pools={name: _pool(each, workers) for name, each in settings.pools.items()},
        rate_limit=_rate_limit(settings.rate_limit, workers),
    )


def _pool(pool: PoolSettings, workers: int) -> PoolSettings:
    limits = None if pool.limits is None else _limits(pool.limits, workers)
    return attrs.evolve(pool, limits=limits, upstreams=_upstreams(pool.upstreams, workers))


def _limits(limits: L, workers: int) -> L:
    shares: dict[str, Any] = {
        name: _ceil(getattr(limits, name), workers) for name in _divided(limits)
    }
    return attrs.evolve(limits, **shares)


def _divided(limits: PoolLimits) -> Iterator[str]:
    """The keys that this one has: only the proxy's limits have one for clients."""
    return (name for name in DIVIDED_LIMITS if hasattr(limits, name))


def _upstreams(
    upstreams: tuple[UpstreamSettings, ...], workers: int
) -> tuple[UpstreamSettings, ...]:
    return tuple(_upstream(each, workers) for each in upstreams)


def _upstream(upstream: UpstreamSettings, workers: int) -> UpstreamSettings:
    if upstream.max_conns is None:
        return upstream
    return attrs.evolve(upstream, max_conns=_ceil(upstream.max_conns, workers))


def _rate_limit(limit: RateLimitSettings | None, workers: int) -> RateLimitSettings | None:
    if limit is None or limit.store:
        return limit
    rate = max(limit.rate / workers, _LOWEST_RATE)
    return attrs.evolve(limit, rate=rate, burst=_ceil(limit.burst, workers))


def _ceil(whole: int, workers: int) -> int:
    return -(-whole // workers)


def too_small(settings: Settings, workers: int) -> Iterator[tuple[str, int]]:
    """Each cap that is less than the number of workers, who have 1 each all the same."""
    yield from _too_small(settings.limits, settings.upstreams, workers)
    for name, pool in settings.pools.items():
        for key, cap in _too_small(pool.limits, pool.upstreams, workers):
            yield f"pools.{name}.{key}", cap
    limit = settings.rate_limit
    if limit is not None and not limit.store and limit.burst < workers:
        yield "rate_limit.burst", limit.burst


def _too_small(
    limits: PoolLimits | None, upstreams: tuple[UpstreamSettings, ...], workers: int
) -> Iterator[tuple[str, int]]:
    for name in () if limits is None else _divided(limits):
        if 0 < (cap := getattr(limits, name)) < workers:
            yield f"limits.{name}", cap
    for index, upstream in enumerate(upstreams):
        if upstream.max_conns is not None and upstream.max_conns < workers:
            yield f"upstreams[{index}].max_conns", upstream.max_conns
