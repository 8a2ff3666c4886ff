"""The answers that the proxy makes itself: short, honest, and silent about what lies behind."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime

import pytest
import trio

from support.conversation import Message
from support.world import GET, World, settings_for, world
from trio_proxy.settings import HeaderSettings, Limits, Timeouts

JSON = b"GET / HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n"


async def refused(w: World, request: bytes = GET) -> Message:
    """The answer while nobody listens at the upstream."""
    w.upstreams[0].close()
    return await (await w.client()).ask(request)


async def test_a_refusal_is_one_line_of_plain_text() -> None:
    """With the phase, and with nothing of the network behind the proxy."""
    async with world() as w:
        response = await refused(w)
        assert response.start == b"HTTP/1.1 502 Bad Gateway"
        assert response[b"content-type"] == b"text/plain; charset=utf-8"
        assert response[b"via"] == b"1.1 trio-proxy"
        assert response[b"proxy-status"] == b"trio-proxy; error=connection_refused"
        assert b"retry-after" not in response
        assert response.body.endswith(b"(phase: connect)\n")
        assert response.body.count(b"\n") == 1
        parsedate_to_datetime(response[b"date"].decode())
        trace_id = response[b"x-trace-id"]
        for secret in (b"10.1.0.1", b"9000", b"Errno", b"Traceback", b"trio."):
            assert secret not in response.raw + response.body
    assert w.exchanges[0].trace_id.encode() == trace_id


async def test_a_refusal_is_json_if_accept_asks_for_it() -> None:
    async with world() as w:
        response = await refused(w, JSON)
        assert response[b"content-type"] == b"application/json"
        facts = json.loads(response.body)
        assert facts["status"] == 502
        assert facts["phase"] == "connect"
        assert facts["trace_id"].encode() == response[b"x-trace-id"]
        assert b"10.1.0.1" not in response.body


async def test_the_upstream_is_named_only_if_told_to() -> None:
    async with world(headers=HeaderSettings(expose_upstream=True)) as w:
        response = await refused(w)
        expected = b'trio-proxy; error=connection_refused; next-hop="10.1.0.1:9000"'
        assert response[b"proxy-status"] == expected


async def test_a_refusal_keeps_the_connection() -> None:
    async with world() as w:
        w.upstreams[0].close()
        client = await w.client()
        for _ in range(3):
            assert (await client.ask(GET)).status == 502
    assert len(w.exchanges) == 3


async def test_a_refusal_of_head_has_no_body() -> None:
    """And the next answer on the connection is found where it begins."""
    async with world() as w:
        w.upstreams[0].close()
        client = await w.client()
        response = await client.ask(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert response.status == 502
        assert (await client.ask(GET)).status == 502


async def test_a_refusal_to_an_http10_client() -> None:
    async with world() as w:
        w.upstreams[0].close()
        client = await w.client()
        for _ in range(2):
            response = await client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert response[b"connection"] == b"keep-alive"
        assert (await client.ask(b"GET / HTTP/1.0\r\n\r\n"))[b"connection"] == b"close"
        assert await client.receive_all() == b""


async def test_a_503_says_when_to_come_again() -> None:
    """The queue is full."""
    async with world(limits=Limits(max_conns_per_upstream=1, max_queue=0)) as w:
        first = await w.client()
        await first.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        response = await (await w.client()).ask(GET)
        assert response.status == 503
        assert int(response[b"retry-after"]) >= 1
        assert response[b"proxy-status"] == b"trio-proxy; error=connection_limit_reached"
        assert b"(phase: pick)" in response.body
        await upstream.respond()
        assert (await first.read_response()).status == 200


async def test_the_deadline_that_ran_out_is_named() -> None:
    async with world(timeouts=Timeouts(read_ms=2000)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        response = await client.read_response()
        assert response.status == 504
        assert b"read deadline" in response.body
        assert response[b"proxy-status"] == b"trio-proxy; error=connection_read_timeout"
        assert await upstream.receive_all() == b""


# Bodies that are too large


async def test_a_declared_body_that_is_too_large_is_refused_at_once() -> None:
    """No upstream hears of it."""
    async with world(limits=Limits(max_body_bytes=10)) as w:
        client = await w.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n")
        response = await client.read_response()
        assert response.status == 413
        assert response[b"connection"] == b"close"
        await client.send(b"x" * 11)
        client.send_eof()
        assert await client.receive_all() == b""
        assert w.upstreams[0].listener.waiting == 0


async def test_a_body_of_just_the_limit_is_passed_on() -> None:
    async with world(limits=Limits(max_body_bytes=10)) as w:
        w.upstreams[0].serve()
        client = await w.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n" + b"x" * 10)
        assert (await client.read_response()).status == 200
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await client.send(b"a\r\n" + b"x" * 10 + b"\r\n0\r\n\r\n")
        assert (await client.read_response()).status == 200


@pytest.mark.parametrize("pause", [0.0, 1.0])
async def test_a_chunked_body_that_grows_too_large_is_refused(pause: float) -> None:
    """In the middle of it; the upstream sees that it is not whole."""
    async with world(limits=Limits(max_body_bytes=10)) as w:
        client = await w.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await trio.sleep(pause)
        await client.send(b"8\r\n12345678\r\n")
        upstream = await w.upstreams[0].accept()
        await trio.sleep(pause)
        await client.send(b"8\r\n12345678\r\n")
        response = await client.read_response()
        assert response.status == 413
        assert await client.receive_all() == b""
        assert not (await upstream.receive_all()).endswith(b"0\r\n\r\n")
    (exchange,) = w.exchanges
    assert exchange.error is not None
    assert exchange.error.reason.slug == "body_too_large"
    assert exchange.tries[0].failure is None


async def test_a_refusal_is_not_destroyed_by_bytes_still_on_their_way() -> None:
    """A client that goes on sending gets the answer, not a reset."""
    async with world(limits=Limits(max_body_bytes=10)) as w:
        w.net.link(w.proxy.address, latency=0.05)
        client = await w.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n")
        for _ in range(6):
            await client.send(b"x" * 10_000)
            await trio.sleep(0.03)
        assert (await client.read_response()).status == 413


# Errors of the whole


async def test_a_reload_to_an_address_that_is_taken_changes_nothing() -> None:
    """And leaves nothing bound that was not before."""
    async with world() as w:
        taken = await w.net.listen("10.0.0.9:80")
        settings = settings_for(listen=["10.0.0.1:8080", "10.0.0.9:80"])
        with pytest.raises(OSError, match="in use"):
            await w.reload(settings)
        assert [str(address) for address in w.proxy.addresses] == ["10.0.0.1:80"]
        assert len(w.net.open_listeners) == 3
        taken.close()
        w.upstreams[0].serve()
        assert (await (await w.client()).ask(GET)).status == 200
