"""Reloads that add pools and routes, take them away, and bring them back."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from support.pools import answer, ask, serve
from support.scenario import how_it_ends, now_ms, only, until_ms
from support.two_pools import (
    API,
    OTHER,
    WEB,
    both,
    of,
    pool,
    queue_length,
    settings_of,
    to,
    two_pools,
)
from support.world import GET, World, settings_for, world
from trio_proxy.http.errors import Reason
from trio_proxy.settings import (
    Health,
    PoolLimits,
    RouteSettings,
)

ONLY_WEB = (RouteSettings(pool="web"),)
WITHOUT_API = {"web": pool(WEB)}

#: A head takes at most half a second here, and a drain two.
BUDGETS = only(head_ms=500, drain_ms=2000)


def has_api(w: World) -> bool:
    """Whether the metrics show anything of the pool."""
    return queue_length(w, "api") is not None or any(
        pool_name == "api" for pool_name, _ in w.proxy.stats.upstreams
    )


def told_of_pools(w: World) -> list[str]:
    return [each for each in w.messages() if each.startswith("pool ")]


async def test_a_pool_and_a_route_are_added() -> None:
    async with two_pools(pools=WITHOUT_API, routes=ONLY_WEB, timeouts=BUDGETS) as w:
        serve(w)
        assert (await answer(w, to("/v1"))).body == b"b"
        await w.reload(settings_of(both(), timeouts=BUDGETS))
        assert (await answer(w, to("/v1"))).body == b"a"
        assert (await answer(w, to("/"))).body == b"b"
        assert list(w.proxy.pools) == ["api", "web"]
        assert told_of_pools(w) == ["pool api added"]
        assert of(w, "proxy_upstream_requests_total", "api", API) == 1


async def test_a_pool_that_is_added_is_checked_at_once() -> None:
    checks = Health(path="/up", interval_ms=100, fall=1)
    async with two_pools(pools=WITHOUT_API, routes=ONLY_WEB, timeouts=BUDGETS) as w:
        api, _ = serve(w)
        api.status = 500
        await w.reload(settings_of(both({"health": checks}), timeouts=BUDGETS))
        await trio.sleep(0.2)
        assert of(w, "proxy_upstream_up", "api", API) == 0


async def test_a_pool_that_stays_keeps_its_connections_and_its_health() -> None:
    """Whatever becomes of the other."""
    pools = {"api": pool(API), "web": pool(WEB, OTHER)}
    async with two_pools(servers=(API, WEB, OTHER), pools=pools, timeouts=BUDGETS) as w:
        serve(w)
        await ask(w, 2, to("/"))
        w.net.refuse(WEB)
        w.proxy.close_idle()
        await ask(w, 2, to("/"))
        assert of(w, "proxy_upstream_up", "web", WEB) == 0
        await w.reload(settings_of({"web": pool(WEB, OTHER)}, ONLY_WEB, timeouts=BUDGETS))
        assert of(w, "proxy_upstream_up", "web", WEB) == 0
        assert await ask(w, 3, to("/")) == b"ccc"
        assert len(w.upstreams[2].peers) == 2


async def test_routes_change_places() -> None:
    """The next request goes the new way, on the same connection."""
    async with two_pools() as w:
        serve(w)
        async with await w.client() as client:
            assert (await client.ask(to("/v1"))).body == b"a"
            routes = (RouteSettings(path="/v1", pool="web"), RouteSettings(pool="api"))
            await w.reload(settings_of(both(), routes))
            assert (await client.ask(to("/v1"))).body == b"b"
            assert (await client.ask(to("/"))).body == b"a"


async def test_a_removed_pool_that_nobody_uses_is_gone_after_head_ms() -> None:
    """So long there may be a request that has begun to come by the old routes."""
    async with two_pools(timeouts=BUDGETS) as w:
        serve(w)
        await answer(w, to("/v1"))
        await w.reload(settings_of(WITHOUT_API, ONLY_WEB, timeouts=BUDGETS))
        assert list(w.proxy.pools) == ["web"]
        await until_ms(499)
        assert has_api(w)
        await until_ms(501)
        assert not has_api(w)
        assert told_of_pools(w) == ["pool api removed, 0 requests left", "pool api is gone"]
        assert (await answer(w, to("/v1"))).body == b"b"


async def test_a_request_whose_head_comes_during_the_reload_is_answered() -> None:
    """By the old routes or the new ones, but not with a failure."""
    async with two_pools(timeouts=BUDGETS) as w:
        serve(w)
        async with await w.client() as client:
            await client.send(b"GET /v1 HTTP/1.1\r\n")
            await trio.sleep(0.1)
            await w.reload(settings_of(WITHOUT_API, ONLY_WEB, timeouts=BUDGETS))
            await trio.sleep(0.3)
            assert (await client.ask(b"Host: a\r\n\r\n")).status == 200
            assert (await client.ask(to("/v1"))).body == b"b"


async def test_the_requests_of_a_removed_pool_have_drain_ms_to_end() -> None:
    """Those that wait for a connection of it, too; then it is forgotten."""
    limits = {"limits": PoolLimits(max_conns_per_upstream=1)}
    async with two_pools(api=limits, timeouts=BUDGETS) as w:
        api, _ = serve(w)
        api.delay = 0.9
        first, second = await w.client(), await w.client()
        for client in (first, second):
            await client.send(to("/v1"))
            await trio.sleep(0.001)
        await w.reload(settings_of(WITHOUT_API, ONLY_WEB, timeouts=BUDGETS))
        assert "pool api removed, 2 requests left" in w.messages()
        assert queue_length(w, "api") == 1
        assert (await first.read_response()).body == b"a"
        assert (await second.read_response()).body == b"a"
        assert now_ms() == 1800
        await trio.sleep(0.001)
        assert not has_api(w)


async def test_what_is_left_of_a_removed_pool_after_drain_ms_is_cut() -> None:
    """The client that got nothing yet is told so; one in the middle of an answer is cut off."""
    async with two_pools(timeouts=BUDGETS) as w:
        waiting, reading = await w.client(), await w.client()
        peers = []
        for client in (waiting, reading):
            await client.send(to("/v1"))
            peers.append(await w.upstreams[0].accept())
        await peers[1].send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        assert (await reading.read_head()).status == 200
        await w.reload(settings_of(WITHOUT_API, ONLY_WEB, timeouts=BUDGETS))
        assert (await waiting.read_response()).status == 503
        assert now_ms() == 2000
        assert await how_it_ends(reading) == (b"half", "eof")
        await trio.testing.wait_all_tasks_blocked()
        assert not has_api(w)
        errors = [exchange.error.reason for exchange in w.exchanges if exchange.error]
        assert errors == [Reason.SHUTTING_DOWN] * 2


async def test_a_removed_pool_comes_back_with_all_that_is_known_of_it() -> None:
    pools = {"api": pool(API, OTHER), "web": pool(WEB)}
    async with two_pools(servers=(API, WEB, OTHER), pools=pools, timeouts=BUDGETS) as w:
        serve(w)
        w.net.refuse(API)
        await ask(w, 1, to("/v1"))
        assert of(w, "proxy_upstream_up", "api", API) == 0
        await w.reload(settings_of(WITHOUT_API, ONLY_WEB, timeouts=BUDGETS))
        await trio.sleep(0.2)
        await w.reload(settings_of(pools, timeouts=BUDGETS))
        assert told_of_pools(w) == ["pool api removed, 0 requests left", "pool api is back"]
        assert of(w, "proxy_upstream_up", "api", API) == 0
        assert of(w, "proxy_upstream_requests_total", "api", API) == 1
        await trio.sleep(5)
        assert await ask(w, 2, to("/v1")) == b"cc"
        assert len(w.upstreams[2].peers) == 1


@pytest.mark.parametrize("steps", range(12))
async def test_a_pool_comes_back_while_its_time_is_over(steps: int) -> None:
    """In whichever step of being seen off: it serves again, and goes on to."""
    async with two_pools(timeouts=BUDGETS) as w:
        client = await w.client()
        await client.send(to("/v1"))
        peer = await w.upstreams[0].accept()
        await w.reload(settings_of(WITHOUT_API, ONLY_WEB, timeouts=BUDGETS))
        await trio.sleep(2)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        await w.reload(settings_of(both(), timeouts=BUDGETS))
        serve(w)
        assert (await answer(w, to("/v1"))).body == b"a"
        await trio.sleep(5)
        assert (await answer(w, to("/v1"))).body == b"a"
        assert has_api(w)
        await peer.respond()
        assert (await client.read_response()).status in (200, 503)


async def test_a_pool_that_comes_back_when_it_is_gone_begins_anew() -> None:
    async with two_pools(timeouts=BUDGETS) as w:
        serve(w)
        assert await ask(w, 2, to("/v1")) == b"aa"
        await w.reload(settings_of(WITHOUT_API, ONLY_WEB, timeouts=BUDGETS))
        await trio.sleep(1)
        await w.reload(settings_of(both(), timeouts=BUDGETS))
        assert of(w, "proxy_upstream_requests_total", "api", API) == 0
        assert (await answer(w, to("/v1"))).body == b"a"


async def test_from_the_short_form_to_the_long_one_and_back() -> None:
    """The pool of the short form goes and comes like any other; an upgraded request stays."""
    async with world(upstreams=[WEB], servers=(API, WEB), timeouts=BUDGETS) as w:
        serve(w)
        async with await w.client() as client:
            assert (await client.ask(GET)).body == b"b"
            await w.reload(settings_of(both(), timeouts=BUDGETS))
            assert (await client.ask(to("/v1"))).body == b"a"
            assert list(w.proxy.pools) == ["api", "web"]
            await trio.sleep(1)
            await w.reload(settings_for([WEB], timeouts=BUDGETS))
            assert (await client.ask(to("/v1"))).body == b"b"
            assert list(w.proxy.pools) == ["default"]
            await trio.sleep(1)
        assert {name for name, _ in w.proxy.stats.upstreams} == {"default"}
        assert list(w.proxy.stats.queue_length) == ["default"]


async def test_a_refused_reload_changes_no_pool_and_no_route() -> None:
    taken = "10.0.0.9:80"
    async with two_pools(timeouts=BUDGETS) as w:
        serve(w)
        await w.net.listen(taken)
        bad = settings_of(
            {"web": pool(WEB), "new": pool(OTHER)}, ONLY_WEB, listen=("10.0.0.1:80", taken)
        )
        with pytest.raises(OSError, match=r"10\.0\.0\.9:80"):
            await w.reload(bad)
        assert list(w.proxy.pools) == ["api", "web"]
        assert (await answer(w, to("/v1"))).body == b"a"
        assert queue_length(w, "new") is None
        assert told_of_pools(w) == []


async def test_a_pools_limits_queue_and_checks_change_with_it_alone() -> None:
    async with two_pools(timeouts=only()) as w:
        api, web = serve(w)
        api.delay = web.delay = 1.0
        limits = {"limits": PoolLimits(max_conns_per_upstream=1, max_queue=0)}
        await w.reload(settings_of(both(limits), timeouts=only()))
        clients = [await w.client() for _ in range(4)]
        for client, target in zip(clients, ("/v1", "/v1", "/", "/"), strict=True):
            await client.send(to(target))
            await trio.sleep(0.001)
        assert [(await client.read_response()).status for client in clients] == [
            200,
            503,
            200,
            200,
        ]


async def test_the_proxy_stops_while_a_pool_is_seen_off() -> None:
    """Nothing is left of either."""
    async with two_pools(timeouts=BUDGETS) as w:
        serve(w)
        await answer(w, to("/v1"))
        await w.reload(settings_of(WITHOUT_API, ONLY_WEB, timeouts=BUDGETS))
        await trio.sleep(0.1)
