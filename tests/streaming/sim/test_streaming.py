"""Bodies move when they arrive, both ways at once, and nobody holds more than a buffer of them."""

from __future__ import annotations

import pytest
import trio

from support.conversation import Message, Speaker
from support.scenario import started
from support.world import GET, World, world
from trio_proxy.settings import Timeouts

NO_DEADLINES = Timeouts(write_ms=0, total_ms=0, body_ms=0, read_ms=0, idle_ms=0)
CHUNKED_POST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

#: Both simulated sockets on the way (64 KiB each), a piece, and some slack.
ON_THE_WAY = 2 * 65536 + 256 * 1024 + 65536


async def a_streaming_response(w: World, head: bytes) -> tuple[Speaker, Speaker]:
    """A client and an upstream that has just sent its response head, which the client has."""
    client, upstream = await started(w)
    await upstream.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
    await client.read_head()
    return client, upstream


async def an_upload(w: World, head: bytes = CHUNKED_POST) -> tuple[Speaker, Speaker]:
    """A client that has sent a request head, which the upstream has."""
    client = await w.client()
    await client.send(head)
    upstream = await w.upstreams[0].accept()
    await upstream.read_head()
    return client, upstream


# At once


async def test_an_event_reaches_the_client_at_once() -> None:
    """Each chunk of an event stream arrives without any virtual time passing, as one chunk."""
    async with world() as w:
        head = b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
        client, upstream = await a_streaming_response(w, head)
        for n in range(5):
            event = b"data: %d\n\n" % n
            sent_at = trio.current_time()
            await upstream.send(b"%x\r\n%s\r\n" % (len(event), event))
            assert await client.receive_exactly(len(event) + 5) == b"9\r\n" + event + b"\r\n"
            assert trio.current_time() == sent_at
            await trio.sleep(3)
        await upstream.send(b"0\r\n\r\n")
        assert await client.receive_exactly(5) == b"0\r\n\r\n"


async def test_half_a_chunk_reaches_the_client_at_once() -> None:
    """A chunk is not waited for either."""
    async with world() as w:
        client, upstream = await a_streaming_response(w, b"Transfer-Encoding: chunked\r\n")
        await upstream.send(b"a\r\nhello")
        assert await client.read_chunk() == b"hello"
        await upstream.send(b"world\r\n0\r\n\r\n")
        assert await client.read_chunk() == b"world"
        assert await client.read_chunk() == b""


@pytest.mark.parametrize("head", [b"Content-Length: 10\r\n", b"Connection: close\r\n"])
async def test_a_piece_of_another_framing_reaches_the_client_at_once(head: bytes) -> None:
    async with world() as w:
        client, upstream = await a_streaming_response(w, head)
        await upstream.send(b"hello")
        if b"Length" in head:
            assert await client.receive_exactly(5) == b"hello"
        else:
            assert await client.read_chunk() == b"hello"
        await upstream.send(b"world")
        upstream.close()
        if b"Length" in head:
            assert await client.receive_exactly(5) == b"world"
        else:
            assert await client.read_chunked() == (b"world", [])


async def test_a_head_without_its_body_reaches_the_client_at_once() -> None:
    async with world() as w:
        client, upstream = await a_streaming_response(w, b"Content-Length: 2\r\n")
        await trio.sleep(5)
        await upstream.send(b"ok")
        assert await client.receive_exactly(2) == b"ok"


async def test_a_chunk_of_a_request_reaches_the_upstream_at_once() -> None:
    async with world() as w:
        client, upstream = await an_upload(w)
        for n in range(3):
            sent_at = trio.current_time()
            await client.send(b"3\r\n#%02d\r\n" % n)
            assert await upstream.read_chunk() == b"#%02d" % n
            assert trio.current_time() == sent_at
            await trio.sleep(5)
        await client.send(b"0\r\n\r\n")
        assert await upstream.read_chunked() == (b"", [])
        await upstream.respond()
        assert (await client.read_response()).body == b"ok"


async def test_a_piece_of_a_request_of_known_length_reaches_the_upstream_at_once() -> None:
    async with world() as w:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
        client, upstream = await an_upload(w, head)
        for piece in (b"hello", b"world"):
            await client.send(piece)
            assert await upstream.receive_exactly(5) == piece
            await trio.sleep(5)
        await upstream.respond()
        assert (await client.read_response()).body == b"ok"


async def test_both_directions_stream_at_once() -> None:
    """An upstream that echoes what it reads while the request goes on."""
    async with world() as w:
        client, upstream = await an_upload(w)
        await upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert (await client.read_head()).status == 200
        for n in range(5):
            await client.send(b"2\r\n%02d\r\n" % n)
            piece = await upstream.read_chunk()
            await upstream.send(b"2\r\n" + piece + b"\r\n")
            assert await client.read_chunk() == b"%02d" % n
            await trio.sleep(1)
        await client.send(b"0\r\n\r\n")
        assert await upstream.read_chunked() == (b"", [])
        await upstream.send(b"0\r\n\r\n")
        assert await client.read_chunked() == (b"", [])
        assert await client.receive_all() == b""
        assert (await upstream_goes_on(w)).status == 200


async def upstream_goes_on(w: World) -> Message:
    """A request of another client on the same upstream connection."""
    client = await w.client()
    await client.send(GET)
    (upstream,) = w.upstreams[0].peers
    await upstream.read_request()
    await upstream.respond()
    return await client.read_response()


# Bounded


async def test_the_largest_pieces_arrive_whole_and_in_order() -> None:
    """Some megabytes both ways at once, byte for byte."""
    data = bytes(range(256)) * 8192
    async with world(timeouts=NO_DEADLINES) as w:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(data)
        client, upstream = await an_upload(w, head)
        received = bytearray()

        async def echo_backwards() -> None:
            """Ends only when the whole upload has come: an answer that ends before cuts it off."""
            await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data))
            await upstream.send(data[:0:-1])
            received.extend(await upstream.receive_exactly(len(data)))
            await upstream.send(data[:1])

        w.helpers.start_soon(client.send, data)
        w.helpers.start_soon(echo_backwards)
        assert (await client.read_response()).body == data[::-1]
        assert received == data


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_a_slow_reader_stops_the_upstream(framing: str) -> None:
    """Of 16 MiB only what fits the buffers on the way is taken; the rest follows the reader."""
    size = 16 * 1024 * 1024
    heads = {
        "length": b"Content-Length: %d\r\n" % size,
        "chunked": b"Transfer-Encoding: chunked\r\n",
        "close": b"",
    }
    async with world(timeouts=NO_DEADLINES) as w:
        client, upstream = await a_streaming_response(w, heads[framing])
        piece = b"%x\r\n%s\r\n" % (16384, b"x" * 16384) if framing == "chunked" else b"x" * 16384
        sent = 0
        while taken := upstream.stream.send_nowait(piece[sent % len(piece) :]):
            sent += taken
            await trio.sleep(10)
        assert sent < ON_THE_WAY
        assert await client.receive_exactly(100_000)
        await trio.sleep(10)
        assert upstream.stream.send_nowait(b"x") == 1
        client.abort()
        await trio.sleep(1)
        assert w.exchanges[0].error is not None


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_slow_upstream_stops_the_uploader(framing: str) -> None:
    size = 16 * 1024 * 1024
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
    async with world(timeouts=NO_DEADLINES) as w:
        client, upstream = await an_upload(w, head if framing == "length" else CHUNKED_POST)
        piece = b"%x\r\n%s\r\n" % (16384, b"x" * 16384) if framing == "chunked" else b"x" * 16384
        sent = 0
        while taken := client.stream.send_nowait(piece[sent % len(piece) :]):
            sent += taken
            await trio.sleep(10)
        assert sent < ON_THE_WAY
        assert await upstream.receive_exactly(100_000)
        await trio.sleep(10)
        assert client.stream.send_nowait(b"x") == 1
        client.abort()


# Early answers


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked"])
async def test_an_early_answer_comes_through_a_stalled_upload(framing: bytes) -> None:
    """The upstream reads nothing and answers 413; the client gets it and the connection ends."""
    async with world() as w:
        head = b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n"
        client, upstream = await an_upload(w, head)
        body = b"f4240\r\n" if b"chunked" in framing else b""
        w.helpers.start_soon(send_as_long_as_possible, client, body + b"x" * 1_000_000)
        await trio.sleep(5)
        await upstream.respond(b"too much", status=413)
        response = await client.read_response()
        assert response.status == 413
        assert response.body == b"too much"
        assert await client.receive_all() == b""
    assert w.exchanges[0].status == 413
    assert w.exchanges[0].error is None


async def send_as_long_as_possible(peer: Speaker, data: bytes) -> None:
    try:
        await peer.send(data)
    except OSError:
        return


async def test_an_early_answer_while_the_client_pauses() -> None:
    """Nothing of the body has come when the upstream answers."""
    async with world() as w:
        client, upstream = await an_upload(w)
        await upstream.respond(b"no", status=401)
        response = await client.read_response()
        assert (response.status, response.body) == (401, b"no")
        assert await client.receive_all() == b""


async def test_an_upstream_that_answers_and_closes_at_once_is_heard() -> None:
    """The upload fails by a reset, and the answer that came before it is delivered all the same."""
    async with world() as w:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
        client, upstream = await an_upload(w, head)
        await upstream.respond(b"no", status=413, fields=b"Connection: close\r\n")
        upstream.send_eof()
        w.helpers.start_soon(send_as_long_as_possible, client, b"x" * 1_000_000)
        response = await client.read_response()
        assert (response.status, response.body) == (413, b"no")


async def test_an_early_answer_whose_upload_ends_in_time_keeps_the_upstream() -> None:
    """The answer begins before the body has ended, and ends after it; only the client's connection
    is closed, as had to be announced at a time when that was not certain."""
    async with world() as w:
        client, upstream = await an_upload(w)
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        assert (await client.read_head())[b"connection"] == b"close"
        await client.send(b"3\r\nxyz\r\n0\r\n\r\n")
        assert await upstream.read_chunked() == (b"xyz", [])
        await upstream.send(b"cd")
        assert await client.receive_all() == b"abcd"
        assert (await upstream_goes_on(w)).status == 200
