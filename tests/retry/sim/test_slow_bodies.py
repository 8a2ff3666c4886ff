"""Requests with bodies, and time: who is late with a body, at the first try and at the second."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from support.conversation import Speaker
from support.failing import (
    HANG,
    errors_of_each,
    outcomes,
    play,
    requests_of_each,
    retry,
    send_slowly,
    steady,
)
from support.scenario import drip, ending, now_ms, only, until_ms
from support.world import world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.settings import Limits

PUT = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def read_and_abort(peer: Speaker, count: int) -> None:
    """Reset after so many bytes of the body."""
    await peer.read_head()
    await peer.receive_exactly(count)
    peer.abort()


async def read_head_only(peer: Speaker) -> None:
    await peer.read_head()
    await trio.sleep(60)


async def test_an_upstream_that_takes_nothing_of_the_body() -> None:
    """At write_ms the other one is sent all of it."""
    body = bytes(300_000)
    settings = retry(replay_bytes=1_000_000)
    async with world(upstreams=steady(2), retry=settings, timeouts=only(write_ms=500)) as w:
        w.upstreams[0].run(read_head_only)
        play(w.upstreams[1])
        client = await w.client()
        w.helpers.start_soon(client.send, PUT % len(body) + body)
        assert (await client.read_response()).body == b"ok"
        assert now_ms() == 500
        assert w.upstreams[1].requests[0].body == body
    assert outcomes(w.exchanges[0]) == [(0, "write_timeout"), (1, "200")]
    assert errors_of_each(w) == [{"timeout": 1}, {}]


async def test_a_try_that_takes_too_long_to_send() -> None:
    """At try_timeout_ms the other one is sent all of it."""
    body = bytes(300_000)
    settings = retry(replay_bytes=1_000_000, try_timeout_ms=200)
    async with world(upstreams=steady(2), retry=settings, timeouts=only(write_ms=500)) as w:
        w.upstreams[0].run(read_head_only)
        play(w.upstreams[1])
        client = await w.client()
        w.helpers.start_soon(client.send, PUT % len(body) + body)
        assert (await client.read_response()).body == b"ok"
        assert now_ms() == 200
        assert w.upstreams[1].requests[0].body == body
    assert outcomes(w.exchanges[0]) == [(0, "try_timeout"), (1, "200")]


async def test_a_client_that_stalls_after_a_failed_try() -> None:
    """It is the client that is late: 408 at body_ms, and the second upstream is not to blame."""
    async with world(upstreams=steady(2), retry=retry(), timeouts=only(body_ms=400)) as w:
        w.upstreams[0].run(lambda peer: read_and_abort(peer, 5))
        play(w.upstreams[1])
        client = await w.client()
        await client.send(PUT % 10 + b"12345")
        assert (await client.read_response()).status == 408
        assert now_ms() == 400
    assert ending(w.exchanges[0])[:3] == (408, Reason.BODY_TIMEOUT, Source.CLIENT)
    assert errors_of_each(w) == [{"other": 1}, {}]


# A slow client


async def test_a_client_that_is_slow_with_its_body_is_no_failure_of_an_upstream() -> None:
    """A try lasts as long as the client needs; who sends 3 s long is answered after 3 s."""
    settings = retry(try_timeout_ms=1000)
    async with world(upstreams=2, retry=settings, timeouts=only(body_ms=400)) as w:
        play(w.upstreams[0])
        play(w.upstreams[1])
        client = await w.client()
        w.helpers.start_soon(send_slowly, client, [PUT % 10, *[b"x"] * 10], 0.3)
        assert (await client.read_response()).body == b"ok"
        assert now_ms() == 3300
    assert requests_of_each(w) == [1, 0]
    assert errors_of_each(w) == [{}, {}]


async def test_a_client_that_is_too_slow_is_none_either() -> None:
    """504 at total_ms, and nobody is taken out or asked again."""
    settings = retry(try_timeout_ms=1000)
    async with world(upstreams=2, retry=settings, timeouts=only(body_ms=400, total_ms=2000)) as w:
        play(w.upstreams[0])
        client = await w.client()
        await client.send(PUT % 100)
        drip(w, client, b"x", 0.3)
        assert (await client.read_response()).status == 504
        assert now_ms() == 2000
    assert ending(w.exchanges[0])[:3] == (504, Reason.TOTAL_TIMEOUT, Source.CLIENT)
    assert requests_of_each(w) == [1, 0]
    assert errors_of_each(w) == [{}, {}]
    assert not [line for line in w.messages() if "down" in line]


async def test_the_upstreams_own_time_begins_when_it_has_the_body() -> None:
    """The first hangs for one try_timeout_ms after 3 s of upload; the second answers at once."""
    settings = retry(try_timeout_ms=1000)
    async with world(upstreams=steady(2), retry=settings, timeouts=only()) as w:
        play(w.upstreams[0], HANG)
        play(w.upstreams[1])
        client = await w.client()
        pieces = [PUT % 10, *[b"x"] * 10]
        w.helpers.start_soon(send_slowly, client, pieces, 0.3)
        assert (await client.read_response()).body == b"ok"
        assert now_ms() == 4300
        assert w.upstreams[1].requests[0].body == b"x" * 10
    assert outcomes(w.exchanges[0]) == [(0, "try_timeout"), (1, "200")]


async def test_an_upstream_that_never_says_100_is_late() -> None:
    """The client waits for it, so try_timeout_ms is the upstream's; the second one invites."""
    settings = retry(try_timeout_ms=300)
    async with world(upstreams=steady(2), retry=settings, timeouts=only()) as w:
        w.upstreams[0].run(read_head_only)
        client = await w.client()
        await client.send((PUT % 2).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        second = await w.upstreams[1].accept()
        assert now_ms() == 300
        await second.read_head()
        await second.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert (await client.read_head()).status == 100
        await until_ms(5000)
        await client.send(b"hi")
        assert await second.receive_exactly(2) == b"hi"
        await second.respond()
        assert (await client.read_response()).body == b"ok"
    assert outcomes(w.exchanges[0]) == [(0, "try_timeout"), (1, "200")]


# A client that does wrong at the second try


def leaves(client: Speaker) -> None:
    client.close()


def resets(client: Speaker) -> None:
    client.abort()


def breaks_its_framing(client: Speaker) -> None:
    client.stream.send_nowait(b"nonsense\r\n")


def sends_too_much(client: Speaker) -> None:
    client.stream.send_nowait(b"ff\r\n" + bytes(255) + b"\r\n")


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        (leaves, Reason.CLIENT_GONE),
        (resets, Reason.CLIENT_GONE),
        (breaks_its_framing, Reason.AMBIGUOUS_FRAMING),
        (sends_too_much, Reason.BODY_TOO_LARGE),
    ],
)
async def test_a_fault_of_the_client_at_the_second_try(
    does: Callable[[Speaker], None], reason: Reason
) -> None:
    """It is the client's, whatever befell the first; the second upstream is let go at once."""
    limits = Limits(max_body_bytes=200)
    async with world(upstreams=2, retry=retry(), limits=limits, timeouts=only()) as w:
        w.upstreams[0].run(lambda peer: read_and_abort(peer, 5))
        client = await w.client()
        await client.send(CHUNKED + b"5\r\nhello\r\n")
        second = await w.upstreams[1].accept()
        await second.read_head()
        assert await second.read_chunk() == b"hello"
        await until_ms(500)
        does(client)
        assert await second.receive_all() == b""
        assert now_ms() == 500
    failed = w.exchanges[0]
    assert ending(failed) == (reason.status, reason, Source.CLIENT, Phase.SEND)
    assert outcomes(failed) == [(0, "connection_reset"), (1, reason.slug)]
    assert errors_of_each(w) == [{"other": 1}, {}]
    assert len([line for line in w.messages() if "down" in line]) == 1
