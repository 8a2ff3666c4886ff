"""Expect: 100-continue, other interim responses, and trailers."""

from __future__ import annotations

import pytest
import trio

from support.world import GET, world

EXPECT = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"


async def test_the_expectation_and_its_answer_are_relayed() -> None:
    """The 100 that the client gets is the upstream's, and comes when that one does."""
    async with world() as w:
        client = await w.client()
        await client.send(EXPECT)
        upstream = await w.upstreams[0].accept()
        assert (await upstream.read_head())[b"expect"] == b"100-continue"
        await trio.sleep(3)
        assert not client.stream.is_readable()
        await upstream.send(b"HTTP/1.1 100 Go on\r\nX-Hint: 1\r\n\r\n")
        interim = await client.read_head()
        assert interim.raw == b"HTTP/1.1 100 Go on\r\nX-Hint: 1\r\n\r\n"
        await client.send(b"hello")
        assert await upstream.receive_exactly(5) == b"hello"
        await upstream.respond()
        assert (await client.read_response()).body == b"ok"


async def test_no_100_is_invented() -> None:
    """An upstream that says nothing at all: neither does the proxy, until the client goes on."""
    async with world() as w:
        client = await w.client()
        await client.send(EXPECT)
        upstream = await w.upstreams[0].accept()
        await upstream.read_head()
        await trio.sleep(10)
        assert not client.stream.is_readable()
        await client.send(b"hello")
        assert await upstream.receive_exactly(5) == b"hello"
        await upstream.respond()
        assert (await client.read_response()).status == 200


@pytest.mark.parametrize("status", [413, 417, 401])
async def test_a_refused_expectation_is_relayed(status: int) -> None:
    """The final answer instead of a 100; the body was never sent."""
    async with world() as w:
        client = await w.client()
        await client.send(EXPECT)
        upstream = await w.upstreams[0].accept()
        await upstream.read_head()
        await upstream.respond(b"no", status=status)
        response = await client.read_response()
        assert (response.status, response.body) == (status, b"no")
        client.send_eof()
        assert await client.receive_all() == b""
        assert await upstream.receive_all() == b""


async def test_a_103_does_not_answer_the_expectation() -> None:
    """Early hints, and then a 100 all the same."""
    async with world() as w:
        client = await w.client()
        await client.send(EXPECT)
        upstream = await w.upstreams[0].accept()
        await upstream.read_head()
        await upstream.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        assert (await client.read_head()).status == 103
        await upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert (await client.read_head()).status == 100
        await client.send(b"hello")
        assert await upstream.receive_exactly(5) == b"hello"
        await upstream.respond()
        assert (await client.read_response()).status == 200


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
async def test_unasked_interim_responses_are_relayed(interim: bytes) -> None:
    async with world() as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(
            b"HTTP/1.1 " + interim + b"\r\nLink: </a>\r\nConnection: x\r\nX: y\r\n\r\n"
        )
        assert (await client.read_head()).raw == b"HTTP/1.1 " + interim + b"\r\nLink: </a>\r\n\r\n"
        await upstream.respond()
        assert (await client.read_response()).body == b"ok"


async def test_interim_responses_in_one_piece_with_the_final_one() -> None:
    async with world() as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        hints = b"HTTP/1.1 103 Early Hints\r\n\r\n"
        await upstream.send(hints * 3 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        statuses = [(await client.read_head()).status for _ in range(3)]
        assert statuses == [103, 103, 103]
        assert (await client.read_response()).body == b"ok"


async def test_an_interim_response_has_no_framing() -> None:
    """Whatever its head says; what follows is the final response."""
    async with world() as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nA: b\r\n\r\n")
        assert (await client.read_head()).raw == b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n"
        await upstream.respond()
        assert (await client.read_response()).body == b"ok"


async def test_an_http10_client_gets_no_interim_response() -> None:
    """RFC 9110 §15.2."""
    async with world() as w:
        client = await w.client()
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n")
        await upstream.respond()
        assert (await client.read_response()).status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        b"POST / HTTP/1.0\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
    ],
)
async def test_an_expectation_that_means_nothing_is_not_relayed(head: bytes) -> None:
    """Without a body there is nothing to continue with, and HTTP/1.0 does not know it."""
    async with world() as w:
        w.upstreams[0].serve()
        client = await w.client()
        assert (await client.ask(head)).status == 200
        assert b"expect" not in w.upstreams[0].requests[0]


# Trailers


async def test_trailers_of_a_response_are_relayed() -> None:
    """But not those that must not be trailers (RFC 9110 §6.5.1)."""
    async with world() as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        )
        await upstream.send(
            b"2\r\nok\r\n0\r\nX-Sum: 1\r\nContent-Length: 7\r\nX-sum: 2\r\nSet-Cookie: a=b\r\n\r\n"
        )
        response = await client.read_response()
        assert response[b"trailer"] == b"X-Sum"
        assert response.body == b"ok"
        assert response.trailers == [(b"X-Sum", b"1"), (b"X-sum", b"2")]


async def test_trailers_of_a_request_are_relayed() -> None:
    async with world() as w:
        w.upstreams[0].serve()
        client = await w.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await trio.sleep(1)
        await client.send(
            b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nHost: evil\r\nX-Forwarded-For: evil\r\n\r\n"
        )
        assert (await client.read_response()).status == 200
        request = w.upstreams[0].requests[0]
        assert request.body == b"hi"
        assert request.trailers == [(b"X-Sum", b"1")]


async def test_trailers_of_a_request_in_one_piece_are_relayed() -> None:
    async with world() as w:
        w.upstreams[0].serve()
        client = await w.client()
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.send(head + b"2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n")
        assert (await client.read_response()).status == 200
        assert w.upstreams[0].requests[0].trailers == [(b"X-Sum", b"1")]
