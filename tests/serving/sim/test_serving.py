"""Requests and answers on one client connection: keep-alive, HTTP/1.0, answers without a body."""

from __future__ import annotations

import pytest
import trio

from support.world import GET, world


async def test_a_request_is_passed_on_and_its_answer_comes_back() -> None:
    """One exchange, byte for byte."""
    async with world() as w:
        client = await w.client()
        await client.send(b"GET /path?q=1 HTTP/1.1\r\nHost: example.com\r\nX-A: 1\r\n\r\n")
        upstream = await w.upstreams[0].accept()
        request = await upstream.read_request()
        trace = request[b"x-trace-id"]
        assert request.raw == (
            b"GET /path?q=1 HTTP/1.1\r\nHost: example.com\r\nX-A: 1\r\n"
            b"X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: http\r\n"
            b"X-Forwarded-Host: example.com\r\nX-Real-IP: 198.51.100.7\r\n"
            b"X-Trace-ID: " + trace + b"\r\nVia: 1.1 trio-proxy\r\n\r\n"
        )
        await upstream.send(b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nDate: now\r\n\r\nok")
        response = await client.read_response()
        assert response.raw == (
            b"HTTP/1.1 200 Fine\r\nDate: now\r\nVia: 1.1 trio-proxy\r\n"
            b"X-Trace-ID: " + trace + b"\r\nContent-Length: 2\r\n\r\n"
        )
        assert response.body == b"ok"
    assert [exchange.status for exchange in w.exchanges] == [200]


async def test_a_connection_carries_one_request_after_the_other() -> None:
    """Both connections are kept: the upstream sees one connection for three requests."""
    async with world() as w:
        w.upstreams[0].serve()
        client = await w.client()
        for _ in range(3):
            assert (await client.ask(GET)).body == b"ok"
        assert len(w.upstreams[0].peers) == 1
    assert len(w.exchanges) == 3


async def test_connection_close_is_obeyed() -> None:
    """The answer says close too, and the connection ends behind it."""
    async with world() as w:
        w.upstreams[0].serve()
        client = await w.client()
        response = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert response[b"connection"] == b"close"
        assert await client.receive_all() == b""


async def test_an_empty_line_before_a_request_is_ignored() -> None:
    """RFC 9112 §2.2; some clients send one behind a POST body."""
    async with world() as w:
        w.upstreams[0].serve()
        client = await w.client()
        assert (await client.ask(GET)).status == 200
        await client.send(b"\r\n" + GET)
        assert (await client.read_response()).status == 200


async def test_an_empty_line_behind_the_last_request_is_no_error() -> None:
    """A stray CRLF and a close end the connection without an error line."""
    async with world() as w:
        w.upstreams[0].serve()
        client = await w.client()
        assert (await client.ask(GET)).status == 200
        await client.send(b"\r\n")
        client.send_eof()
        assert await client.receive_all() == b""


async def test_a_client_that_connects_and_leaves_is_no_request() -> None:
    """Neither counted nor logged."""
    async with world() as w:
        (await w.client()).close()
        await trio.sleep(1)
        assert w.proxy.stats.requests_total == 0
    assert w.exchanges == []


@pytest.mark.parametrize("method", [b"GET", b"DELETE", b"OPTIONS", b"PROPFIND", b"X-OWN"])
async def test_any_method_is_passed_on(method: bytes) -> None:
    async with world() as w:
        w.upstreams[0].serve()
        client = await w.client()
        response = await client.ask(method + b" /a HTTP/1.1\r\nHost: a\r\n\r\n")
        assert response.status == 200
        assert w.upstreams[0].requests[0].start == method + b" /a HTTP/1.1"


async def test_options_asterisk_is_passed_on() -> None:
    async with world() as w:
        w.upstreams[0].serve()
        client = await w.client()
        assert (await client.ask(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200
        assert w.upstreams[0].requests[0].start == b"OPTIONS * HTTP/1.1"


async def test_an_absolute_target_becomes_path_and_host() -> None:
    async with world() as w:
        w.upstreams[0].serve()
        client = await w.client()
        await client.ask(b"GET http://a.example/b?c HTTP/1.1\r\nHost: a.example\r\n\r\n")
        request = w.upstreams[0].requests[0]
        assert request.start == b"GET /b?c HTTP/1.1"
        assert request[b"host"] == b"a.example"


# HTTP/1.0


async def test_an_http10_client_is_answered_and_closed() -> None:
    """The upstream is spoken to in HTTP/1.1, with a Host although the client sent none."""
    async with world() as w:
        w.upstreams[0].serve(b"hello")
        client = await w.client()
        response = await client.ask(b"GET / HTTP/1.0\r\n\r\n")
        assert response.body == b"hello"
        assert response[b"connection"] == b"close"
        assert await client.receive_all() == b""
        request = w.upstreams[0].requests[0]
        assert request.start == b"GET / HTTP/1.1"
        assert request[b"host"] == b"10.1.0.1:9000"
        assert request[b"via"] == b"1.0 trio-proxy"


async def test_an_http10_client_can_have_keep_alive() -> None:
    async with world() as w:
        w.upstreams[0].serve()
        client = await w.client()
        for _ in range(2):
            response = await client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert response.body == b"ok"
            assert response[b"connection"] == b"keep-alive"
    assert len(w.exchanges) == 2


@pytest.mark.parametrize("connection", [b"", b"Connection: keep-alive\r\n"])
async def test_a_chunked_response_is_dechunked_for_an_http10_client(connection: bytes) -> None:
    """It ends with the connection, whatever the client wished; trailers are dropped."""
    async with world() as w:
        client = await w.client()
        await client.send(b"GET / HTTP/1.0\r\n" + connection + b"\r\n")
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await upstream.send(b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n")
        response = await client.read_response()
        assert b"transfer-encoding" not in response
        assert b"content-length" not in response
        assert response[b"connection"] == b"close"
        assert response.body == b"hello world"


async def test_an_http10_upstream_is_understood() -> None:
    """Its answer ends with the connection; the client's is kept all the same."""
    async with world() as w:
        client = await w.client()
        for _ in range(2):
            await client.send(GET)
            upstream = await w.upstreams[0].accept()
            await upstream.read_request()
            await upstream.send(b"HTTP/1.0 200 OK\r\n\r\nold")
            upstream.close()
            response = await client.read_response()
            assert response.start == b"HTTP/1.1 200 OK"
            assert response.body == b"old"


# Answers without a body


async def test_an_answer_to_head_keeps_its_length_and_has_no_body() -> None:
    async with world() as w:
        w.upstreams[0].serve(b"x" * 5000)
        client = await w.client()
        response = await client.ask(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert response[b"content-length"] == b"5000"
        assert (await client.ask(GET)).body == b"x" * 5000
        assert len(w.upstreams[0].peers) == 1


@pytest.mark.parametrize("fields", [b"", b"Transfer-Encoding: chunked\r\n"])
async def test_an_answer_to_head_without_a_length_gets_none(fields: bytes) -> None:
    """No body follows, and both connections go on."""
    async with world() as w:
        client = await w.client()
        await client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n")
        assert b"content-length" not in await client.read_response(b"HEAD")
        await client.send(GET)
        await upstream.read_request()
        await upstream.respond(b"next")
        assert (await client.read_response()).body == b"next"


@pytest.mark.parametrize(
    ("status", "length"), [(b"204 No Content", None), (b"304 Not Modified", b"1234")]
)
async def test_204_and_304_have_no_body(status: bytes, length: bytes | None) -> None:
    """A 304 may say how long the body would have been."""
    async with world() as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        declared = b"Content-Length: " + length + b"\r\n" if length else b""
        await upstream.send(b"HTTP/1.1 " + status + b"\r\n" + declared + b"\r\n")
        response = await client.read_response()
        assert response.start == b"HTTP/1.1 " + status
        assert response.all(b"content-length") == ([length] if length else [])
        assert b"transfer-encoding" not in response
        await client.send(GET)
        await upstream.read_request()
        await upstream.respond(b"next")
        assert (await client.read_response()).body == b"next"


async def test_an_empty_body_is_passed_on_as_such() -> None:
    async with world() as w:
        w.upstreams[0].serve(b"")
        client = await w.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        assert (await client.read_response())[b"content-length"] == b"0"
        assert w.upstreams[0].requests[0][b"content-length"] == b"0"
