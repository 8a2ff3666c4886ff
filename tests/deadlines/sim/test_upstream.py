"""Deadlines of the upstream's side: connect, read, write and queue, to the millisecond."""

from __future__ import annotations

import trio

from support.scenario import (
    GET,
    OK,
    connections,
    ending,
    how_it_ends,
    now_ms,
    only,
    post,
    refusal,
    send_quietly,
    timeouts,
    upstream_errors,
)
from support.world import world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.settings import Limits
from trio_proxy.testing import SimNet, SimStream

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_connect_to_a_black_hole() -> None:
    """504 at connect_ms; the client's connection serves the next request."""
    async with world(timeouts=only(connect_ms=300)) as w:
        w.net.blackhole(w.upstreams[0].name)
        client = await w.client()
        assert refusal(await client.ask(GET)) == (
            504,
            b"trio-proxy; error=connection_timeout",
            b"504 Gateway Timeout: connect deadline passed (phase: connect)\n",
        )
        assert now_ms() == 300
        assert connections(w) == (0, 0)
        w.net.heal(w.upstreams[0].name)
        w.upstreams[0].serve()
        assert (await client.ask(GET)).body == b"ok"
    failed, fine = w.exchanges
    assert ending(failed) == (504, Reason.CONNECT_TIMEOUT, Source.UPSTREAM, Phase.CONNECT)
    assert failed.error is not None
    assert failed.error.detail == "connect deadline of 300 ms passed"
    assert [one.outcome for one in failed.tries] == ["connect_timeout"]
    assert ending(fine) == (200, None, None, Phase.STREAM)
    assert timeouts(w) == {"connect": 1}
    assert upstream_errors(w) == {"timeout": 1}


class SlowNames(SimNet):
    """A network on which looking up an upstream's name takes ten seconds."""

    async def dial(self, address: object, *, source: str = "127.0.0.1") -> SimStream:
        if source == "127.0.0.1":
            await trio.sleep(10)
        return await super().dial(address, source=source)  # type: ignore[arg-type]


async def test_connect_with_a_slow_name_look_up() -> None:
    """The look-up is part of connecting: 504 at connect_ms."""
    async with world(network=SlowNames(), timeouts=only(connect_ms=700)) as w:
        client = await w.client()
        assert (await client.ask(GET)).status == 504
        assert now_ms() == 700
    assert ending(w.exchanges[0]) == (504, Reason.CONNECT_TIMEOUT, Source.UPSTREAM, Phase.CONNECT)


async def test_read_before_the_head() -> None:
    """504 at read_ms after the request was sent; the client's connection stays usable."""
    async with world(timeouts=only(read_ms=400)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        assert refusal(await client.read_response()) == (
            504,
            b"trio-proxy; error=connection_read_timeout",
            b"504 Gateway Timeout: read deadline passed (phase: await_head)\n",
        )
        assert now_ms() == 400
        assert await how_it_ends(upstream) == (b"", "eof")
        await client.send(GET)
        await (await w.upstreams[0].accept()).send(OK)
        assert (await client.read_response()).body == b"ok"
    failed = w.exchanges[0]
    assert ending(failed) == (504, Reason.READ_TIMEOUT, Source.UPSTREAM, Phase.AWAIT_HEAD)
    assert [one.outcome for one in failed.tries] == ["read_timeout"]
    assert timeouts(w) == {"read": 1}
    assert upstream_errors(w) == {"timeout": 1}


async def test_read_starts_again_with_each_byte_of_the_head() -> None:
    """A head that drips within read_ms a byte is waited for; then the silence counts."""
    async with world(timeouts=only(read_ms=400)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        for byte in b"HTTP/1.1":
            await trio.sleep(0.3)
            await upstream.send(bytes((byte,)))
        assert (await client.read_response()).status == 504
        assert now_ms() == 8 * 300 + 400


async def test_read_between_pieces_of_a_body() -> None:
    """The client gets what came and sees the cut, at read_ms after the last piece."""
    async with world(timeouts=only(read_ms=400)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1")
        assert (await client.read_head()).status == 200
        await trio.sleep(0.3)
        await upstream.send(b"234")
        assert await how_it_ends(client) == (b"1234", "eof")
        assert now_ms() == 700
    assert ending(w.exchanges[0]) == (200, Reason.READ_TIMEOUT, Source.UPSTREAM, Phase.STREAM)
    assert [one.outcome for one in w.exchanges[0].tries] == ["read_timeout"]
    assert upstream_errors(w) == {"timeout": 1}
    assert timeouts(w) == {"read": 1}


async def test_read_between_chunks() -> None:
    """A chunked body that stops is cut without its last chunk."""
    async with world(timeouts=only(read_ms=400)) as w:
        client = await w.client()
        await client.send(GET)
        await (await w.upstreams[0].accept()).send(CHUNKED + b"3\r\nabc\r\n")
        assert (await client.read_head())[b"transfer-encoding"] == b"chunked"
        assert await how_it_ends(client) == (b"3\r\nabc\r\n", "eof")
        assert now_ms() == 400


async def test_read_of_a_body_that_ends_with_the_connection() -> None:
    """An HTTP/1.0 client could take an end for the whole, so it gets a reset."""
    async with world(timeouts=only(read_ms=400)) as w:
        client = await w.client()
        await client.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        await (await w.upstreams[0].accept()).send(CHUNKED + b"3\r\nabc\r\n")
        await client.read_head()
        assert await how_it_ends(client) == (b"abc", "reset")
        assert now_ms() == 400


async def test_write_to_an_upstream_that_takes_nothing() -> None:
    """504 at write_ms, in the phase in which the request is sent."""
    async with world(timeouts=only(write_ms=500)) as w:
        client = await w.client()
        w.helpers.start_soon(send_quietly, client, post(10_000_000) + bytes(300_000))
        upstream = await w.upstreams[0].accept()
        await upstream.read_head()
        assert refusal(await client.read_response()) == (
            504,
            b"trio-proxy; error=connection_write_timeout",
            b"504 Gateway Timeout: write deadline passed (phase: send)\n",
        )
        assert now_ms() == 500
    assert ending(w.exchanges[0]) == (504, Reason.WRITE_TIMEOUT, Source.UPSTREAM, Phase.SEND)
    assert [one.outcome for one in w.exchanges[0].tries] == ["write_timeout"]
    assert timeouts(w) == {"write": 1}
    assert upstream_errors(w) == {"timeout": 1}


async def test_a_stalled_upload_does_not_hide_the_answer() -> None:
    """An answer before write_ms is delivered whole, though nobody takes the body."""
    async with world(timeouts=only(write_ms=500, read_ms=10_000)) as w:
        client = await w.client()
        w.helpers.start_soon(send_quietly, client, post(10_000_000) + bytes(300_000))
        upstream = await w.upstreams[0].accept()
        await trio.sleep(0.4)
        await upstream.send(CHUNKED + b"5\r\nfirst\r\n")
        await trio.sleep(5)
        await upstream.send(b"4\r\nlast\r\n0\r\n\r\n")
        assert (await client.read_response()).body == b"firstlast"
        assert now_ms() == 5400
    assert ending(w.exchanges[0])[:2] == (200, None)
    assert timeouts(w) == {}
    assert upstream_errors(w) == {}


async def test_a_wait_in_the_queue_that_lasts_too_long() -> None:
    """503 with Retry-After at queue_ms; its connection and the upstream are unharmed."""
    limits = Limits(max_conns_per_upstream=1, queue_ms=350)
    async with world(timeouts=only(), limits=limits) as w:
        first, second = await w.client(), await w.client()
        await first.send(GET)
        upstream = await w.upstreams[0].accept()
        await trio.sleep(0.1)
        response = await second.ask(GET)
        assert now_ms() == 450
        assert refusal(response) == (
            503,
            b"trio-proxy; error=connection_limit_reached",
            b"503 Service Unavailable: no upstream connection came free (phase: pick)\n",
        )
        assert response[b"retry-after"] == b"1"
        await upstream.send(OK)
        assert (await first.read_response()).body == b"ok"
        await upstream.read_request()
        await second.send(GET)
        await upstream.read_request()
        await upstream.send(OK)
        assert (await second.read_response()).body == b"ok"
    assert ending(w.exchanges[0]) == (503, Reason.QUEUE_TIMEOUT, Source.PROXY, Phase.PICK)
    assert w.proxy.stats.rejected[Reason.QUEUE_TIMEOUT] == 1
    assert upstream_errors(w) == {}
