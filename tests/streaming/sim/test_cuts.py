"""A response that is cut off: the client can see that it is not whole."""

from __future__ import annotations

import pytest

from support.conversation import Speaker
from support.scenario import how_it_ends, started
from support.world import GET, World, world
from trio_proxy.http.errors import Reason, Source

FRAMINGS = {
    "length": b"Content-Length: 100\r\n\r\npartial",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n7\r\npartial\r\n",
    "inside a chunk": b"Transfer-Encoding: chunked\r\n\r\n64\r\npartial",
    "close": b"\r\npartial",
}


async def a_partial_response(w: World, framing: str, request: bytes) -> tuple[Speaker, Speaker]:
    client, upstream = await started(w, request)
    await upstream.send(b"HTTP/1.1 200 OK\r\n" + FRAMINGS[framing])
    assert (await client.read_head()).status == 200
    await client.receive_until(b"partial")
    return client, upstream


@pytest.mark.parametrize("framing", ["length", "chunked", "inside a chunk"])
async def test_an_upstream_that_ends_too_early(framing: str) -> None:
    """The connection ends short of the length, or without the last chunk."""
    async with world() as w:
        client, upstream = await a_partial_response(w, framing, GET)
        upstream.send_eof()
        assert await how_it_ends(client) == (b"" if framing == "length" else b"\r\n", "eof")
        assert await upstream.receive_all() == b""
    check_truncated(w)


@pytest.mark.parametrize("framing", list(FRAMINGS))
async def test_an_upstream_that_resets(framing: str) -> None:
    """The same, also where the end of the upstream's connection would have ended the body."""
    async with world() as w:
        client, upstream = await a_partial_response(w, framing, GET)
        upstream.abort()
        assert await how_it_ends(client) == (b"" if framing == "length" else b"\r\n", "eof")
    check_truncated(w)


@pytest.mark.parametrize("framing", list(FRAMINGS))
async def test_an_http10_client_sees_a_reset_where_the_end_would_end_the_body(framing: str) -> None:
    async with world() as w:
        client, upstream = await a_partial_response(w, framing, b"GET / HTTP/1.0\r\n\r\n")
        upstream.abort()
        assert await how_it_ends(client) == (b"", "eof" if framing == "length" else "reset")
    check_truncated(w)


def check_truncated(w: World) -> None:
    (exchange,) = w.exchanges
    assert exchange.status == 200
    assert exchange.error is not None
    assert exchange.error.reason is Reason.RESPONSE_TRUNCATED
    assert exchange.error.source is Source.UPSTREAM
    assert exchange.tries[0].failure is exchange.error
    assert exchange.ended_in == "stream"


@pytest.mark.parametrize(
    "rubbish",
    [
        b"x\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"5\nhello\r\n",
        b"-5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5\r\nhelloo\r\n",
        b"5\r\nhello\n",
        b"5;a=\rb\r\nhello\r\n",
        b"5;" + b"a" * 5000 + b"\r\nhello\r\n",
        b"ffffffffffffffffffff\r\nhello\r\n",
        b"0\r\nbad trailer\r\n\r\n",
        b"0\r\n folded: 1\r\n\r\n",
    ],
)
async def test_broken_chunks_cut_the_response(rubbish: bytes) -> None:
    """Whatever came before is delivered, the rest of the connection is not believed."""
    async with world() as w:
        client, upstream = await a_partial_response(w, "chunked", GET)
        await client.receive_until(b"\r\n")
        await upstream.send(rubbish)
        rest, _ = await how_it_ends(client)
        assert not rest.endswith(b"0\r\n\r\n")
        assert w.proxy_streams() == []
    assert w.exchanges[0].error is not None
    assert w.exchanges[0].error.reason is Reason.RESPONSE_MALFORMED


async def test_a_truncated_response_costs_only_its_own_client() -> None:
    async with world() as w:
        client, upstream = await a_partial_response(w, "length", GET)
        other = await w.client()
        await other.send(GET)
        healthy = await w.upstreams[0].accept()
        await healthy.read_request()
        upstream.abort()
        await how_it_ends(client)
        await healthy.respond(b"fine")
        assert (await other.read_response()).body == b"fine"


async def test_a_truncated_upload_is_never_ended_properly() -> None:
    """The client resets in mid-body: the upstream sees no terminating chunk."""
    async with world() as w:
        client = await w.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await client.send(b"5\r\nhello\r\n")
        upstream = await w.upstreams[0].accept()
        await upstream.read_head()
        assert await upstream.read_chunk() == b"hello"
        client.abort()
        assert await upstream.receive_all() == b""
    assert w.exchanges[0].error is not None
    assert w.exchanges[0].error.reason is Reason.CLIENT_GONE
