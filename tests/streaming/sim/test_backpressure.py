"""A slow reader stops the sender, whichever way the bytes go, and nothing piles up between."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
import trio

from support.conversation import Speaker
from support.scenario import GET, ending, only, post, send_quietly
from support.world import world
from trio_proxy.exchange.streams import PIECE_BYTES, READ_SIZE

MIB = 1024 * 1024
SIZE = 64 * MIB
LINK = 65536  # what the simulated link holds in one direction

#: Bytes that may be on their way: both links full, a piece taken out of one and not yet taken by
#: the other, and a read's worth that waits to be decoded.
MOST_IN_BETWEEN = 2 * LINK + PIECE_BYTES + 2 * READ_SIZE

#: What may follow when the receiver has read as much as the link holds.
MOST_AFTER_A_READ = LINK + PIECE_BYTES + READ_SIZE

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"


class Counter:
    """Sends pieces and counts what was taken."""

    def __init__(self) -> None:
        self.sent = 0

    async def pour(self, peer: Speaker, piece: bytes, size: int = SIZE) -> None:
        with suppress(OSError, trio.ClosedResourceError):
            while self.sent < size:
                await peer.send(piece)
                self.sent += len(piece)


def growth(before: int) -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - before


@pytest.mark.parametrize("head", [LENGTH, CHUNKED, UNTIL_CLOSE], ids=["length", "chunked", "close"])
async def test_a_response_to_a_client_that_does_not_read(head: bytes) -> None:
    """The upstream is stopped after a bounded number of bytes, and the process does not grow."""
    piece = bytes(4096) if head is not CHUNKED else b"1000\r\n" + bytes(4096) + b"\r\n"
    async with world(timeouts=only()) as w:
        counter = Counter()
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.send(head)
        tracemalloc.start()
        try:
            before = growth(0)
            w.helpers.start_soon(counter.pour, upstream, piece)
            await trio.sleep(60)
            stopped_at = counter.sent
            assert 2 * LINK - 8192 <= stopped_at <= MOST_IN_BETWEEN
            assert growth(before) < 2 * MIB
        finally:
            tracemalloc.stop()
        await trio.sleep(60)
        assert counter.sent == stopped_at
        await client.receive_some()  # room for one read, and no more than that is asked for
        await trio.sleep(60)
        assert stopped_at < counter.sent <= stopped_at + MOST_AFTER_A_READ
        client.close()


@pytest.mark.parametrize(
    ("head", "frame"),
    [
        (post(SIZE), lambda data: data),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            lambda data: b"%x\r\n%s\r\n" % (len(data), data),
        ),
    ],
    ids=["length", "chunked"],
)
async def test_an_upload_to_an_upstream_that_does_not_read(
    head: bytes, frame: Callable[[bytes], bytes]
) -> None:
    """The client is stopped after a bounded number of bytes."""
    async with world(timeouts=only()) as w:
        counter = Counter()
        client = await w.client()
        await client.send(head)
        upstream = await w.upstreams[0].accept()
        tracemalloc.start()
        try:
            before = growth(0)
            w.helpers.start_soon(counter.pour, client, frame(bytes(4096)))
            await trio.sleep(60)
            stopped_at = counter.sent
            assert 2 * LINK - 8192 <= stopped_at <= MOST_IN_BETWEEN
            assert growth(before) < 2 * MIB
        finally:
            tracemalloc.stop()
        await trio.sleep(60)
        assert counter.sent == stopped_at
        await upstream.receive_some()
        await trio.sleep(60)
        assert stopped_at < counter.sent <= stopped_at + MOST_AFTER_A_READ
        client.close()


async def test_pipelined_requests_behind_one_that_takes_its_time() -> None:
    """The client is stopped; the proxy does not collect requests."""
    async with world(timeouts=only()) as w:
        counter = Counter()
        client = await w.client()
        await client.send(GET)
        await w.upstreams[0].accept()
        w.helpers.start_soon(counter.pour, client, GET)
        await trio.sleep(60)
        assert counter.sent <= LINK + READ_SIZE + len(GET)
        client.close()


async def test_a_tunnel_whose_one_end_does_not_read() -> None:
    """Its other direction goes on."""
    async with world(timeouts=only()) as w:
        counter = Counter()
        client = await w.client()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        upstream = await w.upstreams[0].accept()
        await upstream.send(b"HTTP/1.1 101 Fine\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        await client.read_head()
        w.helpers.start_soon(counter.pour, client, bytes(4096))
        await trio.sleep(60)
        assert counter.sent <= MOST_IN_BETWEEN
        await upstream.send(b"still there")
        assert await client.receive_exactly(11) == b"still there"
        client.abort()


async def test_a_large_response_arrives_whole_through_slow_reading() -> None:
    """Backpressure loses nothing: two MiB in odd pieces."""
    body = bytes(range(251)) * (2 * MIB // 251)
    async with world(timeouts=only()) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        w.helpers.start_soon(send_quietly, upstream, body)
        assert (await client.read_head()).status == 200
        received = bytearray()
        while len(received) < len(body):
            received += await client.receive_some(30_011)
            await trio.sleep(0.01)
        assert received == body
    assert ending(w.exchanges[0])[:2] == (200, None)
