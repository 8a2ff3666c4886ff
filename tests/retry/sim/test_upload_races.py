"""An upload that is cut off at any step of its way: what was taken from the client is not lost."""

from __future__ import annotations

import pytest
import trio

from support.conversation import ScriptedUpstream, Speaker
from support.failing import answer, outcomes, play, steady
from support.scenario import only, send_quietly
from support.world import PROXY, world
from trio_proxy.settings import Retry
from trio_proxy.testing import SimNet

#: One byte each, so that the proxy is busy with them for many steps and pauses in between.
COUNT = 10_000
BODY = bytes(number % 251 for number in range(COUNT))
CHUNKED = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
TINY = CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\nX-Sum: 1\r\n\r\n"
LENGTH = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n" + BODY * 6


@pytest.mark.parametrize("steps", range(14))
async def test_an_upload_that_is_cut_at_any_step_is_sent_again_whole(steps: int) -> None:
    """The first upstream resets after so many turns of the event loop."""
    async with world(
        upstreams=steady(2), network=SimNet(seed=1, buffer=1_000_000), retry=Retry()
    ) as w:
        w.upstreams[0].run(lambda peer: abort_after(peer, steps))
        play(w.upstreams[1])
        client = await w.client()
        w.helpers.start_soon(send_quietly, client, TINY)
        assert (await client.read_response()).body == b"ok"
        (request,) = w.upstreams[1].requests
        assert len(request.body) == COUNT
        assert request.body == BODY
        assert request.trailers == [(b"X-Sum", b"1")]
    assert outcomes(w.exchanges[0]) == [(0, "connection_reset"), (1, "200")]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "request_bytes", [LENGTH, CHUNKED + b"ea60\r\n" + BODY * 6 + b"\r\n0\r\n\r\n"]
)
async def test_the_same_with_a_client_whose_bytes_come_in_bits(
    request_bytes: bytes, seed: int
) -> None:
    """Each read and each send moves a few bytes only."""
    net = SimNet(seed=seed)
    net.link(PROXY, fragment=True)
    async with world(upstreams=steady(2), network=net, retry=Retry()) as w:
        w.upstreams[0].run(lambda peer: abort_after(peer, 20 * seed))
        play(w.upstreams[1])
        client = await w.client()
        w.helpers.start_soon(send_quietly, client, request_bytes)
        assert (await client.read_response()).body == b"ok"
        assert w.upstreams[1].requests[0].body == BODY * 6


@pytest.mark.parametrize("seed", range(8))
async def test_one_upload_has_ended_before_the_next_one_begins(seed: int) -> None:
    """Even if the second upstream has a connection ready: both would read from the client."""
    async with world(upstreams=steady(2), network=SimNet(seed=seed), retry=Retry()) as w:
        client = await w.client()
        idle = []
        for upstream in w.upstreams:
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
            idle.append(await upstream.accept())
            await idle[-1].read_request()
            await idle[-1].send(answer(200, b"ok"))
            await client.read_response()
        await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
        await idle[0].read_head()
        await trio.sleep(0.1)
        await idle[0].send(b"HTTP/1.1 2")
        await trio.sleep(0.1)
        idle[0].abort()
        await idle[1].read_head()
        assert await idle[1].receive_exactly(5) == b"hello"
        await client.send(b"world")
        assert await idle[1].receive_exactly(5) == b"world"
        await idle[1].send(answer(200, b"ok"))
        assert (await client.read_response()).body == b"ok"
    assert outcomes(w.exchanges[2]) == [(0, "connection_reset"), (1, "200")]


@pytest.mark.parametrize("steps", range(8))
async def test_a_stale_connection_that_dies_at_any_step(steps: int) -> None:
    """The request goes out again whole on a fresh connection to the same upstream."""
    net = SimNet(seed=1, buffer=1_000_000)
    async with world(network=net, retry=Retry(attempts=1), timeouts=only()) as w:
        client = await w.client()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        pooled = await w.upstreams[0].accept()
        await pooled.read_request()
        await pooled.respond()
        await client.read_response()
        play(w.upstreams[0])
        w.helpers.start_soon(abort_after, pooled, steps)
        w.helpers.start_soon(send_quietly, client, TINY)
        assert (await client.read_response()).body == b"ok"
        assert w.upstreams[0].requests[0].body == BODY
    assert outcomes(w.exchanges[1]) == [(0, "stale"), (0, "200")]


async def abort_after(peer: Speaker, steps: int) -> None:
    """Reset when a request's head has come and then so many turns of the event loop."""
    await peer.read_head()
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    peer.abort()


@pytest.mark.parametrize("_", range(5))
async def test_a_body_that_comes_in_the_step_in_which_its_try_fails(_: int) -> None:
    """Not a byte more is taken for a try that is over: it could not be kept any more.

    Which of the two is taken up first is left to chance.
    """
    async with world(upstreams=2, retry=Retry(attempts=2, replay_bytes=1)) as w:
        for upstream in w.upstreams:
            w.helpers.start_soon(reset_soon, upstream)
        client = await w.client()
        await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        await trio.sleep(0.05)
        await client.send(b"hello")
        assert (await client.read_response()).status == 502
    assert w.exchanges[0].not_retried in ("attempts", "replay_bytes")


async def reset_soon(upstream: ScriptedUpstream) -> None:
    peer = await upstream.accept()
    await peer.read_head()
    await trio.sleep(0.05)
    peer.abort()
