"""Interim responses and expectations across tries: they do not commit the proxy to an upstream."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from support.conversation import Speaker
from support.failing import RESET, answer, errors_of_each, outcomes, play, requests_of_each, steady
from support.scenario import GET, ending, how_it_ends, now_ms, only, send_quietly, until_ms
from support.world import PROXY, World, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.settings import Retry
from trio_proxy.testing import SimNet

EXPECT = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
ON = Retry(on=("connect", "reset", "timeout", "503"))


async def expectant(w: World) -> tuple[Speaker, Speaker]:
    """A client that waits for a 100, and the first upstream, which has its head."""
    client = await w.client()
    await client.send(EXPECT)
    upstream = await w.upstreams[0].accept()
    assert (await upstream.read_head())[b"expect"] == b"100-continue"
    return client, upstream


@pytest.mark.parametrize("interim", [HINTS, b"HTTP/1.1 102 Processing\r\n\r\n"])
async def test_a_failure_after_an_interim_response(interim: bytes) -> None:
    """The client has the hints of the first upstream and the answer of the second."""
    async with world(upstreams=steady(2), retry=ON, timeouts=only()) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(interim)
        assert (await client.read_head()).raw == interim
        play(w.upstreams[1], interim + answer(200, b"second"))
        upstream.abort()
        assert (await client.read_head()).raw == interim
        assert (await client.read_response()).body == b"second"
    assert outcomes(w.exchanges[0]) == [(0, "connection_reset"), (1, "200")]


async def test_a_retryable_status_after_an_interim_response() -> None:
    """The same: only a final head is final."""
    async with world(upstreams=steady(2), retry=ON, timeouts=only()) as w:
        play(w.upstreams[0], HINTS + answer(503, b"sorry"))
        play(w.upstreams[1])
        client = await w.client()
        await client.send(GET)
        assert (await client.read_head()).raw == HINTS
        assert (await client.read_response()).body == b"ok"
    assert requests_of_each(w) == [1, 1]


async def test_an_upstream_that_fails_before_it_says_100() -> None:
    """The client waits on, and hears the 100 of the second upstream."""
    async with world(upstreams=steady(2), retry=ON, timeouts=only()) as w:
        client, first = await expectant(w)
        await trio.sleep(0.5)
        first.abort()
        second = await w.upstreams[1].accept()
        assert (await second.read_head())[b"expect"] == b"100-continue"
        assert not client.stream.is_readable()
        await second.send(CONTINUE)
        assert (await client.read_head()).raw == CONTINUE
        await client.send(b"0123456789")
        assert await second.receive_exactly(10) == b"0123456789"
        await second.respond()
        assert (await client.read_response()).body == b"ok"
    assert outcomes(w.exchanges[0]) == [(0, "connection_reset"), (1, "200")]


async def test_an_expectation_that_is_refused_by_a_retryable_status() -> None:
    """503 instead of a 100 is followed by a try elsewhere, and the body was never asked for."""
    async with world(upstreams=steady(2), retry=ON, timeouts=only()) as w:
        client, first = await expectant(w)
        await first.respond(b"sorry", status=503)
        second = await w.upstreams[1].accept()
        await second.read_head()
        await second.send(CONTINUE)
        assert (await client.read_head()).status == 100
        await client.send(b"0123456789")
        assert await second.receive_exactly(10) == b"0123456789"
        await second.respond()
        assert (await client.read_response()).body == b"ok"
        assert await first.receive_all() == b"", "the first upstream was let go"


async def test_an_expectation_that_nobody_fulfils() -> None:
    """The last 503 goes to the client, which has sent no body."""
    async with world(upstreams=steady(2), retry=ON, timeouts=only()) as w:
        client, first = await expectant(w)
        await first.respond(b"sorry", status=503)
        second = await w.upstreams[1].accept()
        await second.read_head()
        await second.respond(b"me too", status=503)
        response = await client.read_response()
        assert (response.status, response.body) == (503, b"me too")
        client.close()
    assert outcomes(w.exchanges[0]) == [(0, "503"), (1, "503")]


@pytest.mark.parametrize("sent", [4, 10])
async def test_an_upstream_that_fails_after_its_100(sent: int) -> None:
    """What the client sent meanwhile goes to the second at once, without another invitation."""
    async with world(upstreams=steady(2), retry=ON, timeouts=only()) as w:
        client, first = await expectant(w)
        await first.send(CONTINUE)
        await client.read_head()
        await client.send(b"0123456789"[:sent])
        assert await first.receive_exactly(sent) == b"0123456789"[:sent]
        first.abort()
        second = await w.upstreams[1].accept()
        await second.read_head()
        assert await second.receive_exactly(sent) == b"0123456789"[:sent]
        await client.send(b"0123456789"[sent:])
        assert await second.receive_exactly(10 - sent) == b"0123456789"[sent:]
        await second.respond()
        assert (await client.read_response()).body == b"ok"
    assert outcomes(w.exchanges[0]) == [(0, "connection_reset"), (1, "200")]


async def test_a_client_that_was_told_to_go_on_can_be_late_at_the_second_try_too() -> None:
    """408 at body_ms: it stopped in the middle, so the second upstream is not to blame."""
    async with world(upstreams=steady(2), retry=ON, timeouts=only(body_ms=300, read_ms=400)) as w:
        client, first = await expectant(w)
        await first.send(CONTINUE)
        await client.read_head()
        await client.send(b"0123")
        assert await first.receive_exactly(4) == b"0123"
        first.abort()
        second = await w.upstreams[1].accept()
        await second.read_head()
        assert await second.receive_exactly(4) == b"0123"
        assert (await client.read_response()).status == 408
        assert now_ms() == 300
    assert ending(w.exchanges[0])[:3] == (408, Reason.BODY_TIMEOUT, Source.CLIENT)
    assert errors_of_each(w) == [{"other": 1}, {}]


async def test_each_upstream_has_its_own_bound_of_interim_responses() -> None:
    """32 of the first do not count against the second."""
    async with world(upstreams=steady(2), retry=ON, timeouts=only()) as w:
        client = await w.client()
        await client.send(GET)
        first = await w.upstreams[0].accept()
        await first.read_request()
        await first.send(HINTS * 32)
        for _ in range(32):
            await client.read_head()
        first.abort()
        play(w.upstreams[1], HINTS * 32 + answer(200, b"ok"))
        for _ in range(32):
            assert (await client.read_head()).status == 103
        assert (await client.read_response()).body == b"ok"


async def test_an_http10_client_gets_nothing_but_the_answer() -> None:
    """RFC 9110 §15.2, at each try."""
    async with world(upstreams=steady(2), retry=ON, timeouts=only()) as w:
        w.upstreams[0].run(hint_and_reset)
        play(w.upstreams[1], HINTS + answer(200, b"ok"))
        client = await w.client()
        assert (await client.ask(b"GET / HTTP/1.0\r\n\r\n")).body == b"ok"


async def hint_and_reset(peer: Speaker) -> None:
    await peer.read_request()
    await peer.send(HINTS)
    await trio.sleep(0.1)
    peer.abort()


@pytest.mark.parametrize("step", [RESET, answer(503)])
async def test_an_interim_response_is_no_leave_to_repeat_a_post(step: str | bytes) -> None:
    """It was sent, whatever came back."""
    async with world(upstreams=steady(2), retry=ON, timeouts=only()) as w:
        play(w.upstreams[0], HINTS + step if isinstance(step, bytes) else step)
        client = await w.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        while (head := await client.read_head()).status < 200:
            assert head.status == 103
        assert head.status == (502 if step == RESET else 503)
    assert requests_of_each(w) == [1, 0]
    assert w.exchanges[0].not_retried == "method"


BIG_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: <" + b"x" * 500 + b">\r\n\r\n"


@pytest.mark.parametrize(
    ("try_timeout_ms", "total_ms", "drain_at"), [(300, 0, 0), (0, 300, 0), (0, 0, 200)]
)
async def test_an_interim_response_that_was_begun_is_never_followed_by_something_else(
    try_timeout_ms: int, total_ms: int, drain_at: int
) -> None:
    """A client that takes it slowly gets the whole of it, or an end in the middle of it."""
    net = SimNet()
    net.link(PROXY, buffer=100)
    retry = Retry(on=("timeout",), try_timeout_ms=try_timeout_ms)
    budgets = only(total_ms=total_ms, drain_ms=100)
    async with world(upstreams=steady(2), network=net, retry=retry, timeouts=budgets) as w:
        w.upstreams[0].run(hint_at_length)
        play(w.upstreams[1])
        client = await w.client()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        if drain_at:
            await until_ms(drain_at)
            w.helpers.start_soon(w.proxy.drain)
        await until_ms(1000)
        received, _ = await how_it_ends(client)
        assert BIG_HINTS.startswith(received[: len(BIG_HINTS)])
        rest = received[len(BIG_HINTS) :]
        assert rest == b"" or rest.startswith(b"HTTP/1.1 ")


async def hint_at_length(peer: Speaker) -> None:
    await peer.read_request()
    await peer.send(BIG_HINTS)
    await trio.sleep(2)


async def test_not_even_if_the_upload_fails_meanwhile() -> None:
    """The upstream takes nothing of the body while the client takes nothing of the hints."""
    net = SimNet()
    net.link(PROXY, buffer=100)
    retry = Retry(on=("timeout",), replay_bytes=1_000_000)
    async with world(
        upstreams=steady(2), network=net, retry=retry, timeouts=only(write_ms=300)
    ) as w:
        net.link(w.upstreams[0].name, buffer=1000)
        w.upstreams[0].run(hint_without_reading)
        play(w.upstreams[1])
        client = await w.client()
        head = b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5000\r\n\r\n"
        w.helpers.start_soon(send_quietly, client, head + bytes(5000))
        received = await read_slowly(client)
        assert BIG_HINTS.startswith(received)
    assert requests_of_each(w) == [1, 0]


async def read_slowly(peer: Speaker) -> bytes:
    """A little now and then, so that no wait for the client is a long one."""
    received = b""
    with suppress(OSError):
        while data := await peer.receive_some(20):
            received += data
            await trio.sleep(0.25)
    return received


async def hint_without_reading(peer: Speaker) -> None:
    await peer.read_head()
    await peer.send(BIG_HINTS)
    await trio.sleep(60)
