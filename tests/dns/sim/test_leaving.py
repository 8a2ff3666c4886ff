"""Addresses that a name has no longer: seen off, and forgotten."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from support.conversation import Speaker
from support.naming import A_IP, B_IP, HOST, NamedNet, named_world, shown
from support.pools import A, B, ask, metric, serve, told
from support.scenario import (
    GET,
    OK,
    SWITCH,
    UPGRADE,
    connections,
    ending,
    how_it_ends,
    now_ms,
    only,
    until_ms,
)
from support.world import World
from trio_proxy.http.errors import Reason
from trio_proxy.settings import Balance, Health, Limits


def open_to(w: World, upstream: str) -> int:
    """How many connections the proxy has open to an upstream."""
    return sum(stream.remote == upstream for stream in w.proxy_streams())


async def test_gets_no_more_requests() -> None:
    """From the refresh on all go to the other."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net) as w:
        serve(w)
        assert await ask(w, 2) == b"ab"
        net.name(HOST, B_IP)
        await until_ms(29_999)
        assert sorted(await ask(w, 2)) == list(b"ab")
        await until_ms(30_001)
        assert await ask(w, 4) == b"bbbb"


async def test_idle_connections_are_closed_and_metrics_forgotten() -> None:
    """At once, if no request is under way; the log says who has gone."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net) as w:
        serve(w)
        await ask(w, 2)
        assert connections(w, 0) == (0, 1)
        net.name(HOST, B_IP)
        await until_ms(29_999)
        assert open_to(w, A) == 1
        await until_ms(30_000.001)
        assert open_to(w, A) == 0
        assert shown(w) == [B]
        assert metric(w, "proxy_upstream_up", A) is None
        assert told(w) == [f"upstream {A} removed, 0 exchanges left"]


async def test_a_request_under_way_is_answered() -> None:
    """It has drain_ms from the refresh on; its connection is not used again."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net, timeouts=only(drain_ms=20_000)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        net.name(HOST, B_IP)
        await until_ms(49_999)
        assert shown(w) == [A, B]
        assert metric(w, "proxy_upstream_connections", A, state="active") == 1
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"
        assert now_ms() == 49_999
        assert await how_it_ends(upstream) == (b"", "eof")
        await until_ms(49_999.001)
        assert shown(w) == [B]
        assert told(w) == [f"upstream {A} removed, 1 exchanges left"]


async def test_after_drain_ms_a_request_is_cut_off() -> None:
    """503 for one without a head, a cut for a stream, an end for a tunnel, to the millisecond."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net, timeouts=only(drain_ms=5000)) as w:
        w.proxy.pools["default"].drain(B)
        slow, stream, tunnel = await w.client(), await w.client(), await w.client()
        for client, request, answer in (
            (slow, GET, b""),
            (stream, GET, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1"),
            (tunnel, UPGRADE, SWITCH),
        ):
            await client.send(request)
            upstream = await w.upstreams[0].accept()
            await upstream.read_head()
            await upstream.send(answer)
        net.name(HOST, B_IP)
        assert (await slow.read_response()).status == 503
        assert now_ms() == 35_000
        assert (await how_it_ends(stream))[0].endswith(b"\r\n\r\n1")
        assert (await how_it_ends(tunnel))[0].startswith(b"HTTP/1.1 101 ")
        assert now_ms() == 35_000
        for peer in w.upstreams[0].peers:
            await how_it_ends(peer)
        await trio.testing.wait_all_tasks_blocked()
        assert now_ms() == 35_000
        assert shown(w) == [B]
    assert {exchange.error and exchange.error.reason for exchange in w.exchanges} == {
        Reason.SHUTTING_DOWN
    }


async def test_a_request_that_waits_is_not_lost() -> None:
    """Those in the queue go to who is there after the refresh."""
    net = NamedNet(A_IP)
    limits = Limits(max_conns_per_upstream=1, queue_ms=0)
    async with named_world(net, limits=limits, timeouts=only(drain_ms=10_000)) as w:
        every = serve(w)
        every[0].delay = 35
        first, second = await w.client(), await w.client()
        await first.send(GET)
        await trio.sleep(0.001)
        await second.send(GET)
        net.name(HOST, B_IP)
        assert (await second.read_response()).body == b"b"
        assert now_ms() == 30_000
        assert (await first.read_response()).body == b"a"
        assert now_ms() == 35_000


async def test_a_stuck_client_is_moved_and_told_so() -> None:
    """The cookie of an address that has gone is replaced."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net, balance=Balance(sticky_cookie="srv")) as w:
        serve(w)
        client = await w.client()
        cookie = (await client.ask(GET))[b"set-cookie"].partition(b";")[0]
        stuck = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: %s\r\n\r\n" % cookie
        net.name(HOST, B_IP)
        await until_ms(30_001)
        answer = await client.ask(stuck)
        assert answer.body == b"b"
        assert cookie not in answer[b"set-cookie"]


async def test_a_stuck_client_that_waits_for_it_waits_no_longer() -> None:
    """Its upstream is full, and then gone: it is served by another in that moment."""
    net = NamedNet(A_IP, B_IP)
    balance, limits = Balance(sticky_cookie="srv"), Limits(max_conns_per_upstream=1, queue_ms=0)
    async with named_world(net, balance=balance, limits=limits) as w:
        every = serve(w)
        client = await w.client()
        cookie = (await client.ask(GET))[b"set-cookie"].partition(b";")[0]
        stuck = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: %s\r\n\r\n" % cookie
        every[0].delay = 30.5
        await client.send(stuck)
        await trio.sleep(0.001)
        other = await w.client()
        await other.send(stuck)
        net.name(HOST, B_IP)
        assert (await other.read_response()).body == b"b"
        assert now_ms() == 30_000
        assert (await client.read_response()).body == b"a"


async def test_a_stop_while_it_is_seen_off() -> None:
    """Its request has the drain of the proxy, and `world` sees that nothing is left."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net, timeouts=only(drain_ms=20_000)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        net.name(HOST, B_IP)
        await until_ms(31_000)
        w.helpers.start_soon(answer_at, upstream, 49_000)
    assert now_ms() == 49_000
    assert ending(w.exchanges[0])[:2] == (200, None)


async def answer_at(upstream: Speaker, milliseconds: float) -> None:
    await until_ms(milliseconds)
    await upstream.send(OK)


async def test_checks_of_it_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of one that is still being drained."""
    monkeypatch.setattr("random.random", lambda: 0.5)
    net = NamedNet(A_IP, B_IP)
    checks = Health(path="/up", interval_ms=1000)
    async with named_world(net, health=checks, timeouts=only(drain_ms=0)) as w:
        every = serve(w)
        every[0].delay = 60
        client = await w.client()
        await client.send(GET)
        await trio.sleep(0.001)
        every[0].delay = 0
        net.name(HOST, B_IP)
        await until_ms(30_001)
        before = len(every[0].requests)
        await until_ms(50_000)
        assert len(every[0].requests) == before == 31
        assert len(every[1].requests) == 50
        assert (await client.read_response()).body == b"a"
        assert now_ms() == 60_000
