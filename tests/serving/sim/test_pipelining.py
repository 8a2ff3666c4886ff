"""Clients that do not wait: pipelined requests, and clients that half-close."""

from __future__ import annotations

import pytest
import trio

from support.conversation import Speaker
from support.world import GET, world
from trio_proxy.exchange.streams import READ_SIZE
from trio_proxy.settings import Timeouts

NO_DEADLINES = Timeouts(write_ms=0, total_ms=0, body_ms=0, read_ms=0, idle_ms=0)


async def echo_target(peer: Speaker) -> None:
    """An upstream that answers with the target and the body that it was sent."""
    while True:
        request = await peer.read_request()
        await peer.respond(request.start.split(b" ")[1] + request.body)


def numbered(count: int) -> bytes:
    return b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(count))


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with world(upstreams=2) as w:
        for upstream in w.upstreams:
            upstream.run(echo_target)
        client = await w.client()
        await client.send(numbered(50))
        for n in range(50):
            assert (await client.read_response()).body == b"/%d" % n
    assert len(w.exchanges) == 50


async def test_the_next_request_waits_for_the_answer_before() -> None:
    """Only one of two pipelined requests is at the upstreams at a time."""
    async with world(upstreams=2) as w:
        client = await w.client()
        await client.send(numbered(2))
        first = await w.upstreams[0].accept()
        await first.read_request()
        await trio.sleep(5)
        assert w.upstreams[1].listener.waiting == 0
        await first.respond(b"first")
        second = await w.upstreams[1].accept()
        await second.read_request()
        await second.respond(b"second")
        assert (await client.read_response()).body == b"first"
        assert (await client.read_response()).body == b"second"


async def test_pipelined_bodies_are_kept_apart() -> None:
    async with world() as w:
        w.upstreams[0].run(echo_target)
        client = await w.client()
        await client.send(
            b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none"
            b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\ntwo\r\n0\r\n\r\n"
            b"GET /c HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        assert [(await client.read_response()).body for _ in range(3)] == [
            b"/aone",
            b"/btwo",
            b"/c",
        ]
    assert [exchange.error for exchange in w.exchanges] == [None] * 3


async def test_a_client_that_pipelines_and_does_not_read_is_not_read_either() -> None:
    """Of 10,000 requests only what fits the buffers on the way is taken."""
    async with world(timeouts=NO_DEADLINES) as w:
        w.upstreams[0].serve()
        client = await w.client()
        unsent = numbered(10_000)
        sent = 0
        while taken := client.stream.send_nowait(unsent[sent:]):
            sent += taken
            await trio.sleep(100)
        assert sent < len(unsent) / 2
        assert len(w.upstreams[0].requests) < 1500
        client.abort()


async def test_a_client_that_reads_late_still_gets_every_answer() -> None:
    """More answers than fit into the buffers; none is lost while it does not read."""
    count = 1500
    async with world(timeouts=NO_DEADLINES) as w:
        w.upstreams[0].run(echo_target)
        client = await w.client()
        w.helpers.start_soon(client.send, numbered(count))
        await trio.sleep(1000)
        assert len(w.exchanges) < count
        for n in range(count):
            assert (await client.read_response()).body == b"/%d" % n


async def test_a_close_in_the_middle_ends_the_pipeline() -> None:
    """What follows behind Connection: close is not looked at."""
    async with world() as w:
        w.upstreams[0].run(echo_target)
        client = await w.client()
        last = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        await client.send(GET + last + b"GET /beyond HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.read_response()).body == b"/"
        assert (await client.read_response()).body == b"/last"
        assert await client.receive_all() == b""
    assert len(w.exchanges) == 2


# Half-close


@pytest.mark.parametrize("delay", [0.0, 5.0])
async def test_a_half_closing_client_is_answered(delay: float) -> None:
    """Also if the upstream takes its time. Then the connection ends."""
    async with world() as w:
        w.upstreams[0].serve(delay=delay)
        client = await w.client()
        await client.send(GET)
        client.send_eof()
        assert (await client.read_response()).body == b"ok"
        assert await client.receive_all() == b""
    assert [exchange.error for exchange in w.exchanges] == [None]


@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"Content-Length: 5", b"hello"), (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n")],
)
@pytest.mark.parametrize("delay", [0.0, 5.0])
async def test_a_half_closing_client_with_a_body_is_answered(
    framing: bytes, body: bytes, delay: float
) -> None:
    """The body comes a second after the head, and the half-close with it."""
    async with world() as w:
        w.upstreams[0].serve(delay=delay)
        client = await w.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
        await trio.sleep(1)
        await client.send(body)
        client.send_eof()
        assert (await client.read_response()).body == b"ok"
        assert await client.receive_all() == b""
        assert w.upstreams[0].requests[0].body == b"hello"


@pytest.mark.parametrize("delay", [0.0, 0.5])
@pytest.mark.parametrize("count", [3, 40])
async def test_a_half_closing_client_that_pipelined_is_answered(delay: float, count: int) -> None:
    async with world() as w:
        w.upstreams[0].serve(delay=delay)
        client = await w.client()
        await client.send(numbered(count))
        client.send_eof()
        for _ in range(count):
            assert (await client.read_response()).body == b"ok"
        assert await client.receive_all() == b""
    assert len(w.exchanges) == count


async def test_a_half_close_behind_more_than_one_read_of_requests() -> None:
    """Requests that lie in the kernel's buffer when the end of the stream shows are answered."""
    padding = b"X-Padding: " + b"p" * 4000 + b"\r\n\r\n"
    async with world(timeouts=NO_DEADLINES) as w:
        w.net.link(w.proxy.address, buffer=1_000_000)
        w.upstreams[0].run(echo_target)
        client = await w.client()
        for n in range(60):
            await client.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n" % n + padding)
        client.send_eof()
        for n in range(60):
            assert (await client.read_response()).body == b"/%d" % n
        assert await client.receive_all() == b""


async def test_a_half_close_when_reads_and_requests_end_together() -> None:
    """Nothing is left over of a read, but more requests lie in the kernel: they are answered."""
    size, count = READ_SIZE // 4, 12
    async with world(timeouts=NO_DEADLINES) as w:
        w.net.link(w.proxy.address, buffer=size * count)
        w.upstreams[0].run(echo_target)
        client = await w.client()
        for n in range(count):
            start = b"GET /%d HTTP/1.1\r\nHost: a\r\nX-Padding: " % n
            await client.send(start + b"p" * (size - len(start) - 4) + b"\r\n\r\n")
        client.send_eof()
        for n in range(count):
            assert (await client.read_response()).body == b"/%d" % n
        assert await client.receive_all() == b""
