"""What an upstream may answer, and what becomes a 502 instead."""

from __future__ import annotations

import pytest
import trio

from support.conversation import Speaker
from support.world import GET, World, world
from trio_proxy.http.errors import Reason

OK = b"HTTP/1.1 200 OK\r\n"

MALFORMED = {
    "length and chunked": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "the same length twice": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "a list of lengths": OK + b"Content-Length: 2, 2\r\n\r\nok",
    "a signed length": OK + b"Content-Length: +2\r\n\r\nok",
    "a negative length": OK + b"Content-Length: -2\r\n\r\nok",
    "a hexadecimal length": OK + b"Content-Length: 0x2\r\n\r\nok",
    "an endless length": OK + b"Content-Length: " + b"9" * 40 + b"\r\n\r\nok",
    "an empty length": OK + b"Content-Length:\r\n\r\nok",
    "gzip as coding": OK + b"Transfer-Encoding: gzip\r\n\r\nok",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\nok",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.0\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\n\r\n",
    "a short status": b"HTTP/1.1 20 OK\r\n\r\n",
    "a long status": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 000": b"HTTP/1.1 000 OK\r\n\r\n",
    "a tab in the status line": b"HTTP/1.1\t200 OK\r\n\r\n",
    "an empty line first": b"\r\n" + OK + b"\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "one bare LF": OK + b"A: b\nC: d\r\n\r\n",
    "bare CR": OK + b"A: b\rC: d\r\n\r\n",
    "obs-fold": OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": OK + b"Content-Length : 2\r\n\r\nok",
    "no colon": OK + b"what\r\n\r\n",
    "no name": OK + b": what\r\n\r\n",
    "NUL": OK + b"A: b\x00c\r\n\r\n",
    "a control character": OK + b"A: b\x07c\r\n\r\n",
    "a huge head": OK + b"A: " + b"x" * 40_000 + b"\r\n\r\n",
    "a head without end": OK + b"A: " + b"x" * 40_000,
    "too many fields": OK + b"A: b\r\n" * 101 + b"\r\n",
    "too many interim responses": b"HTTP/1.1 102 Processing\r\n\r\n" * 33,
    "broken chunks with the head": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("answer", list(MALFORMED.values()), ids=list(MALFORMED))
async def test_a_malformed_response_is_a_502(answer: bytes) -> None:
    """That connection is closed; the client's goes on, on a fresh one."""
    async with world() as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(answer)
        response = await client.read_response()
        while response.status == 102:
            response = await client.read_response()
        assert response.status == 502
        assert response[b"proxy-status"] == b"trio-proxy; error=http_protocol_error"
        await client.send(GET)
        fresh = await w.upstreams[0].accept()
        await fresh.read_request()
        await fresh.respond(b"good")
        assert (await client.read_response()).body == b"good"
        assert len(w.proxy_streams()) == 2
    error = w.exchanges[0].error
    assert error is not None
    assert error.reason is Reason.RESPONSE_MALFORMED
    assert w.exchanges[0].tries[0].failure is error
    assert w.exchanges[0].tries[0].outcome == "response_malformed"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 20", OK, OK + b"A: b\r\n"])
@pytest.mark.parametrize("reset", [False, True])
async def test_an_upstream_that_goes_before_its_head_is_a_502(answer: bytes, reset: bool) -> None:
    """On a fresh connection there is no second try."""
    async with world() as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(answer)
        await trio.sleep(1)
        upstream.abort() if reset else upstream.close()
        response = await client.read_response()
        assert response.status == 502
        assert response[b"proxy-status"] == b"trio-proxy; error=connection_terminated"
        assert w.upstreams[0].listener.waiting == 0


async def exchange(w: World, client: Speaker, answer: bytes, method: bytes = b"GET") -> Speaker:
    """Have one request answered so; the upstream's end of the connection that it came by."""
    await client.send(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    upstream = await w.upstreams[0].accept()
    await upstream.read_request()
    await upstream.send(answer)
    return upstream


@pytest.mark.parametrize(
    ("method", "answer", "body"),
    [
        (b"GET", OK + b"Content-Length: 2\r\n\r\nok", b"ok"),
        (b"GET", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n", b""),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", b""),
        (b"HEAD", OK + b"Content-Length: 4\r\n\r\n", b""),
    ],
)
@pytest.mark.parametrize("delay", [0.0, 1.0])
async def test_bytes_behind_a_response_reach_nobody(
    method: bytes, answer: bytes, body: bytes, delay: float
) -> None:
    """In one piece with it or later: the connection is closed and the next request gets its own."""
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    async with world() as w:
        client = await w.client()
        upstream = await exchange(w, client, answer + (b"" if delay else evil), method)
        response = await client.read_response(method)
        assert response.body == body
        if delay:
            await trio.sleep(delay)
            await upstream.send(evil)
        await exchange(w, client, OK + b"Content-Length: 4\r\n\r\ngood")
        assert (await client.read_response()).body == b"good"
        assert not client.stream.is_readable()
        assert len(w.proxy_streams()) == 2


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"\r\nok",
    ],
)
async def test_an_upstream_that_says_close_is_not_used_again(answer: bytes) -> None:
    """The client's connection is kept all the same."""
    async with world() as w:
        client = await w.client()
        upstream = await exchange(w, client, answer)
        upstream.send_eof()
        response = await client.read_response()
        assert response.body == b"ok"
        assert b"connection" not in response
        await exchange(w, client, OK + b"Content-Length: 4\r\n\r\ngood")
        assert (await client.read_response()).body == b"good"


async def test_a_response_that_ends_by_close_is_chunked_for_the_client() -> None:
    async with world() as w:
        client = await w.client()
        upstream = await exchange(w, client, OK + b"X: y\r\n\r\nhello")
        assert (await client.read_head())[b"transfer-encoding"] == b"chunked"
        assert await client.read_chunk() == b"hello"
        await upstream.send(b" world")
        upstream.close()
        assert await client.read_chunked() == (b" world", [])


@pytest.mark.parametrize("start", [b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1 299 \xe4 !"])
async def test_an_odd_reason_phrase_is_no_fault(start: bytes) -> None:
    async with world() as w:
        client = await w.client()
        await exchange(w, client, start + b"\r\nContent-Length: 2\r\n\r\nok")
        response = await client.read_response()
        assert response.status in (200, 299)
        assert response.body == b"ok"


@pytest.mark.parametrize("status", [200, 226, 301, 404, 418, 500, 503, 599, 999])
async def test_any_final_status_is_passed_on(status: int) -> None:
    """An upstream's own 503 is no failure of the proxy."""
    async with world() as w:
        client = await w.client()
        await exchange(w, client, b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
        response = await client.read_response()
        assert response.status == status
        assert b"proxy-status" not in response
        assert b"retry-after" not in response
    assert w.exchanges[0].error is None


async def test_a_response_may_come_byte_by_byte() -> None:
    """In virtual time a byte a second; every framing element is split."""
    async with world() as w:
        client = await w.client()
        upstream = await exchange(w, client, b"")
        answer = OK + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n"
        for byte in answer[:-1]:
            await upstream.send(bytes([byte]))
            await trio.sleep(0.2)
        await upstream.send(answer[-1:])
        response = await client.read_response()
        assert response.body == b"hello"
        assert response.trailers == [(b"X", b"y")]
