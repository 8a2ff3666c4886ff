"""Switching protocols: a tunnel that loses nothing, half-close, and an idle deadline."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from support.conversation import Speaker
from support.scenario import started
from support.world import GET, World, world
from trio_proxy.http.errors import Reason
from trio_proxy.settings import Timeouts

UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: abc\r\n\r\n"
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: def\r\n\r\n"
)


async def a_tunnel(w: World) -> tuple[Speaker, Speaker]:
    """Both ends of a fresh tunnel."""
    client, upstream = await started(w, UPGRADE)
    await upstream.send(SWITCHING)
    await client.read_head()
    return client, upstream


async def test_a_tunnel_carries_bytes_both_ways() -> None:
    async with world() as w:
        client = await w.client()
        await client.send(UPGRADE)
        upstream = await w.upstreams[0].accept()
        request = await upstream.read_request()
        assert request[b"connection"].lower() == b"upgrade"
        assert request[b"upgrade"] == b"websocket"
        assert request[b"sec-websocket-key"] == b"abc"
        await upstream.send(SWITCHING)
        head = await client.read_head()
        assert head.status == 101
        assert head[b"connection"].lower() == b"upgrade"
        assert head[b"upgrade"] == b"websocket"
        assert head[b"sec-websocket-accept"] == b"def"
        assert b"content-length" not in head
        assert b"transfer-encoding" not in head
        for n in range(3):
            await client.send(b"ping %d" % n)
            assert await upstream.receive_exactly(6) == b"ping %d" % n
            await upstream.send(b"pong %d" % n)
            assert await client.receive_exactly(6) == b"pong %d" % n
        client.close()
        assert await upstream.receive_all() == b""
        upstream.close()
    assert (w.exchanges[0].status, w.exchanges[0].error) == (101, None)


async def test_bytes_that_were_read_already_go_first() -> None:
    """In both directions: what came in one piece with the heads."""
    async with world() as w:
        client = await w.client()
        await client.send(UPGRADE + b"early ")
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await trio.sleep(1)
        assert not upstream.stream.is_readable()
        await upstream.send(SWITCHING + b"soon ")
        await client.read_head()
        assert await client.receive_exactly(5) == b"soon "
        assert await upstream.receive_exactly(6) == b"early "
        await client.send(b"late")
        await upstream.send(b"later")
        assert await upstream.receive_exactly(4) == b"late"
        assert await client.receive_exactly(5) == b"later"


async def test_bytes_sent_while_the_upgrade_is_under_way_are_kept() -> None:
    async with world() as w:
        client = await w.client()
        await client.send(UPGRADE + b"one ")
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await client.send(b"two ")
        await trio.sleep(1)
        await upstream.send(SWITCHING)
        assert await upstream.receive_exactly(8) == b"one two "


@pytest.mark.parametrize("first", ["client", "upstream"])
async def test_a_half_close_is_passed_on(first: str) -> None:
    """The other direction goes on until it ends as well."""
    async with world() as w:
        client, upstream = await a_tunnel(w)
        one, other = (client, upstream) if first == "client" else (upstream, client)
        await one.send(b"that is all")
        one.send_eof()
        assert await other.receive_all() == b"that is all"
        for _ in range(3):
            await trio.sleep(10)
            await other.send(b"more ")
            assert await one.receive_exactly(5) == b"more "
        assert w.exchanges == []
        other.send_eof()
        assert await one.receive_all() == b""
        await trio.sleep(1)
        assert w.proxy_streams() == []
    assert w.exchanges[0].error is None


@pytest.mark.parametrize("first", ["client", "upstream"])
async def test_a_reset_ends_both_sides(first: str) -> None:
    async with world() as w:
        client, upstream = await a_tunnel(w)
        one, other = (client, upstream) if first == "client" else (upstream, client)
        one.abort()
        await trio.sleep(1)
        assert w.proxy_streams() == []
        with suppress(ConnectionResetError):
            assert await other.receive_all() == b""
    assert len(w.exchanges) == 1


async def test_the_tunnel_idle_deadline() -> None:
    """Bytes either way put it off; then both sides are closed."""
    async with world(timeouts=Timeouts(tunnel_idle_ms=5000)) as w:
        client, upstream = await a_tunnel(w)
        start = trio.current_time()
        for _ in range(3):
            await trio.sleep(4)
            await client.send(b"up")
            await trio.sleep(4)
            await upstream.send(b"down")
        assert await client.receive_all() == b"down" * 3
        assert trio.current_time() - start == pytest.approx(29)
        assert await upstream.receive_all() == b"up" * 3
        assert trio.current_time() - start == pytest.approx(29)
    error = w.exchanges[0].error
    assert (w.exchanges[0].status, error and error.reason) == (101, Reason.TUNNEL_IDLE)
    assert error.detail == "tunnel_idle deadline of 5000 ms passed"


async def test_no_other_deadline_ends_a_tunnel() -> None:
    """Neither total nor read nor idle: they are for requests."""
    timeouts = Timeouts(
        total_ms=100, read_ms=100, idle_ms=100, body_ms=100, write_ms=100, head_ms=100
    )
    async with world(timeouts=timeouts) as w:
        client, upstream = await a_tunnel(w)
        await trio.sleep(100)
        await client.send(b"still")
        assert await upstream.receive_exactly(5) == b"still"
        await upstream.send(b"here")
        assert await client.receive_exactly(4) == b"here"


async def test_a_tunnel_does_not_pile_up_bytes() -> None:
    """A side that does not read stops the other."""
    async with world() as w:
        client, upstream = await a_tunnel(w)
        sent = 0
        while taken := client.stream.send_nowait(b"x" * 65536):
            sent += taken
            await trio.sleep(1)
        assert sent < 6 * 65536
        assert await upstream.receive_exactly(sent) == b"x" * sent


async def test_a_refused_upgrade_is_an_ordinary_response() -> None:
    """The connection goes on, also with what the client has pipelined behind."""
    async with world() as w:
        client = await w.client()
        await client.send(UPGRADE + GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.respond(b"no", status=403)
        response = await client.read_response()
        assert (response.status, response.body) == (403, b"no")
        request = await upstream.read_request()
        assert request.start == b"GET / HTTP/1.1"
        assert b"upgrade" not in request
        await upstream.respond(b"yes")
        assert (await client.read_response()).body == b"yes"


@pytest.mark.parametrize(
    "upgrade",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket, H2C\r\n",
        b"Connection: Upgrade\r\nUpgrade: h2c/1\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: Upgrade\r\n",
    ],
)
async def test_what_is_no_proper_upgrade_is_not_forwarded(upgrade: bytes) -> None:
    """h2c in any disguise, and halves of an upgrade; the request itself goes through."""
    async with world() as w:
        w.upstreams[0].serve()
        client = await w.client()
        response = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + upgrade + b"\r\n")
        assert response.status == 200
        request = w.upstreams[0].requests[0]
        for name in (b"upgrade", b"connection", b"http2-settings"):
            assert name not in request


async def test_an_http10_client_cannot_upgrade() -> None:
    async with world() as w:
        w.upstreams[0].serve()
        client = await w.client()
        await client.ask(b"GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert b"upgrade" not in w.upstreams[0].requests[0]


@pytest.mark.parametrize(
    ("request_head", "answer"),
    [
        (GET, SWITCHING),
        (UPGRADE, SWITCHING.replace(b": websocket", b": mqtt")),
        (UPGRADE, SWITCHING.replace(b": websocket", b": websocket, h2c")),
        (UPGRADE, SWITCHING.replace(b"Upgrade: websocket\r\n", b"")),
    ],
    ids=["not asked for", "another protocol", "one too many", "no protocol"],
)
async def test_a_101_that_was_not_asked_for_is_a_502(request_head: bytes, answer: bytes) -> None:
    """And what the upstream sent behind it reaches nobody."""
    async with world() as w:
        client = await w.client()
        await client.send(request_head)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(answer + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        assert (await client.read_response()).status == 502
        await client.send(GET)
        fresh = await w.upstreams[0].accept()
        await fresh.read_request()
        await fresh.respond(b"good")
        assert (await client.read_response()).body == b"good"
    error = w.exchanges[0].error
    assert error is not None
    assert error.reason is Reason.UPGRADE_FAILED


async def test_one_of_several_protocols_can_be_chosen() -> None:
    async with world() as w:
        client = await w.client()
        await client.send(UPGRADE.replace(b"Upgrade: websocket", b"Upgrade: foo/2, websocket"))
        upstream = await w.upstreams[0].accept()
        assert (await upstream.read_request())[b"upgrade"] == b"foo/2, websocket"
        await upstream.send(SWITCHING + b"hello")
        assert (await client.read_head())[b"upgrade"] == b"websocket"
        assert await client.receive_exactly(5) == b"hello"
