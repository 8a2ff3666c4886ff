"""Requests and answers on one client connection."""

from __future__ import annotations

from world import world

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


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
        await upstream.send(b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nX-B: 2\r\n\r\nok")
        response = await client.read_response()
        assert response.raw == (
            b"HTTP/1.1 200 Fine\r\nX-B: 2\r\nVia: 1.1 trio-proxy\r\n"
            b"X-Trace-ID: " + trace + b"\r\nContent-Length: 2\r\n\r\n"
        )
        assert response.body == b"ok"
    assert [exchange.status for exchange in w.exchanges] == [200]
