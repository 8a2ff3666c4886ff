"""Answers to unfinished uploads, and in which of two formats the proxy's own answers come."""

from __future__ import annotations

import json

import pytest

from support.scenario import post
from support.world import GET, world

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
UNFINISHED = [post(10) + b"abc", CHUNKED + b"3\r\nabc\r\n", CHUNKED + b"3\r\nabc\r\n0\r\n"]
FINISHED = [post(3) + b"abc", CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", post(0), GET]


@pytest.mark.parametrize("request_bytes", UNFINISHED)
@pytest.mark.parametrize("status", [200, 204, 401])
async def test_an_early_answer_is_the_last(request_bytes: bytes, status: int) -> None:
    """It says so, though the upstream does not, and then the connection ends."""
    async with world() as w:
        client = await w.client()
        await client.send(request_bytes)
        upstream = await w.upstreams[0].accept()
        await upstream.read_head()
        if status == 204:
            await upstream.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        else:
            await upstream.respond(status=status)
        response = await client.read_response()
        assert response.status == status
        assert response[b"connection"] == b"close"
        assert await client.receive_all() == b""
        assert w.proxy.stats.upstream("default", w.upstreams[0].name).idle == 0
    assert w.exchanges[0].error is None


@pytest.mark.parametrize("request_bytes", FINISHED)
async def test_an_answer_to_a_whole_upload_is_not(request_bytes: bytes) -> None:
    """Nothing about the end, and the next request on the same connection is answered."""
    async with world() as w:
        w.upstreams[0].serve()
        client = await w.client()
        for _ in range(3):
            response = await client.ask(request_bytes)
            assert response.status == 200
            assert b"connection" not in response
        assert len(w.upstreams[0].peers) == 1


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (b"application/json", "json"),
        (b"application/problem+json", "json"),
        (b"application/json, text/plain;q=0.5", "json"),
        (b"APPLICATION/JSON", "json"),
        (b"text/html;q=0.2, application/json ; q=0.9", "json"),
        (b"*/*", "text"),
        (b"", "text"),
        (b"application/*", "text"),
        (b"application/json;q=0", "text"),
        (b"application/json;Q=0.0", "text"),
        (b"text/html, application/json;q=0.1", "text"),
        (b"application/json;q=nonsense", "text"),
        (b"application/jsonp", "text"),
    ],
)
async def test_a_refusal_is_json_where_accept_prefers_it(accept: bytes, expected: str) -> None:
    """By name, and no less than text; everybody else gets a line of text."""
    async with world() as w:
        w.upstreams[0].close()
        answer = await (await w.client()).ask(GET[:-2] + b"Accept: " + accept + b"\r\n\r\n")
        assert answer.status == 502
        kind = answer[b"content-type"]
        if expected == "json":
            assert kind == b"application/json"
            assert json.loads(answer.body)["status"] == 502
        else:
            assert kind.startswith(b"text/plain")
            assert answer.body.startswith(b"502 Bad Gateway: ")
