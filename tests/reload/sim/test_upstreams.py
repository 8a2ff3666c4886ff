"""Reloads that change the upstreams and their connections, while they are in use."""

from __future__ import annotations

import trio
import trio.testing

from support.scenario import (
    GET,
    OK,
    SWITCH,
    UPGRADE,
    connections,
    how_it_ends,
    now_ms,
    only,
    post,
    until_ms,
)
from support.world import settings_for, world
from trio_proxy.http.errors import Reason
from trio_proxy.settings import Limits


async def test_a_removed_upstream_without_exchanges() -> None:
    """Its idle connections are closed at once, its metrics are forgotten."""
    async with world(upstreams=2, timeouts=only()) as w:
        for upstream in w.upstreams:
            upstream.serve()
        client = await w.client()
        await client.ask(GET)
        await client.ask(GET)
        assert (connections(w, 0), connections(w, 1)) == ((0, 1), (0, 1))
        await w.reload(settings_for(["10.1.0.1:9000"], timeouts=only()))
        assert w.upstreams[1].peers[0].stream.is_readable()
        await trio.sleep(0.001)
        assert list(w.proxy.stats.upstreams) == [("default", "10.1.0.1:9000")]
        for _ in range(3):
            await client.ask(GET)
        assert connections(w, 0) == (0, 1)
        assert len(w.upstreams[1].requests) == 1


async def test_a_removed_upstream_lets_its_exchanges_end() -> None:
    """An answer within drain_ms is delivered; then the upstream is forgotten."""
    async with world(upstreams=2, timeouts=only(drain_ms=1000)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await w.reload(settings_for(["10.1.0.2:9000"], timeouts=only(drain_ms=1000)))
        await trio.sleep(0.9)
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"
        assert await how_it_ends(upstream) != (b"", "reset")
        await trio.sleep(0.001)
        assert list(w.proxy.stats.upstreams) == [("default", "10.1.0.2:9000")]
        w.upstreams[1].serve()
        assert (await client.ask(GET)).body == b"ok"


async def test_a_removed_upstream_is_cut_off_after_drain_ms() -> None:
    """A request gets 503, a stream is cut, a tunnel ends; the metrics stay forgotten."""
    async with world(upstreams=2, timeouts=only(drain_ms=1000)) as w:
        slow, stream, tunnel = await w.client(), await w.client(), await w.client()
        for client, request, answer in (
            (slow, post(5), b""),
            (stream, GET, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1"),
            (tunnel, UPGRADE, SWITCH),
        ):
            await client.send(request)
            upstream = await w.upstreams[0].accept()
            await upstream.read_head()
            await upstream.send(answer)
            await w.reload(settings_for(["10.1.0.1:9000"], timeouts=only(drain_ms=1000)))
        await until_ms(500)
        await w.reload(settings_for(["10.1.0.2:9000"], timeouts=only(drain_ms=1000)))
        assert (await slow.read_response()).status == 503
        assert now_ms() == 1500
        assert (await how_it_ends(stream))[0].endswith(b"\r\n\r\n1")
        assert (await how_it_ends(tunnel))[0].startswith(b"HTTP/1.1 101 ")
        assert now_ms() == 1500
        assert all(peer.stream.is_readable() for peer in w.upstreams[0].peers)
        await trio.sleep(0.5)
        slow.close()
        await trio.sleep(2)
        assert list(w.proxy.stats.upstreams) == [("default", "10.1.0.2:9000")]
    assert {exchange.error and exchange.error.reason for exchange in w.exchanges} == {
        Reason.SHUTTING_DOWN
    }


async def test_an_upstream_that_returns_before_it_was_let_go() -> None:
    """It is the same upstream again: the exchange under way ends in its own time."""
    one, two = "10.1.0.1:9000", "10.1.0.2:9000"
    async with world(upstreams=2, timeouts=only(drain_ms=1000)) as w:
        client = await w.client()
        await client.send(GET)
        old = await w.upstreams[0].accept()
        await w.reload(settings_for([two], timeouts=only(drain_ms=1000)))
        await trio.sleep(0.5)
        await w.reload(settings_for([one], timeouts=only(drain_ms=1000)))
        other = await w.client()
        await other.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await trio.sleep(1)
        await old.send(OK)
        assert (await client.read_response()).status == 200
        await upstream.send(OK)
        assert (await other.read_response()).body == b"ok"
        assert list(w.proxy.stats.upstreams) == [("default", one)]
        assert w.proxy.stats.upstreams["default", one].requests == 2


async def test_an_added_upstream_gets_traffic() -> None:
    """In its turn, from the next request on."""
    async with world(upstreams=1, timeouts=only()) as w:
        added = await w.add_upstream("10.1.0.2:9000")
        w.upstreams[0].serve()
        added.serve()
        client = await w.client()
        await client.ask(GET)
        await w.reload(settings_for(2, timeouts=only()))
        for _ in range(6):
            await client.ask(GET)
        assert len(added.requests) == 3


async def test_more_connections_let_waiters_go_at_once() -> None:
    """All that fit, in their order."""
    one = Limits(max_conns_per_upstream=1, queue_ms=0)
    three = Limits(max_conns_per_upstream=3, queue_ms=0)
    async with world(timeouts=only(), limits=one) as w:
        clients = [await w.client() for _ in range(5)]
        for number, client in enumerate(clients):
            await client.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
            await trio.sleep(0.1)
        assert w.proxy.pools["default"].queue_length == 4
        await w.reload(settings_for(timeouts=only(), limits=three))
        assert w.proxy.pools["default"].queue_length == 2
        heads = [await (await w.upstreams[0].accept()).read_head() for _ in range(3)]
        assert sorted(head.start.split()[1] for head in heads) == [b"/0", b"/1", b"/2"]


async def test_an_added_upstream_lets_waiters_go_at_once() -> None:
    """The queue is the pool's, not the upstream's."""
    one = Limits(max_conns_per_upstream=1, queue_ms=0)
    async with world(timeouts=only(), limits=one) as w:
        added = await w.add_upstream("10.1.0.2:9000")
        first, second = await w.client(), await w.client()
        await first.send(GET)
        await (await w.upstreams[0].accept()).read_request()
        await second.send(GET)
        await trio.sleep(0.1)
        await w.reload(settings_for(2, timeouts=only(), limits=one))
        await (await added.accept()).send(OK)
        assert (await second.read_response()).body == b"ok"


async def test_fewer_connections_are_reached_as_exchanges_end() -> None:
    """Nothing is cut for it, and nothing above the new cap is pooled."""
    async with world(timeouts=only(), limits=Limits(max_conns_per_upstream=4)) as w:
        w.upstreams[0].serve(delay=1)
        clients = [await w.client() for _ in range(4)]
        for client in clients:
            await client.send(GET)
        await trio.sleep(0.5)
        await w.reload(settings_for(timeouts=only(), limits=Limits(max_conns_per_upstream=2)))
        for client in clients:
            assert (await client.read_response()).body == b"ok"
        await trio.testing.wait_all_tasks_blocked()
        assert connections(w) == (0, 2)
        assert sum(peer.stream.closed for peer in w.upstreams[0].peers) == 2


async def test_fewer_connections_close_idle_ones_at_once() -> None:
    """What is idle above the new cap need not wait for anything."""
    async with world(timeouts=only(), limits=Limits(max_conns_per_upstream=4)) as w:
        w.upstreams[0].serve(delay=1)
        clients = [await w.client() for _ in range(4)]
        for client in clients:
            await client.send(GET)
        for client in clients:
            await client.read_response()
        assert connections(w) == (0, 4)
        await w.reload(settings_for(timeouts=only(), limits=Limits(max_conns_per_upstream=2)))
        assert connections(w) == (0, 2)


async def test_a_shorter_upstream_idle_deadline() -> None:
    """It holds for connections that are given back from now on, older ones or not."""
    async with world(timeouts=only(upstream_idle_ms=60_000)) as w:
        w.upstreams[0].serve(delay=0.5)
        one, other = await w.client(), await w.client()
        await one.send(GET)
        await other.ask(GET)
        await one.read_response()
        assert connections(w) == (0, 2)
        await w.reload(settings_for(timeouts=only(upstream_idle_ms=1000)))
        await one.ask(GET)
        assert now_ms() == 1000
        await until_ms(2000.001)
        assert connections(w)[1] <= 1
        await until_ms(60_501)
        assert connections(w) == (0, 0)


async def test_a_tunnel_survives_reloads() -> None:
    """As long as its upstream stays."""
    async with world(upstreams=2, timeouts=only(drain_ms=500)) as w:
        client = await w.client()
        await client.send(UPGRADE)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(SWITCH)
        await client.read_head()
        for number in range(10):
            names = ["10.1.0.1:9000"] if number % 2 else ["10.1.0.2:9000", "10.1.0.1:9000"]
            await w.reload(settings_for(names, timeouts=only(drain_ms=500)))
            await trio.sleep(1)
            await client.send(b"to")
            assert await upstream.receive_exactly(2) == b"to"
        client.close()
        upstream.close()
