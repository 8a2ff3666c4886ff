"""Addresses that a name has again: in time they are the same as before, and else new."""

from __future__ import annotations

import pytest
import trio

from support.naming import A_IP, APP, B_IP, C_IP, HOST, NamedNet, named_settings, named_world, shown
from support.pools import A, B, ask, is_up, metric, serve, statuses, told
from support.scenario import (
    GET,
    OK,
    connections,
    ending,
    member,
    now_ms,
    only,
    until_ms,
)
from support.world import upstream_settings
from trio_proxy.http.errors import Reason
from trio_proxy.settings import BreakerSettings, Dns, Health, Limits

EACH_SECOND = Dns(refresh_ms=1000)


async def test_back_while_it_drains_it_is_the_same_as_before() -> None:
    """Its request under way ends in its own time, and counts for its cap meanwhile."""
    net = NamedNet(A_IP, B_IP)
    limits = Limits(max_conns_per_upstream=1)
    budgets = only(drain_ms=5000)
    async with named_world(net, limits=limits, dns=EACH_SECOND, timeouts=budgets) as w:
        client, other = await w.client(), await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        net.name(HOST, B_IP)
        await until_ms(1500)
        net.name(HOST, A_IP, B_IP)
        await until_ms(2500)
        await other.send(GET)
        await (await w.upstreams[1].accept()).send(OK)
        assert (await other.read_response()).body == b"ok"
        assert connections(w, 0) == (1, 0)
        await until_ms(20_000)
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"
        assert connections(w, 0) == (0, 1)
        w.helpers.start_soon(other.send, GET + GET)
        assert (await upstream.read_request()).start == b"GET / HTTP/1.1"
        await upstream.send(OK)
        assert shown(w) == [A, B]
        assert metric(w, "proxy_upstream_requests_total", A) == 1


async def test_gone_twice_each_time_has_the_whole_of_drain_ms() -> None:
    """A request is cut drain_ms after its upstream went for the last time."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net, dns=EACH_SECOND, timeouts=only(drain_ms=3000)) as w:
        client = await w.client()
        await client.send(GET)
        await (await w.upstreams[0].accept()).read_request()
        for second, addresses in ((1, [B_IP]), (2, [A_IP, B_IP]), (3, [B_IP])):
            await until_ms(second * 1000 - 1)
            net.name(HOST, *addresses)
        assert (await client.read_response()).status == 503
        assert now_ms() == 6000
        await until_ms(6000.001)
        assert shown(w) == [B]
        assert len(told(w)) == 2
    assert ending(w.exchanges[0])[:2] == (503, Reason.SHUTTING_DOWN)


async def test_back_while_it_drains_its_health_is_what_it_was() -> None:
    """An upstream that was out before it went is still out; it starts neither well nor slowly."""
    net = NamedNet(A_IP, B_IP)
    upstreams = [upstream_settings(APP, slow_start_ms=100_000)]
    async with named_world(net, upstreams, dns=EACH_SECOND, timeouts=only(drain_ms=0)) as w:
        every = serve(w)
        every[0].delay = 5
        client = await w.client()
        await client.send(GET)
        await trio.sleep(0.001)
        assert await ask(w, 1) == b"b"
        every[0].delay, every[0].fault = 0, "reset"
        assert await statuses(w, 1) == [502]
        every[0].fault = ""
        net.name(HOST, B_IP)
        await until_ms(1001)
        net.name(HOST, A_IP, B_IP)
        await until_ms(2001)
        assert shown(w) == [A, B]
        assert not is_up(w, A)
        assert await ask(w, 3) == b"bbb"
        assert (await client.read_response()).body == b"a"
        assert now_ms() == 5000
        await until_ms(9999)
        assert await ask(w, 3) == b"bbb"
        await until_ms(10_001)
        assert b"a" in await ask(w, 3)
        assert is_up(w, A)


async def test_back_after_it_was_forgotten_it_is_new() -> None:
    """With counters at zero and in good health, whatever it was before; and it starts slowly."""
    net = NamedNet(A_IP, B_IP)
    upstreams = [upstream_settings(APP, slow_start_ms=10_000)]
    async with named_world(net, upstreams, dns=EACH_SECOND) as w:
        every = serve(w)
        every[0].fault = "reset"
        assert await statuses(w, 2) == [502, 200]
        every[0].fault = ""
        net.name(HOST, B_IP)
        await until_ms(1001)
        net.name(HOST, A_IP, B_IP)
        await until_ms(2001)
        assert is_up(w, A)
        assert metric(w, "proxy_upstream_requests_total", A) == 0
        assert (await ask(w, 110)).count(b"a") == pytest.approx(10, abs=1)


async def test_back_after_a_reload_it_has_the_rules_of_that() -> None:
    """What was changed while it was away holds for it too, though its own table is the same."""
    net = NamedNet(A_IP, B_IP)
    budgets = only(drain_ms=0)
    async with named_world(net, dns=EACH_SECOND, timeouts=budgets) as w:
        every = serve(w)
        every[0].delay = 9
        client = await w.client()
        await client.send(GET)
        await trio.sleep(0.001)
        every[0].delay = 0
        net.name(HOST, B_IP)
        await until_ms(1500)
        tables = {
            "breaker": BreakerSettings(min_requests=1),
            "health": Health(fail_statuses=("500",)),
            "timeouts": only(drain_ms=0, upstream_idle_ms=300),
        }
        await w.reload(named_settings(dns=EACH_SECOND, **tables))
        net.name(HOST, A_IP, B_IP)
        await until_ms(2001)
        assert metric(w, "proxy_breaker_state", A, state="closed") == 1
        assert member(w).idle_seconds == 0.3
        every[0].status = 500
        assert sorted(await statuses(w, 2)) == [200, 500]
        assert metric(w, "proxy_breaker_state", A, state="open") == 1
        assert not is_up(w, A)
        every[0].status = 200
        assert (await client.read_response()).status == 200


async def test_back_by_a_reload() -> None:
    """A literal address that DNS has taken away meanwhile is that same upstream."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net, dns=EACH_SECOND, timeouts=only(drain_ms=5000)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        net.name(HOST, B_IP)
        await until_ms(1500)
        await w.reload(named_settings([A, APP], dns=EACH_SECOND, timeouts=only(drain_ms=5000)))
        assert sorted(each.name for each in w.proxy.pools["default"].members) == [A, B]
        await until_ms(10_000)
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"
        assert shown(w) == [A, B]


async def test_the_last_address_but_one_leaves_a_sole_upstream() -> None:
    """What is left alone is not taken out by failures, and what was out is in use."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net, dns=EACH_SECOND) as w:
        every = serve(w)
        every[0].fault = "reset"
        assert await statuses(w, 2) == [502, 200]
        assert not is_up(w, A)
        net.name(HOST, A_IP)
        await until_ms(1001)
        assert is_up(w, A)
        assert await statuses(w, 2) == [502, 502]
        net.name(HOST, A_IP, C_IP)
        await until_ms(2001)
        assert sorted(await statuses(w, 2)) == [200, 502]
        assert not is_up(w, A)
