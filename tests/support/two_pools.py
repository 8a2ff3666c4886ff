"""Two pools, ``api`` for /v1 and ``web`` for the rest, with an upstream each.

async with two_pools(api={"limits": PoolLimits(max_queue=0)}) as w:
    serve(w)
    assert (await answer(w, to("/v1"))).body == b"a"
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from support.pools import NAMES, sample
from support.world import World, settings_for, upstream_settings, world
from trio_proxy.settings import PoolSettings, RouteSettings, Settings

#: The upstreams of each; the third is for whoever needs one more.
API, WEB, OTHER = NAMES[:3]

ROUTES = (RouteSettings(path="/v1", pool="api"), RouteSettings(pool="web"))


def pool(*upstreams: str, **tables: Any) -> PoolSettings:
    """A pool of these addresses; ``tables`` are its own."""
    return PoolSettings(upstreams=tuple(map(upstream_settings, upstreams)), **tables)


def both(
    api: Mapping[str, Any] | None = None, web: Mapping[str, Any] | None = None
) -> dict[str, PoolSettings]:
    """Both pools, each with tables of its own."""
    return {"api": pool(API, **(api or {})), "web": pool(WEB, **(web or {}))}


def two_pools(
    api: Mapping[str, Any] | None = None, web: Mapping[str, Any] | None = None, **tables: Any
) -> AbstractAsyncContextManager[World]:
    """A proxy before both; ``tables`` are those of the file, or of `world`."""
    tables.setdefault("servers", (API, WEB))
    tables.setdefault("pools", both(api, web))
    tables.setdefault("routes", ROUTES)
    return world(upstreams=0, **tables)


def settings_of(
    pools: dict[str, PoolSettings], routes: tuple[RouteSettings, ...] = ROUTES, **tables: Any
) -> Settings:
    """For reloads."""
    return settings_for(0, pools=pools, routes=routes, **tables)


def to(target: str, fields: str = "") -> bytes:
    """A request for a target."""
    return f"GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode()


def of(w: World, name: str, pool: str, upstream: str, **labels: str) -> float | None:
    """A sample of ``/metrics`` that is about one upstream of one pool."""
    return sample(w, name, pool=pool, upstream=upstream, **labels)


def queue_length(w: World, pool: str) -> float | None:
    """What ``proxy_queue_length`` says."""
    return sample(w, "proxy_queue_length", pool=pool)
