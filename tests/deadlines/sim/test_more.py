"""Pooled connections, tunnels, no deadlines at all, and budgets that travel in a header."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
import trio

from support.scenario import (
    GET,
    OK,
    SWITCH,
    UPGRADE,
    connections,
    ending,
    how_it_ends,
    now_ms,
    only,
    post,
    timeouts,
    until_ms,
    upstream_errors,
)
from support.world import CLIENT, world
from trio_proxy.http.errors import Reason
from trio_proxy.settings import HeaderSettings, Limits

HOUR = 3600


async def test_a_pooled_connection_is_closed_at_upstream_idle_ms() -> None:
    """Exactly then, counted from its last use."""
    async with world(timeouts=only(upstream_idle_ms=4000)) as w:
        w.upstreams[0].serve()
        client = await w.client()
        for _ in range(3):
            await client.ask(GET)
            await trio.sleep(3.999)
        (upstream,) = w.upstreams[0].peers
        assert connections(w) == (0, 1)
        await until_ms(2 * 3999 + 4000 - 0.001)
        assert connections(w) == (0, 1)
        await until_ms(2 * 3999 + 4000 + 0.001)
        assert connections(w) == (0, 0)
        assert upstream.stream.closed


async def test_each_pooled_connection_has_its_own_idle_deadline() -> None:
    """Reuse takes the newest, so the older one is closed first."""
    async with world(timeouts=only(upstream_idle_ms=4000)) as w:
        w.upstreams[0].serve(delay=0.5)
        one, other = await w.client(), await w.client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.ask, GET)
            await trio.sleep(0.1)
            await other.ask(GET)
        assert connections(w) == (0, 2)
        await until_ms(3000)
        await one.ask(GET)
        await until_ms(4500.001)
        assert connections(w) == (0, 1)
        await until_ms(7499.999)
        assert connections(w) == (0, 1)
        await until_ms(7500.001)
        assert connections(w) == (0, 0)


async def test_a_tunnel_without_bytes_ends_at_tunnel_idle_ms() -> None:
    """Bytes put it off, whichever way they go; neither total nor read runs in a tunnel."""
    async with world(timeouts=only(tunnel_idle_ms=1000, total_ms=1500, read_ms=500)) as w:
        client = await w.client()
        await client.send(UPGRADE)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(SWITCH)
        assert (await client.read_head()).status == 101
        for _ in range(3):
            await trio.sleep(0.9)
            await client.send(b"to")
            assert await upstream.receive_exactly(2) == b"to"
            await trio.sleep(0.9)
            await upstream.send(b"fro")
            assert await client.receive_exactly(3) == b"fro"
        assert await how_it_ends(client) == (b"", "eof")
        assert now_ms() == 6 * 900 + 1000
        assert await how_it_ends(upstream) == (b"", "eof")
        assert connections(w) == (0, 0)
    assert w.exchanges[0].status == 101
    assert timeouts(w) == {}
    assert upstream_errors(w) == {}


async def test_a_tunnel_with_a_peer_that_takes_nothing() -> None:
    """Bytes that cannot be passed on are no movement."""
    async with world(timeouts=only(tunnel_idle_ms=1000)) as w:
        client = await w.client()
        await client.send(UPGRADE)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(SWITCH)
        await client.read_head()
        try:
            while True:
                await client.send(bytes(1000))
        except OSError:
            assert now_ms() == 1000


async def test_no_deadline_at_all() -> None:
    """With 0 everywhere each step may take an hour."""
    limits = Limits(queue_ms=0, max_conns_per_upstream=1)
    async with world(timeouts=only(), limits=limits) as w:
        w.net.blackhole(w.upstreams[0].name)
        client, other = await w.client(), await w.client()
        await trio.sleep(HOUR)  # idle
        head = post(600_000)
        await client.send(head[:10])
        await trio.sleep(HOUR)  # the head
        await client.send(head[10:])
        await trio.sleep(HOUR)  # connecting
        await other.send(GET)  # will wait in the queue
        w.net.heal(w.upstreams[0].name)
        upstream = await w.upstreams[0].accept()
        await trio.sleep(HOUR)  # the body
        w.helpers.start_soon(client.send, bytes(600_000))
        await trio.sleep(HOUR)  # writing to the upstream
        assert len((await upstream.read_request()).body) == 600_000
        await trio.sleep(HOUR)  # reading the head
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n")
        await trio.sleep(HOUR)  # reading the body
        w.helpers.start_soon(upstream.send, bytes(500_000))
        await trio.sleep(HOUR)  # writing to the client
        assert len((await client.read_response()).body) == 500_000
        assert (await upstream.read_request()).start == b"GET / HTTP/1.1"
        await upstream.send(OK)
        assert (await other.read_response()).body == b"ok"
        await trio.sleep(HOUR)  # an idle pooled connection
        assert connections(w) == (0, 1)
        await client.send(UPGRADE)
        await upstream.read_request()
        await upstream.send(SWITCH)
        assert (await client.read_head()).status == 101
        await trio.sleep(HOUR)  # a silent tunnel
        await client.send(b"still there")
        assert await upstream.receive_exactly(11) == b"still there"
        client.close()
        upstream.close()
    assert [ending(exchange)[:2] for exchange in w.exchanges] == [
        (200, None),
        (200, None),
        (101, None),
    ]


def with_budget(value: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: a\r\nX-Budget-Ms: %s\r\n\r\n" % value


BUDGET = HeaderSettings(
    trusted_proxies=(ip_network(f"{CLIENT}/32"),), deadline_header="X-Budget-Ms"
)


@pytest.mark.parametrize(
    ("asked", "obeyed"),
    [(b"400", 400), (b"900", 900), (b"5000", 900), (b"soon", 900), (b"-1", 900), (b"", 900)],
)
async def test_a_trusted_peers_budget_shortens_total(asked: bytes, obeyed: int) -> None:
    """It never lengthens it, and what is no number is ignored. The rest goes to the upstream."""
    async with world(timeouts=only(total_ms=900), headers=BUDGET) as w:
        client = await w.client()
        await client.send(with_budget(asked))
        upstream = await w.upstreams[0].accept()
        assert (await upstream.read_request())[b"x-budget-ms"] == b"%d" % obeyed
        response = await client.read_response()
        assert b"total deadline passed (phase: await_head)" in response.body
        assert now_ms() == obeyed
    error = w.exchanges[0].error
    assert error is not None
    assert error.reason is Reason.TOTAL_TIMEOUT
    assert error.detail == f"total deadline of {obeyed} ms passed"


async def test_a_trusted_peers_budget_where_there_is_none() -> None:
    """total_ms = 0 with a budget from outside: the budget holds."""
    async with world(timeouts=only(), headers=BUDGET) as w:
        client = await w.client()
        await client.send(with_budget(b"250"))
        assert (await (await w.upstreams[0].accept()).read_request())[b"x-budget-ms"] == b"250"
        assert (await client.read_response()).status == 504
        assert now_ms() == 250
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        assert b"x-budget-ms" not in await upstream.read_request()
        await upstream.send(OK)
        assert (await client.read_response()).status == 200
    error = w.exchanges[0].error
    assert error is not None
    assert error.detail == "total deadline of 250 ms passed"


async def test_a_budget_that_is_used_up() -> None:
    """Nothing left is a 504 at once, or an answer that comes without a wait; never a hang."""
    async with world(timeouts=only(total_ms=900), headers=BUDGET) as w:
        client = await w.client()
        await client.send(with_budget(b"0"))
        assert (await client.read_response()).status == 504
        assert now_ms() == 0


async def test_a_strangers_budget_is_not_believed() -> None:
    """Nor passed on: the upstream is told the proxy's own."""
    async with world(timeouts=only(total_ms=900), headers=BUDGET) as w:
        client = await w.client(source="192.0.2.66")
        await client.send(with_budget(b"100"))
        upstream = await w.upstreams[0].accept()
        assert (await upstream.read_request())[b"x-budget-ms"] == b"900"
        assert (await client.read_response()).status == 504
        assert now_ms() == 900


async def test_what_the_queue_has_used_up_is_taken_off() -> None:
    """The upstream is told what is left when the request is sent."""
    limits = Limits(max_conns_per_upstream=1)
    async with world(timeouts=only(total_ms=900), headers=BUDGET, limits=limits) as w:
        first, second = await w.client(), await w.client()
        await first.send(GET)
        upstream = await w.upstreams[0].accept()
        assert (await upstream.read_request())[b"x-budget-ms"] == b"900"
        await second.send(with_budget(b"500"))
        await trio.sleep(0.2)
        await upstream.send(OK)
        assert (await upstream.read_request())[b"x-budget-ms"] == b"300"
        await upstream.send(OK)
        assert (await first.read_response()).status == 200
        assert (await second.read_response()).status == 200
