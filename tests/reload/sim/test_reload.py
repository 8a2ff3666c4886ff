"""Reloads under traffic: nobody is cut, and the next request finds the new settings."""

from __future__ import annotations

import trio

from support.scenario import (
    GET,
    ending,
    now_ms,
    only,
    post,
)
from support.world import World, settings_for, world
from trio_proxy.http.phases import Phase
from trio_proxy.settings import HeaderSettings, Limits, LoggingSettings


async def test_continuous_traffic_does_not_notice_many_reloads() -> None:
    """Keep-alive clients and new ones are served all the while, and none is cut."""
    limits = [Limits(max_conns_per_upstream=n, max_client_conns=99 + n) for n in (3, 7, 5)]

    async def keep_asking(w: World, pause: float) -> None:
        client = await w.client()
        while now_ms() < 5000:
            assert (await client.ask(GET)).body == b"ok"
            await trio.sleep(pause)
        client.close()

    async def keep_connecting(w: World) -> None:
        while now_ms() < 5000:
            client = await w.client()
            assert (await client.ask(post(3) + b"abc")).body == b"ok"
            client.close()
            await trio.sleep(0.013)

    async with world(upstreams=2, timeouts=only(), limits=limits[0]) as w:
        for upstream in w.upstreams:
            upstream.serve(delay=0.02)
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(keep_asking, w, number / 100)
            nursery.start_soon(keep_connecting, w)
            for number in range(100):
                await trio.sleep(0.045)
                both = settings_for(
                    2, timeouts=only(read_ms=1000 + number), limits=limits[number % 3]
                )
                await w.reload(both)
        assert w.proxy.stats.requests_total > 500
    assert {ending(exchange) for exchange in w.exchanges} == {(200, None, None, Phase.STREAM)}


async def test_the_next_request_has_the_new_deadlines_and_the_old_one_its_own() -> None:
    """On one connection."""
    async with world(timeouts=only(read_ms=1000)) as w:
        client, other = await w.client(), await w.client()
        await client.send(GET)
        await w.upstreams[0].accept()
        await trio.sleep(0.1)
        await w.reload(settings_for(timeouts=only(read_ms=300)))
        await other.send(GET)
        await w.upstreams[0].accept()
        assert (await other.read_response()).status == 504
        assert now_ms() == 400
        assert (await client.read_response()).status == 504
        assert now_ms() == 1000
        assert (await client.ask(GET)).status == 504
        assert now_ms() == 1300


async def test_the_next_request_has_the_new_limits() -> None:
    """Of heads and bodies; a body under way is measured by the old."""
    async with world(timeouts=only(), limits=Limits(max_body_bytes=10)) as w:
        client, other = await w.client(), await w.client()
        w.upstreams[0].serve()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await trio.sleep(0.1)
        await w.reload(settings_for(limits=Limits(max_body_bytes=5, max_header_fields=2)))
        await client.send(b"8\r\n12345678\r\n0\r\n\r\n")
        assert (await client.read_response()).status == 200
        assert (
            await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\n\r\n")
        ).status == 431
        assert (await other.ask(post(8))).status == 413


async def test_the_next_request_has_the_new_header_rules() -> None:
    """The answer to an exchange under way still keeps the old ones."""
    shows = HeaderSettings(expose_upstream=True, forwarded=True)
    async with world(timeouts=only(read_ms=1000)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        assert b"forwarded" not in await upstream.read_request()
        await w.reload(settings_for(timeouts=only(read_ms=1000), headers=shows))
        assert (await client.read_response())[b"proxy-status"] == (
            b"trio-proxy; error=connection_read_timeout"
        )
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        assert b"forwarded" in await upstream.read_request()
        assert (await client.read_response())[b"proxy-status"] == (
            b'trio-proxy; error=connection_read_timeout; next-hop="10.1.0.1:9000"'
        )


async def test_the_access_log_can_be_switched() -> None:
    """``logging.access`` holds for exchanges that end after the reload."""
    off = LoggingSettings(access=False)
    async with world(timeouts=only(), logging=off) as w:
        w.upstreams[0].serve()
        client = await w.client()
        await client.ask(GET)
        assert w.exchanges == []
        await w.reload(settings_for(timeouts=only(), logging=LoggingSettings()))
        await client.ask(GET)
        assert len(w.exchanges) == 1
        await w.reload(settings_for(timeouts=only(), logging=off))
        await client.ask(GET)
        assert len(w.exchanges) == 1
