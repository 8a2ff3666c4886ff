"""The total deadline covers every phase, to the millisecond, and blames whoever was waited for."""

from __future__ import annotations

import trio

from support.scenario import (
    GET,
    OK,
    SWITCH,
    UPGRADE,
    drip,
    ending,
    how_it_ends,
    now_ms,
    only,
    post,
    refusal,
    timeouts,
    upstream_errors,
)
from support.world import world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.settings import Limits


async def test_total_ends_a_response_that_drips() -> None:
    """A byte now and then keeps read_ms at bay, not total_ms."""
    async with world(timeouts=only(read_ms=400, total_ms=1000)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        drip(w, upstream, b"x", 0.3)
        await client.read_head()
        assert await how_it_ends(client) == (b"xxxx", "eof")
        assert now_ms() == 1000
    assert ending(w.exchanges[0]) == (200, Reason.TOTAL_TIMEOUT, Source.UPSTREAM, Phase.STREAM)
    assert timeouts(w) == {"total": 1}
    assert upstream_errors(w) == {"timeout": 1}


async def test_total_ends_a_head_that_drips() -> None:
    """504 at total_ms that names the phase; the next request is served."""
    async with world(timeouts=only(read_ms=400, total_ms=1000)) as w:
        client = await w.client()
        await client.send(GET)
        drip(w, await w.upstreams[0].accept(), b"H", 0.3)
        assert refusal(await client.read_response()) == (
            504,
            b"trio-proxy; error=http_response_timeout",
            b"504 Gateway Timeout: total deadline passed (phase: await_head)\n",
        )
        assert now_ms() == 1000
        await client.send(GET)
        await (await w.upstreams[0].accept()).send(OK)
        assert (await client.read_response()).body == b"ok"
    assert timeouts(w) == {"total": 1}


async def test_total_covers_connecting() -> None:
    """504 in the phase connect."""
    async with world(timeouts=only(total_ms=250)) as w:
        w.net.blackhole(w.upstreams[0].name)
        client = await w.client()
        assert b"total deadline passed (phase: connect)" in (await client.ask(GET)).body
        assert now_ms() == 250
    assert ending(w.exchanges[0]) == (504, Reason.TOTAL_TIMEOUT, Source.UPSTREAM, Phase.CONNECT)


async def test_total_covers_queueing() -> None:
    """504 in the phase pick, and no upstream has failed."""
    async with world(timeouts=only(total_ms=250), limits=Limits(max_conns_per_upstream=1)) as w:
        first, second = await w.client(), await w.client()
        await first.send(UPGRADE)
        await (await w.upstreams[0].accept()).send(SWITCH)  # a tunnel has no total
        await trio.sleep(0.1)
        response = await second.ask(GET)
        assert b"total deadline passed (phase: pick)" in response.body
        assert now_ms() == 350
    waited = w.exchanges[0]
    assert ending(waited) == (504, Reason.TOTAL_TIMEOUT, Source.PROXY, Phase.PICK)
    assert waited.tries == []


async def test_total_ends_an_upload_that_drips() -> None:
    """The client is the slow one: 504 at total_ms, and the upstream is not to blame."""
    async with world(timeouts=only(body_ms=400, total_ms=1000)) as w:
        client = await w.client()
        await client.send(post(1000))
        drip(w, client, b"x", 0.3)
        upstream = await w.upstreams[0].accept()
        assert b"total deadline passed (phase: send)" in (await client.read_response()).body
        assert now_ms() == 1000
        assert (await how_it_ends(upstream))[0].endswith(b"\r\n\r\nxxxx")
    assert ending(w.exchanges[0]) == (504, Reason.TOTAL_TIMEOUT, Source.CLIENT, Phase.SEND)
    assert upstream_errors(w) == {}
    assert timeouts(w) == {"total": 1}


async def test_total_ends_a_response_that_the_client_takes_slowly() -> None:
    """The connection is cut at total_ms, and the upstream is not to blame."""
    async with world(timeouts=only(write_ms=400, total_ms=1000)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n")
        await client.read_head()
        drip(w, upstream, bytes(65536), 0)
        for _ in range(5):
            await trio.sleep(0.25)
            if now_ms() < 1000:
                await client.receive_some(1000)
    assert ending(w.exchanges[0]) == (200, Reason.TOTAL_TIMEOUT, Source.CLIENT, Phase.STREAM)
    assert round(w.exchanges[0].ended_at, 6) == 1.0
    assert upstream_errors(w) == {}
