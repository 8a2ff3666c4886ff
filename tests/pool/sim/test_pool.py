"""The pool of upstream connections: which one is taken, which one is trusted, who waits."""

from __future__ import annotations

import pytest
import trio

from support.conversation import Speaker
from support.scenario import (
    GET,
    OK,
    connections,
    ending,
    now_ms,
    only,
    post,
    refusal,
    upstream_errors,
)
from support.world import World, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.settings import Limits
from trio_proxy.testing import SimNet


async def two_idle(w: World) -> tuple[Speaker, Speaker]:
    """Two pooled connections; the second was given back last."""
    clients = [await w.client(), await w.client()]
    peers = []
    for client in clients:
        await client.send(GET)
        peers.append(await w.upstreams[0].accept())
        await peers[-1].read_request()
    for client, peer in zip(clients, peers, strict=True):
        await peer.send(OK)
        await client.read_response()
    assert connections(w) == (0, 2)
    return peers[0], peers[1]


async def test_the_connection_that_was_used_last_is_reused_first() -> None:
    """LIFO, so that spare ones can grow old."""
    async with world(timeouts=only()) as w:
        oldest, newest = await two_idle(w)
        client = await w.client()
        for _ in range(3):
            await client.send(GET)
            await newest.read_request()
            await newest.send(OK)
            await client.read_response()
        assert not oldest.stream.is_readable()
        assert connections(w) == (0, 2)


async def test_each_upstream_in_turn() -> None:
    """In the order of the list, whichever client asks."""
    async with world(upstreams=3, timeouts=only()) as w:
        for number, upstream in enumerate(w.upstreams):
            upstream.serve(b"%d" % number)
        clients = [await w.client() for _ in range(2)]
        bodies = [(await clients[number % 2].ask(GET)).body for number in range(9)]
        assert bodies == [b"0", b"1", b"2"] * 3
        assert [len(upstream.peers) for upstream in w.upstreams] == [1, 1, 1]


async def test_a_full_upstream_is_passed_over() -> None:
    """Its turn goes to the next one that has room."""
    async with world(upstreams=2, timeouts=only(), limits=Limits(max_conns_per_upstream=1)) as w:
        w.upstreams[1].serve(b"1")
        stuck = await w.client()
        await stuck.send(GET)
        await (await w.upstreams[0].accept()).read_request()
        client = await w.client()
        assert [(await client.ask(GET)).body for _ in range(4)] == [b"1"] * 4


async def test_an_idle_connection_that_the_upstream_closed() -> None:
    """It is dropped at once, and the next request gets a fresh one."""
    async with world(timeouts=only()) as w:
        oldest, newest = await two_idle(w)
        newest.close()
        await trio.sleep(0.01)
        assert connections(w) == (0, 1)
        oldest.abort()
        await trio.sleep(0.01)
        assert connections(w) == (0, 0)
        client = await w.client()
        await client.send(GET)
        await (await w.upstreams[0].accept()).send(OK)
        assert (await client.read_response()).body == b"ok"
    assert upstream_errors(w) == {}


@pytest.mark.parametrize("junk", [b"junk", b"\r\n", OK, b"HTTP/1.1 408 Bye\r\n\r\n"])
async def test_an_idle_connection_with_bytes_that_nobody_asked_for(junk: bytes) -> None:
    """It is poisoned: closed instead of reused, and its bytes reach nobody."""
    async with world(timeouts=only()) as w:
        oldest, newest = await two_idle(w)
        await newest.send(junk)
        client = await w.client()
        await client.send(post(0))
        await oldest.read_request()
        assert connections(w) == (1, 0)
        await oldest.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright")
        assert (await client.read_response()).body == b"right"
        assert newest.stream.is_readable()
    assert upstream_errors(w) == {}


@pytest.mark.parametrize("junk", [b"junk", b"\r\n", OK])
async def test_bytes_behind_a_response(junk: bytes) -> None:
    """The answer is delivered, the connection is not kept."""
    async with world(timeouts=only()) as w:
        client = await w.client()
        await client.send(GET)
        await (await w.upstreams[0].accept()).send(OK + junk)
        assert (await client.read_response()).body == b"ok"
        assert connections(w) == (0, 0)
        await client.send(GET)
        await (await w.upstreams[0].accept()).send(OK)
        assert (await client.read_response()).body == b"ok"


async def stale(w: World, request: bytes, leave: str = "close") -> Speaker:
    """The upstream goes just when a request is on its way on a pooled connection."""
    client = await w.client()
    await client.send(GET)
    upstream = await w.upstreams[0].accept()
    await upstream.read_request()
    await upstream.send(OK)
    await client.read_response()
    await trio.sleep(1)
    await client.send(request)
    await trio.sleep(0.015)  # the request has left the proxy and has not arrived
    getattr(upstream, leave)()
    return client


def slow_upstream() -> SimNet:
    net = SimNet()
    net.link("10.1.0.1:9000", latency=0.02)
    return net


@pytest.mark.parametrize("leave", ["close", "abort"])
@pytest.mark.parametrize("request_bytes", [GET, GET.replace(b"GET", b"DELETE")])
async def test_a_stale_connection_costs_nothing(request_bytes: bytes, leave: str) -> None:
    """A request that can be repeated goes out again on a fresh connection, once."""
    async with world(network=slow_upstream(), timeouts=only()) as w:
        client = await stale(w, request_bytes, leave)
        upstream = await w.upstreams[0].accept()
        assert (await upstream.read_request()).start == request_bytes.split(b"\r\n")[0]
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"
        assert len(w.upstreams[0].peers) == 2
        assert connections(w) == (0, 1)
    assert ending(w.exchanges[1])[:2] == (200, None)
    assert [one.outcome for one in w.exchanges[1].tries] == ["stale", "200"]
    assert w.proxy.stats.retries == {"stale": 1}
    assert upstream_errors(w) == {}


@pytest.mark.parametrize("leave", ["close", "abort"])
@pytest.mark.parametrize("request_bytes", [post(0), post(3) + b"abc"])
async def test_a_stale_connection_and_a_request_that_cannot_be_repeated(
    request_bytes: bytes, leave: str
) -> None:
    """502: the upstream may have acted on it."""
    async with world(network=slow_upstream(), timeouts=only()) as w:
        client = await stale(w, request_bytes, leave)
        assert refusal(await client.read_response()) == (
            502,
            b"trio-proxy; error=connection_terminated",
            b"502 Bad Gateway: upstream closed the connection (phase: await_head)\n",
        )
        assert w.upstreams[0].listener.waiting == 0
        w.upstreams[0].serve()
        assert (await client.ask(GET)).body == b"ok"
    failed = w.exchanges[1]
    assert ending(failed) == (502, Reason.CONNECTION_RESET, Source.UPSTREAM, Phase.AWAIT_HEAD)
    assert w.proxy.stats.retries == {}
    assert upstream_errors(w) == {"other": 1}


async def test_a_second_failure_is_the_upstreams() -> None:
    """The fresh connection dies as well: 502, and no third try."""
    async with world(network=slow_upstream(), timeouts=only()) as w:
        client = await stale(w, GET)
        (await w.upstreams[0].accept()).close()
        assert (await client.read_response()).status == 502
        assert len(w.upstreams[0].peers) == 2
        assert w.upstreams[0].listener.waiting == 0
    assert w.proxy.stats.retries == {"stale": 1}
    assert upstream_errors(w) == {"other": 1}


async def test_a_fresh_connection_gets_no_second_chance() -> None:
    """502 at once."""
    async with world(timeouts=only()) as w:
        client = await w.client()
        await client.send(GET)
        (await w.upstreams[0].accept()).close()
        assert (await client.read_response()).status == 502
        assert len(w.upstreams[0].peers) == 1
    assert w.proxy.stats.retries == {}


async def test_a_stale_connection_that_had_begun_to_answer() -> None:
    """Half a head is an answer: no retry."""
    async with world(timeouts=only()) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(OK)
        await client.read_response()
        await client.send(GET)
        await upstream.read_request()
        await upstream.send(b"HTTP/1.1 2")
        upstream.send_eof()
        assert (await client.read_response()).status == 502
    assert w.proxy.stats.retries == {}


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_a_response_that_says_close(answer: bytes) -> None:
    """Its connection is not pooled; the client's goes on."""
    async with world(timeouts=only()) as w:
        client = await w.client()
        for _ in range(2):
            await client.send(GET)
            upstream = await w.upstreams[0].accept()
            await upstream.read_request()
            await upstream.send(answer)
            response = await client.read_response()
            assert response.body == b"ok"
            assert b"connection" not in response
            assert connections(w) == (0, 0)
            assert upstream.stream.is_readable()


async def test_an_upstream_that_speaks_http10() -> None:
    """A body that ends with the connection reaches the client chunked and whole."""
    async with world(timeouts=only()) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(b"HTTP/1.0 200 OK\r\n\r\nto the ")
        await trio.sleep(1)
        await upstream.send(b"end")
        upstream.close()
        response = await client.read_response()
        assert response[b"transfer-encoding"] == b"chunked"
        assert response.body == b"to the end"
        assert connections(w) == (0, 0)


async def test_an_upstream_that_closes_right_behind_its_answer() -> None:
    """Though it promised to keep the connection: no request is lost on it."""
    async with world(timeouts=only()) as w:

        async def answer_once(peer: Speaker) -> None:
            await peer.read_request()
            await peer.send(OK)

        w.upstreams[0].run(answer_once)
        client = await w.client()
        for _ in range(5):
            assert (await client.ask(post(1) + b"x")).body == b"ok"
            await trio.sleep(0.001)
        assert len(w.upstreams[0].peers) == 5


async def test_an_upstream_that_refuses() -> None:
    """502, counted as such, and the slot is free."""
    async with world(timeouts=only(), limits=Limits(max_conns_per_upstream=1)) as w:
        w.net.refuse(w.upstreams[0].name)
        client = await w.client()
        for _ in range(3):
            assert (await client.ask(GET)).status == 502
        assert connections(w) == (0, 0)
        assert now_ms() == 0
    assert upstream_errors(w) == {"connection_refused": 3}
