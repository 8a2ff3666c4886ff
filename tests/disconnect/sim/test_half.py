"""A client that half-closes with its request waits for the answer, and gets it in each phase."""

from __future__ import annotations

import pytest
import trio

from support.conversation import Speaker
from support.scenario import GET, OK, ending, how_it_ends, only, post, send_quietly
from support.world import world
from trio_proxy.http.errors import Reason
from trio_proxy.settings import Limits

CHUNKED_POST = (
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
)


async def send_and_half_close(client: Speaker, request: bytes) -> None:
    await client.send(request)
    client.send_eof()


async def test_while_dialling() -> None:
    """A slow dial."""
    async with world(timeouts=only()) as w:
        w.net.blackhole(w.upstreams[0].name)
        client = await w.client()
        await send_and_half_close(client, GET)
        await trio.sleep(5)
        w.net.heal(w.upstreams[0].name)
        await (await w.upstreams[0].accept()).send(OK)
        assert (await client.read_response()).body == b"ok"
        assert await how_it_ends(client) == (b"", "eof")
    assert ending(w.exchanges[0])[:2] == (200, None)


async def test_in_the_queue() -> None:
    """A long queue."""
    async with world(timeouts=only(), limits=Limits(max_conns_per_upstream=1, queue_ms=0)) as w:
        first, client = await w.client(), await w.client()
        await first.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await send_and_half_close(client, GET)
        await trio.sleep(5)
        await upstream.send(OK)
        await upstream.read_request()
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"


@pytest.mark.parametrize("request_bytes", [GET, post(3) + b"abc", CHUNKED_POST])
async def test_while_waiting_for_the_head_and_the_body(request_bytes: bytes) -> None:
    """A slow upstream; the request may have a body."""
    async with world(timeouts=only()) as w:
        client = await w.client()
        await send_and_half_close(client, request_bytes)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await trio.sleep(5)
        await upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert (await client.read_head()).status == 200
        await trio.sleep(5)
        await upstream.send(b"1\r\na\r\n")
        assert await client.read_chunk() == b"a"
        await trio.sleep(5)
        await upstream.send(b"0\r\n\r\n")
        assert await how_it_ends(client) == (b"0\r\n\r\n", "eof")
    assert ending(w.exchanges[0])[:2] == (200, None)


async def test_with_a_body_that_is_not_taken_yet() -> None:
    """The rest of the body and the FIN lie in the transport until the upstream reads on."""
    async with world(timeouts=only()) as w:
        client = await w.client()
        w.helpers.start_soon(send_and_half_close, client, post(200_000) + bytes(200_000))
        upstream = await w.upstreams[0].accept()
        await trio.sleep(5)
        assert len((await upstream.read_request()).body) == 200_000
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"
    assert ending(w.exchanges[0])[:2] == (200, None)


async def test_while_the_client_reads_slowly() -> None:
    """All of a large answer."""
    async with world(timeouts=only()) as w:
        client = await w.client()
        await send_and_half_close(client, GET)
        upstream = await w.upstreams[0].accept()
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n")
        w.helpers.start_soon(send_quietly, upstream, bytes(400_000))
        await client.read_head()
        for _ in range(4):
            await trio.sleep(5)
            await client.receive_exactly(100_000)
        assert await how_it_ends(client) == (b"", "eof")


async def test_behind_several_requests() -> None:
    """Pipelined requests in front of the FIN are all answered, in order."""
    async with world(timeouts=only()) as w:
        w.upstreams[0].serve(delay=5)
        client = await w.client()
        await send_and_half_close(client, GET * 3)
        for _ in range(3):
            assert (await client.read_response()).body == b"ok"
        assert await how_it_ends(client) == (b"", "eof")
    assert len(w.exchanges) == 3


async def test_with_half_a_body() -> None:
    """What can never become a request is no half-close: the client has gone."""
    async with world(timeouts=only()) as w:
        client = await w.client()
        await send_and_half_close(client, post(10) + b"123")
        await trio.sleep(0.1)
        assert ending(w.exchanges[0])[:2] == (499, Reason.CLIENT_GONE)
        assert await how_it_ends(client) == (b"", "reset")


async def test_with_nothing() -> None:
    """An ordinary end."""
    async with world(timeouts=only()) as w:
        client = await w.client()
        client.send_eof()
        assert await how_it_ends(client) == (b"", "eof")
    assert w.exchanges == []
