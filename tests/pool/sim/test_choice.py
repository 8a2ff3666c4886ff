"""Which upstream gets a request, and when a connection is used again."""

from __future__ import annotations

import trio

from support.world import GET, world
from trio_proxy.settings import Timeouts


async def test_round_robin_in_the_order_of_the_list() -> None:
    async with world(upstreams=3) as w:
        for n, upstream in enumerate(w.upstreams):
            upstream.serve(b"%d" % n)
        client = await w.client()
        answers = [(await client.ask(GET)).body for _ in range(7)]
        assert answers == [b"0", b"1", b"2", b"0", b"1", b"2", b"0"]
        assert [len(upstream.peers) for upstream in w.upstreams] == [1, 1, 1]
    names = [exchange.upstream for exchange in w.exchanges]
    assert names[:3] == ["10.1.0.1:9000", "10.1.0.2:9000", "10.1.0.3:9000"]


async def test_the_order_is_that_of_all_clients_together() -> None:
    async with world(upstreams=2) as w:
        for n, upstream in enumerate(w.upstreams):
            upstream.serve(b"%d" % n)
        one, other = await w.client(), await w.client()
        assert (await one.ask(GET)).body == b"0"
        assert (await other.ask(GET)).body == b"1"
        assert (await other.ask(GET)).body == b"0"
        assert (await one.ask(GET)).body == b"1"


async def test_an_upstream_connection_serves_one_client_after_the_other() -> None:
    """Pooled connections belong to nobody."""
    async with world() as w:
        w.upstreams[0].serve()
        for _ in range(5):
            async with await w.client() as client:
                assert (await client.ask(GET)).status == 200
        assert len(w.upstreams[0].peers) == 1


async def test_a_refused_connection_is_a_502() -> None:
    """The upstream is named in the log, and the next one has its turn all the same."""
    async with world(upstreams=2) as w:
        w.upstreams[0].close()
        w.upstreams[1].serve()
        client = await w.client()
        response = await client.ask(GET)
        assert response.status == 502
        assert response[b"proxy-status"] == b"trio-proxy; error=connection_refused"
        assert (await client.ask(GET)).status == 200
    error = w.exchanges[0].error
    assert error is not None
    assert str(error.phase) == "connect"
    assert w.exchanges[0].upstream == "10.1.0.1:9000"


async def test_a_hanging_dial_is_a_504() -> None:
    async with world(timeouts=Timeouts(connect_ms=1500)) as w:
        w.net.blackhole(w.upstreams[0].name)
        client = await w.client()
        start = trio.current_time()
        response = await client.ask(GET)
        assert response.status == 504
        assert response[b"proxy-status"] == b"trio-proxy; error=connection_timeout"
        assert trio.current_time() - start == 1.5


async def test_a_pooled_connection_that_the_upstream_closed_is_not_used() -> None:
    """It was closed while it lay idle, so nobody even notices."""
    async with world() as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.respond()
        await client.read_response()
        upstream.close()
        await trio.sleep(1)
        assert w.proxy.pools["default"].members[0].limiter.borrowed_tokens == 0
        await client.send(GET)
        fresh = await w.upstreams[0].accept()
        await fresh.read_request()
        await fresh.respond(b"fresh")
        assert (await client.read_response()).body == b"fresh"


async def test_a_stale_connection_costs_one_free_retry() -> None:
    """The upstream closes it in the very moment in which the next request is sent."""
    async with world() as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.respond()
        await client.read_response()
        await client.send(GET)
        await upstream.read_request()
        upstream.abort()
        fresh = await w.upstreams[0].accept()
        await fresh.read_request()
        await fresh.respond(b"fresh")
        assert (await client.read_response()).body == b"fresh"
    assert [one.outcome for one in w.exchanges[1].tries] == ["stale", "200"]


async def test_a_post_on_a_stale_connection_is_not_sent_twice() -> None:
    """It may have been acted upon."""
    async with world() as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.respond()
        await client.read_response()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        await upstream.read_request()
        upstream.abort()
        assert (await client.read_response()).status == 502
        assert w.upstreams[0].listener.waiting == 0
