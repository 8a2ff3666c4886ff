"""The client goes away while it is answered, or in a tunnel: all of it ends within 100 ms."""

from __future__ import annotations

import pytest
import trio

from support.conversation import Speaker
from support.departures import NOTICED_SECONDS, Leave, any_way, fin, left, reset
from support.scenario import (
    GET,
    connections,
    ending,
    only,
    send_for_ever,
    send_quietly,
    tunnel,
    upstream_errors,
)
from support.world import World, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase


@any_way
async def test_while_the_response_stalls(leave: Leave) -> None:
    """Part of the body has been relayed and read; no more comes."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123")
        await client.read_head()
        await client.receive_exactly(3)

    await left(begin, leave, Phase.STREAM)


@any_way
async def test_while_events_trickle(leave: Leave) -> None:
    """A chunked stream without end."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        w.helpers.start_soon(send_for_ever, upstream, b"2\r\nx\n\r\n", 30)
        await client.receive_until(b"x\n")

    await left(begin, leave, Phase.STREAM)


@any_way
async def test_while_it_does_not_read_the_response(leave: Leave) -> None:
    """Both sides' buffers are full and nothing moves."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n")
        w.helpers.start_soon(send_quietly, upstream, bytes(9_000_000))

    await left(begin, leave, Phase.STREAM)


async def test_in_a_tunnel_by_reset() -> None:
    """The other end sees the connection end, and nobody is blamed but the client."""
    async with world(timeouts=only()) as w:
        client, upstream = await tunnel(w)
        await trio.sleep(1)
        client.abort()
        await trio.sleep(NOTICED_SECONDS)
        assert upstream.stream.is_readable()
        (gone,) = w.exchanges
        assert ending(gone) == (101, Reason.CLIENT_GONE, Source.CLIENT, Phase.STREAM)
        assert connections(w) == (0, 0)
        assert upstream_errors(w) == {}


async def test_in_a_tunnel_by_fin() -> None:
    """The FIN is passed on behind the last bytes; the upstream's own end then ends the tunnel."""
    async with world(timeouts=only()) as w:
        client, upstream = await tunnel(w)
        await client.send(b"bye")
        client.send_eof()
        assert await upstream.receive_all() == b"bye"
        await trio.sleep(1)
        await upstream.send(b"and bye")
        upstream.send_eof()
        assert await client.receive_all() == b"and bye"
        await trio.sleep(NOTICED_SECONDS)
        assert ending(w.exchanges[0]) == (101, None, None, Phase.STREAM)
        assert connections(w) == (0, 0)


@pytest.mark.parametrize("leave", [fin, reset])
async def test_in_a_tunnel_that_the_upstream_does_not_read(leave: Leave) -> None:
    """A reset is seen behind bytes that cannot be passed on; a FIN waits behind them."""
    async with world(timeouts=only(tunnel_idle_ms=3000)) as w:
        client, _ = await tunnel(w)
        w.helpers.start_soon(send_quietly, client, bytes(1_000_000))
        await trio.sleep(1)
        leave(client)
        await trio.sleep(NOTICED_SECONDS if leave is reset else 3)
        assert len(w.exchanges) == 1
        assert connections(w) == (0, 0)
