"""Two pools behind one address: whom a request goes to, and what each pool has for itself."""

from __future__ import annotations

import pytest
import trio

from support.pools import answer, ask, outcomes, sample, serve, told
from support.scenario import ending, now_ms, only, refusal
from support.two_pools import API, OTHER, WEB, of, pool, queue_length, to, two_pools
from support.world import GET, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.settings import (
    Balance,
    BreakerSettings,
    Health,
    Limits,
    PoolLimits,
    RateLimitSettings,
    Retry,
    RouteSettings,
)

# Whom a request goes to


@pytest.mark.parametrize(
    ("target", "body", "route"),
    [
        ("/v1", b"a", "/v1"),
        ("/v1?x=/", b"a", "/v1"),
        ("/v1/x", b"a", "/v1"),
        ("http://a/v1/x", b"a", "/v1"),
        ("/", b"b", "/"),
        ("/v1x", b"b", "/"),
        ("/?/v1", b"b", "/"),
        ("//v1", b"b", "/"),
        ("/%761", b"b", "/"),
    ],
)
async def test_a_request_goes_to_the_pool_of_its_route(
    target: str, body: bytes, route: str
) -> None:
    async with two_pools() as w:
        serve(w)
        assert (await answer(w, to(target))).body == body
        (exchange,) = w.exchanges
        assert exchange.route == route
        assert exchange.pool == {b"a": "api", b"b": "web"}[body]


async def test_a_request_for_the_server_as_a_whole_goes_with_everything_else() -> None:
    async with two_pools() as w:
        serve(w)
        assert (await answer(w, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")).body == b"b"


async def test_what_no_route_takes_is_answered_with_404() -> None:
    """The connection goes on, nobody upstream hears of it, and it is counted."""
    routes = (RouteSettings(path="/v1", pool="api"), RouteSettings(path="/web", pool="web"))
    async with two_pools(routes=routes) as w:
        serve(w)
        async with await w.client() as client:
            assert refusal(await client.ask(GET)) == (
                404,
                b"trio-proxy; error=destination_not_found",
                b"404 Not Found: no route for this path (phase: route)\n",
            )
            assert (await client.ask(to("/v1"))).body == b"a"
        assert ending(w.exchanges[0]) == (404, Reason.NO_ROUTE, Source.CLIENT, Phase.ROUTE)
        assert (w.exchanges[0].route, w.exchanges[0].pool) == ("", "")
        assert sample(w, "proxy_rejected_total", reason="no_route") == 1


async def test_the_short_form_has_one_route_also_for_what_is_refused() -> None:
    async with world(rate_limit=RateLimitSettings(rate=0.001, burst=1)) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            assert [(await client.ask(GET)).status for _ in range(2)] == [200, 429]
        assert [exchange.route for exchange in w.exchanges] == ["/", "/"]
        assert [exchange.pool for exchange in w.exchanges] == ["default", ""]


async def test_the_short_form_and_another_pool_stand_side_by_side() -> None:
    routes = (RouteSettings(path="/v1", pool="api"), RouteSettings(pool="default"))
    async with world(
        upstreams=[WEB], servers=[API, WEB], pools={"api": pool(API)}, routes=routes
    ) as w:
        serve(w)
        assert (await answer(w, to("/v1"))).body == b"a"
        assert (await answer(w, to("/x"))).body == b"b"
        assert list(w.proxy.pools) == ["default", "api"]


async def test_one_rate_limit_is_for_the_requests_of_all_routes() -> None:
    async with two_pools(rate_limit=RateLimitSettings(rate=0.001, burst=2)) as w:
        serve(w)
        targets = ("/v1", "/", "/v1", "/")
        assert [(await answer(w, to(each))).status for each in targets] == [200, 200, 429, 429]


# What each has for itself


async def test_a_pool_that_is_down_does_not_touch_the_other() -> None:
    async with two_pools() as w:
        serve(w)
        w.net.refuse(API)
        assert [(await answer(w, to("/v1"))).status for _ in range(3)] == [502] * 3
        assert await ask(w, 3) == b"bbb"
        errors = "proxy_upstream_errors_total"
        assert of(w, errors, "api", API, type="connection_refused") == 3
        assert of(w, errors, "web", WEB, type="connection_refused") == 0


async def test_each_pool_has_its_own_cap_and_queue() -> None:
    limits = PoolLimits(max_conns_per_upstream=1, max_queue=1, queue_ms=1000)
    async with two_pools(api={"limits": limits}, timeouts=only()) as w:
        api, web = serve(w)
        api.delay = web.delay = 5.0
        clients = [await w.client() for _ in range(6)]
        for client, target in zip(clients, ("/v1", "/v1", "/v1", "/", "/", "/"), strict=True):
            await client.send(to(target))
            await trio.sleep(0.001)
        assert (queue_length(w, "api"), queue_length(w, "web")) == (1, 0)
        assert (api.active, web.active) == (1, 3)
        full = refusal(await clients[2].read_response())
        assert full[::2] == (
            503,
            b"503 Service Unavailable: too many requests are waiting (phase: pick)\n",
        )
        assert b"no upstream connection came free" in (await clients[1].read_response()).body
        assert now_ms() == 1001
        for client in clients[3:]:
            assert (await client.read_response()).status == 200
        assert "pool api: limits.max_queue reached" in w.messages()


async def test_the_limits_of_the_file_are_for_each_pool_and_not_for_both_together() -> None:
    async with two_pools(limits=Limits(max_conns_per_upstream=1), timeouts=only()) as w:
        api, web = serve(w)
        api.delay = web.delay = 1.0
        clients = [await w.client() for _ in range(2)]
        for client, target in zip(clients, ("/v1", "/"), strict=True):
            await client.send(to(target))
        for client in clients:
            assert (await client.read_response()).status == 200
        assert now_ms() == 1000


async def test_each_pool_has_its_own_checks() -> None:
    """The one is asked for another path; the other one fails them, and is alone in it."""
    table = Health(path="/up", interval_ms=1000, fall=1, rise=1)
    async with two_pools(
        api={"health": Health(path="/v1/up", interval_ms=1000, fall=1, rise=1)},
        health=table,
        timeouts=only(),
    ) as w:
        api, web = serve(w)
        web.status = 500
        await trio.sleep(1.5)
        assert {each.start for each in api.requests} == {b"GET /v1/up HTTP/1.1"}
        assert {each.start for each in web.requests} == {b"GET /up HTTP/1.1"}
        assert of(w, "proxy_upstream_up", "api", API) == 1
        assert of(w, "proxy_upstream_up", "web", WEB) == 0
        assert of(w, "proxy_health_checks_total", "api", API, result="fail") == 0
        assert told(w) == [f"upstream {WEB} of pool web down: health check failed: status 500"]


async def test_one_address_in_two_pools_is_two_upstreams() -> None:
    """Each with its own connections, cap, breaker and metrics."""
    limits = PoolLimits(max_conns_per_upstream=1)
    breaker = BreakerSettings(min_requests=1, open_ms=60_000)
    pools = {
        "api": pool(API, limits=limits, breaker=breaker),
        "web": pool(API, limits=limits),
    }
    async with two_pools(servers=[API], pools=pools) as w:
        (server,) = serve(w)
        assert (await answer(w, to("/v1"))).status == 200
        assert (await answer(w, to("/"))).status == 200
        assert len(w.upstreams[0].peers) == 2
        server.status = 500
        assert [(await answer(w, to("/v1"))).status for _ in range(2)] == [500, 503]
        assert [(await answer(w, to("/"))).status for _ in range(2)] == [500, 500]
        requests = "proxy_upstream_requests_total"
        assert (of(w, requests, "api", API), of(w, requests, "web", API)) == (2, 3)
        assert of(w, "proxy_breaker_state", "api", API, state="open") == 1
        assert of(w, "proxy_breaker_state", "web", API, state="open") is None


async def test_each_pool_has_its_own_tries() -> None:
    """How many, how long each may take, and on what occasion."""
    pools = {
        "api": pool(API, OTHER, retry=Retry(attempts=2, try_timeout_ms=100, on=("timeout",))),
        "web": pool(WEB, retry=Retry(attempts=1, try_timeout_ms=300)),
    }
    async with two_pools(servers=(API, WEB, OTHER), pools=pools, timeouts=only()) as w:
        for each in serve(w):
            each.fault = "hang"
        assert (await answer(w, to("/v1"))).status == 504
        assert now_ms() == 200
        assert (await answer(w, to("/"))).status == 504
        assert now_ms() == 500
        assert outcomes(w) == ["try_timeout"] * 3


async def test_a_try_timeout_of_one_pool_does_not_stay_with_the_connection() -> None:
    """The next request of the same client may go elsewhere."""
    async with two_pools(
        api={"retry": Retry(attempts=1, try_timeout_ms=100)}, timeouts=only()
    ) as w:
        api, web = serve(w)
        web.delay = 1.0
        async with await w.client() as client:
            assert (await client.ask(to("/v1"))).body == b"a"
            assert (await client.ask(to("/"))).body == b"b"
            api.delay = 1.0
            assert (await client.ask(to("/v1"))).status == 504


async def test_each_pool_has_its_own_way_to_choose_and_its_own_cookie() -> None:
    pools = {
        "api": pool(API, OTHER, balance=Balance(sticky_cookie="at")),
        "web": pool(WEB, OTHER, balance=Balance(sticky_cookie="on")),
    }
    async with two_pools(servers=(API, WEB, OTHER), pools=pools) as w:
        serve(w)
        cookies = {}
        for target in ("/v1", "/"):
            cookie = (await answer(w, to(target)))[b"set-cookie"].decode()
            cookies[target] = cookie.partition(";")[0]
        assert [each.partition("=")[0] for each in cookies.values()] == ["at", "on"]
        fields = f"Cookie: {'; '.join(cookies.values())}\r\n"
        assert await ask(w, 4, to("/v1", fields)) == b"aaaa"
        assert await ask(w, 4, to("/", fields)) == b"bbbb"


async def test_what_a_failed_request_costs_is_told_of_its_pool() -> None:
    """The log names the pool of an upstream, but for that of the short form."""
    pools = {"api": pool(API, OTHER)}
    routes = (RouteSettings(path="/v1", pool="api"), RouteSettings(pool="default"))
    async with world(
        upstreams=[WEB, OTHER], servers=(API, WEB, OTHER), pools=pools, routes=routes
    ) as w:
        serve(w)
        w.net.refuse(API)
        w.net.refuse(WEB)
        await ask(w, 1, to("/v1"))
        await ask(w, 1, to("/"))
        down = "down: connection_refused (max_fails=1 within 10 s), not used for 10 s"
        assert told(w) == [f"upstream {API} of pool api {down}", f"upstream {WEB} {down}"]


async def test_an_upstream_is_drained_in_one_pool_alone() -> None:
    pools = {"api": pool(API, OTHER), "web": pool(API, OTHER)}
    async with two_pools(servers=(API, OTHER), pools=pools) as w:
        serve(w)
        w.proxy.pools["api"].drain(API)
        assert await ask(w, 4, to("/v1")) == b"bbbb"
        assert set(await ask(w, 4, to("/"))) == set(b"ab")
        assert of(w, "proxy_upstream_draining", "api", API) == 1
        assert of(w, "proxy_upstream_draining", "web", API) == 0


async def test_both_pools_at_once_under_load() -> None:
    """One is hopelessly slow and full, and the other one answers as if nothing were."""
    limits = PoolLimits(max_conns_per_upstream=2, max_queue=4, queue_ms=100)
    async with two_pools(api={"limits": limits}) as w:
        api, web = serve(w)
        api.delay, web.delay = 10.0, 0.01
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(answer, w, to("/v1" if number % 2 else "/"))
        by_pool = {
            name: [each for each in w.exchanges if each.pool == name] for name in ("api", "web")
        }
        assert [each.status for each in by_pool["web"]] == [200] * 20
        assert max(each.ended_at - each.started_at for each in by_pool["web"]) < 0.02
        assert sorted(each.status for each in by_pool["api"]) == [200] * 2 + [503] * 18
