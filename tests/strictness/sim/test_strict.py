"""What is ambiguous is refused: no upstream sees it, and the connection ends behind the answer."""

from __future__ import annotations

import pytest
import trio

from support.conversation import Message
from support.world import GET, world
from trio_proxy.settings import Limits

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

#: Would be answered if the proxy took the bytes before it for a whole request.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

BAD_REQUESTS = {
    # Framing
    "length and chunked": POST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "the same length twice": POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
    "a list of lengths": POST + b"Content-Length: 1, 1\r\n\r\n",
    "a signed length": POST + b"Content-Length: +1\r\n\r\n",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "an empty length": POST + b"Content-Length: \r\n\r\n",
    "a length with a space": POST + b"Content-Length: 1 1\r\n\r\n",
    "a hexadecimal length": POST + b"Content-Length: 0x1\r\n\r\n",
    "a length with underscores": POST + b"Content-Length: 1_0\r\n\r\n",
    "an endless length": POST + b"Content-Length: " + b"9" * 50 + b"\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n",
    "chunked in two fields": POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n",
    "chunked not last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
    "an empty coding": POST + b"Transfer-Encoding:\r\n\r\n",
    "chunked behind a tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    # Lines
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "one bare LF": b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
    "obs-fold": b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
    "fold at once": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "space before the colon of a length": POST + b"Content-Length : 5\r\n\r\nhello",
    "no colon": b"GET / HTTP/1.1\r\nHost: a\r\nwhat\r\n\r\n",
    "an empty name": b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    "a control in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x1bb\r\n\r\n",
    "a name with a bracket": b"GET / HTTP/1.1\r\nHost: a\r\nX[]: y\r\n\r\n",
    "two empty lines first": b"\r\n\r\n" + GET,
    # Request line
    "two spaces": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tab": b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "space at the end": b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "no version": b"GET /\r\nHost: a\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
    "a relative target": b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk for GET": b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "another scheme": b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a byte above ASCII": b"GET /\xe4 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method with a slash": b"GE/T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    # Host
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "an empty Host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "a list of Hosts": b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "a Host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a Host with a user": b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "a Host with a bad port": b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "a Host that contradicts": b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target with a user": b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
}

OTHER_STATUSES = {
    "gzip as coding": (501, POST + b"Transfer-Encoding: gzip\r\n\r\n"),
    "gzip, chunked": (501, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    "identity": (501, POST + b"Transfer-Encoding: identity\r\n\r\n"),
    "xchunked": (501, POST + b"Transfer-Encoding: xchunked\r\n\r\n"),
    "CONNECT": (501, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
    "TRACE": (501, b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "HTTP/9.9": (505, b"GET / HTTP/9.9\r\nHost: a\r\n\r\n"),
    "HTTP/1.2": (505, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    "HTTP/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "a long target": (414, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a huge head": (431, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000 + b"\r\n\r\n"),
    "too many fields": (431, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n"),
}


async def refusal_of(request: bytes, limits: Limits | None = None, pause_at: int = 0) -> Message:
    """The answer to a request that no upstream must see; the connection has to end behind it."""
    async with world(limits=limits or Limits()) as w:
        client = await w.client()
        await client.send(request[:pause_at])
        await trio.sleep(0.1)
        await client.send(request[pause_at:] + SMUGGLED)
        response = await client.read_response()
        assert await client.receive_all() == b""
        assert w.upstreams[0].listener.waiting == 0
    (exchange,) = w.exchanges
    assert exchange.status == response.status
    assert exchange.error is not None
    assert str(exchange.error.source) == "client"
    return response


@pytest.mark.parametrize("request_bytes", list(BAD_REQUESTS.values()), ids=list(BAD_REQUESTS))
async def test_an_ambiguous_request_is_a_400(request_bytes: bytes) -> None:
    response = await refusal_of(request_bytes)
    assert response.status == 400
    assert response[b"connection"] == b"close"


@pytest.mark.parametrize(
    ("status", "request_bytes"), list(OTHER_STATUSES.values()), ids=list(OTHER_STATUSES)
)
async def test_what_has_a_status_of_its_own(status: int, request_bytes: bytes) -> None:
    response = await refusal_of(request_bytes)
    assert response.status == status
    assert response[b"connection"] == b"close"


@pytest.mark.parametrize(
    ("status", "start"),
    [(414, b"GET /"), (431, b"GET / HTTP/1.1\r\nHost: a\r\nX: "), (414, b""), (400, b"GET \x00")],
)
async def test_a_head_without_end_is_refused_before_it_ends(status: int, start: bytes) -> None:
    """As soon as it is certain that no request can come of it."""
    async with world() as w:
        client = await w.client()
        await client.send(start + b"a" * 40_000)
        response = await client.read_response()
        assert response.status == status
        assert w.proxy.stats.parse_errors == 1


@pytest.mark.parametrize("pause_at", [1, 10, 18, 40])
async def test_the_pieces_make_no_difference(pause_at: int) -> None:
    assert (await refusal_of(BAD_REQUESTS["length and chunked"], pause_at=pause_at)).status == 400


BAD_CHUNKS = {
    "no size": b"hello\r\n",
    "an empty size": b"\r\nhello\r\n0\r\n\r\n",
    "a signed size": b"+5\r\nhello\r\n0\r\n\r\n",
    "a size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size with underscores": b"0_5\r\nhello\r\n0\r\n\r\n",
    "space behind the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "an endless size": b"f" * 20 + b"\r\nhello\r\n0\r\n\r\n",
    "bare LF behind the size": b"5\nhello\r\n0\r\n\r\n",
    "bare CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "bare LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "an endless extension": b"5;" + b"a" * 1000 + b"\r\nhello\r\n0\r\n\r\n",
    "data too long": b"5\r\nhelloo\r\n0\r\n\r\n",
    "data too short": b"5\r\nhell\r\n0\r\n\r\n",
    "bare LF behind the data": b"5\r\nhello\n0\r\n\r\n",
    "no CRLF behind the data": b"5\r\nhelloXX0\r\n\r\n",
    "bare LF at the end": b"5\r\nhello\r\n0\r\n\n",
    "a trailer without colon": b"5\r\nhello\r\n0\r\nwhat\r\n\r\n",
    "a folded trailer": b"5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n",
}


@pytest.mark.parametrize("body", list(BAD_CHUNKS.values()), ids=list(BAD_CHUNKS))
@pytest.mark.parametrize("pause", [False, True])
async def test_malformed_chunks_are_a_400(body: bytes, pause: bool) -> None:
    """In one piece with the head or behind it; the upstream never sees a complete body."""
    async with world() as w:
        client = await w.client()
        await client.send(CHUNKED + (b"" if pause else body + SMUGGLED))
        if pause:
            upstream = await w.upstreams[0].accept()
            await client.send(body + SMUGGLED)
        response = await client.read_response()
        assert response.status == 400
        assert response[b"connection"] == b"close"
        assert await client.receive_all() == b""
        if not pause and not w.upstreams[0].listener.waiting:
            return
        upstream = upstream if pause else await w.upstreams[0].accept()
        received = await upstream.receive_all()
        assert not received.endswith(b"0\r\n\r\n")
        assert b"smuggled" not in received


async def test_a_good_chunked_body_with_extensions_is_passed_on_without_them() -> None:
    async with world() as w:
        w.upstreams[0].serve()
        client = await w.client()
        await client.send(CHUNKED + b'5;a=b;c="d e"\r\nhello\r\n000;x\r\n\r\n')
        assert (await client.read_response()).status == 200
        assert w.upstreams[0].requests[0].body == b"hello"


async def test_the_limits_are_those_of_the_configuration() -> None:
    limits = Limits(max_head_bytes=2000, max_header_fields=5, max_target_bytes=50)
    fields = b"Host: a\r\n" + b"X: y\r\n" * 5 + b"\r\n"
    assert (await refusal_of(b"GET / HTTP/1.1\r\n" + fields, limits)).status == 431
    target = b"/" + b"a" * 50
    request = b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    assert (await refusal_of(request, limits)).status == 414
    long = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 2000 + b"\r\n\r\n"
    assert (await refusal_of(long, limits)).status == 431
