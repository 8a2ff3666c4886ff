"""Stopping: `drain` ends what is idle at once, lets requests end, and cuts the rest at drain_ms."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from support.conversation import Speaker
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
    post,
    refusal,
    send_for_ever,
    send_quietly,
)
from support.world import World, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.settings import Limits


async def start_drain(w: World) -> trio.Event:
    """Drain in the background; the event tells when it is over."""
    done = trio.Event()

    async def drain() -> None:
        await w.proxy.drain()
        done.set()

    w.helpers.start_soon(drain)
    await trio.testing.wait_all_tasks_blocked()
    return done


async def test_idle_connections() -> None:
    """Closed at once, whether they have served or never spoke, and no new one is taken."""
    async with world(timeouts=only(drain_ms=5000)) as w:
        w.upstreams[0].serve()
        used, silent = await w.client(), await w.client()
        await used.ask(GET)
        await trio.sleep(1)
        await w.proxy.drain()
        assert now_ms() == 1000
        assert await how_it_ends(used) == (b"", "eof")
        assert await how_it_ends(silent) == (b"", "eof")
        with pytest.raises(ConnectionRefusedError):
            await w.client()
    assert len(w.exchanges) == 1


async def test_nothing_at_all() -> None:
    """A proxy without clients stops at once; draining twice is draining once."""
    async with world(timeouts=only(drain_ms=5000)) as w:
        await w.proxy.drain()
        await w.proxy.drain()
    assert now_ms() == 0


async def test_a_request_under_way() -> None:
    """It is answered with ``Connection: close``, and the drain ends with it."""
    async with world(timeouts=only(drain_ms=5000)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        done = await start_drain(w)
        await trio.sleep(3)
        assert not done.is_set()
        await upstream.send(OK)
        response = await client.read_response()
        assert (response.body, response[b"connection"]) == (b"ok", b"close")
        assert await how_it_ends(client) == (b"", "eof")
        await done.wait()
        assert now_ms() == 3000
    assert ending(w.exchanges[0]) == (200, None, None, Phase.STREAM)


async def test_a_response_that_has_begun() -> None:
    """It could not be told to close any more, so it ends and is then closed."""
    async with world(timeouts=only(drain_ms=5000)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n12")
        await client.read_head()
        done = await start_drain(w)
        await trio.sleep(3)
        await upstream.send(b"34")
        assert await how_it_ends(client) == (b"1234", "eof")
        await done.wait()
        assert now_ms() == 3000


async def test_a_failure_while_draining() -> None:
    """The proxy's own answers say close as well."""
    async with world(timeouts=only(drain_ms=5000, read_ms=1000)) as w:
        client = await w.client()
        await client.send(GET)
        await w.upstreams[0].accept()
        await start_drain(w)
        response = await client.read_response()
        assert (response.status, response[b"connection"]) == (504, b"close")


async def test_a_head_under_way() -> None:
    """A request that has begun to come is one that is under way."""
    async with world(timeouts=only(drain_ms=5000)) as w:
        w.upstreams[0].serve()
        client = await w.client()
        await client.send(GET[:7])
        await trio.sleep(1)
        done = await start_drain(w)
        await trio.sleep(1)
        await client.send(GET[7:])
        assert (await client.read_response()).body == b"ok"
        await done.wait()
        assert now_ms() == 2000


async def test_a_queued_request() -> None:
    """It gets its turn."""
    async with world(timeouts=only(), limits=Limits(max_conns_per_upstream=1)) as w:
        w.upstreams[0].serve(delay=0.4)
        first, second = await w.client(), await w.client()
        await first.send(GET)
        await trio.sleep(0.1)
        await second.send(GET)
        await start_drain(w)
        assert (await first.read_response())[b"connection"] == b"close"
        assert (await second.read_response())[b"connection"] == b"close"
        assert now_ms() == 800


async def test_a_queued_request_that_gets_no_turn() -> None:
    """503 at drain_ms."""
    limits = Limits(max_conns_per_upstream=1, queue_ms=0)
    async with world(timeouts=only(drain_ms=600), limits=limits) as w:
        first, second = await w.client(), await w.client()
        await first.send(UPGRADE)
        await (await w.upstreams[0].accept()).send(SWITCH)
        await first.read_head()
        await second.send(GET)
        done = await start_drain(w)
        assert refusal(await second.read_response()) == (
            503,
            b"trio-proxy; error=proxy_internal_response",
            b"503 Service Unavailable: proxy is shutting down (phase: pick)\n",
        )
        assert now_ms() == 600
        assert await how_it_ends(first) == (b"", "eof")
        second.close()
        await done.wait()
        assert now_ms() == 600


async def test_an_upstream_that_does_not_answer() -> None:
    """503 at drain_ms, and the upstream is not to blame."""
    async with world(timeouts=only(drain_ms=600)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        done = await start_drain(w)
        response = await client.read_response()
        assert (response.status, response[b"connection"]) == (503, b"close")
        assert now_ms() == 600
        assert await how_it_ends(upstream) == (b"", "eof")
        client.close()
        await done.wait()
        assert now_ms() == 600
        assert connections(w) == (0, 0)
    cut = w.exchanges[0]
    assert ending(cut) == (503, Reason.SHUTTING_DOWN, Source.PROXY, Phase.AWAIT_HEAD)
    assert cut.tries[0].failure is None


async def test_an_endless_stream() -> None:
    """Cut at drain_ms, without a last chunk."""
    async with world(timeouts=only(drain_ms=600)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        w.helpers.start_soon(send_for_ever, upstream, b"1\r\nx\r\n", 0.25)
        await client.read_head()
        await w.proxy.drain()
        assert now_ms() == 600
        assert await how_it_ends(client) == (b"1\r\nx\r\n" * 3, "eof")
    assert ending(w.exchanges[0]) == (200, Reason.SHUTTING_DOWN, Source.PROXY, Phase.STREAM)


async def test_a_tunnel() -> None:
    """It goes on until drain_ms and is cut then."""
    async with world(timeouts=only(drain_ms=600)) as w:
        client = await w.client()
        await client.send(UPGRADE)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(SWITCH)
        await client.read_head()
        done = await start_drain(w)
        await trio.sleep(0.5)
        await client.send(b"still there")
        assert await upstream.receive_exactly(11) == b"still there"
        await done.wait()
        assert now_ms() == 600
        assert await how_it_ends(client) == (b"", "eof")
        assert await how_it_ends(upstream) == (b"", "eof")
    assert ending(w.exchanges[0]) == (101, Reason.SHUTTING_DOWN, Source.PROXY, Phase.STREAM)


async def test_clients_that_stall() -> None:
    """Half a head, half a body, an answer that is not taken: all of them are cut at drain_ms."""
    async with world(timeouts=only(drain_ms=600)) as w:
        half_head, half_body, deaf = await w.client(), await w.client(), await w.client()
        await half_head.send(GET[:-1])
        await half_body.send(post(5) + b"1234")
        await w.upstreams[0].accept()
        await deaf.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n")
        w.helpers.start_soon(send_quietly, upstream, bytes(9_000_000))
        done = await start_drain(w)
        assert (await half_head.read_response()).status == 503
        assert (await half_body.read_response()).status == 503
        assert now_ms() == 600
        half_head.close()
        half_body.close()
        await done.wait()
        assert now_ms() == 600
        assert connections(w) == (0, 0)
    assert [exchange.error and exchange.error.reason for exchange in w.exchanges] == (
        [Reason.SHUTTING_DOWN] * 3
    )


async def test_the_cut_is_bounded_too() -> None:
    """A client that was told and stays does not hold the drain for more than a second."""
    async with world(timeouts=only(drain_ms=600)) as w:
        client = await w.client()
        await client.send(GET)
        await w.upstreams[0].accept()
        await w.proxy.drain()
        assert 600 <= now_ms() <= 1600
        assert (await client.read_response()).status == 503
    assert now_ms() <= 1600


async def test_a_client_that_lingers_after_its_last_answer() -> None:
    """A connection that was answered and only waits for the client's end is no reason to wait."""
    async with world(timeouts=only(drain_ms=600)) as w:
        client = await w.client()
        await client.send(b"BROKEN\r\n\r\n")
        assert (await client.read_response()).status == 400
        await w.proxy.drain()
        assert now_ms() <= 600
        assert await how_it_ends(client) == (b"", "eof")


async def test_leaving_the_block_drains() -> None:
    """A request under way is answered while the block is being left."""
    answers: list[bytes] = []

    async def ask(client: Speaker) -> None:
        answers.append((await client.ask(GET)).body)

    async with trio.open_nursery() as nursery, world(timeouts=only(drain_ms=5000)) as w:
        w.upstreams[0].serve(delay=3)
        nursery.start_soon(ask, await w.client())
        await trio.sleep(1)
    assert answers == [b"ok"]
    assert now_ms() == 3000


async def test_leaving_the_block_by_an_error() -> None:
    """Everything stops at once, the error comes out as it was, and nothing is left."""

    async def fail() -> None:
        async with world(timeouts=only(drain_ms=5000)) as w:
            client = await w.client()
            await client.send(GET)
            await w.upstreams[0].accept()
            await trio.sleep(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert now_ms() == 1000


async def test_leaving_the_block_by_an_error_with_a_crowd_outside() -> None:
    """Nobody is let in any more when the clients inside are thrown out."""

    async def fail() -> None:
        async with world(timeouts=only(), limits=Limits(max_client_conns=1)) as w:
            clients = [await w.client() for _ in range(3)]
            for client in clients:
                await client.send(GET)
            await w.upstreams[0].accept()
            await trio.sleep(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


async def test_a_crowd_in_the_backlog() -> None:
    """Clients that wait for others to leave are turned away, and nobody complains in the log."""
    async with world(timeouts=only(), limits=Limits(max_client_conns=1)) as w:
        w.upstreams[0].serve(delay=0.5)
        first, second = await w.client(), await w.client()
        await first.send(GET)
        await second.send(GET)
        await trio.sleep(0.1)
        await start_drain(w)
        assert (await first.read_response()).body == b"ok"
        assert await how_it_ends(second) == (b"", "reset")
    assert not [line for line in w.messages() if "cannot accept" in line]
