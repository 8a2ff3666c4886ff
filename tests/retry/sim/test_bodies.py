"""Requests with bodies that are sent again: the whole body arrives, or there is no second try."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from support.conversation import Message, Speaker
from support.failing import (
    RESET,
    answer,
    log_tail,
    outcomes,
    play,
    requests_of_each,
    retry,
    send_slowly,
    steady,
)
from support.scenario import now_ms, only
from support.world import World, world

LENGTH = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
BODY = bytes(range(256)) * 40
TRAILER = (b"X-Sum", b"1")

Handler = Callable[[Speaker], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def pieces_of(body: bytes, framing: str, count: int) -> list[bytes]:
    """A PUT in its head and so many pieces of its body."""
    step = -(-len(body) // count)
    parts = [body[at : at + step] for at in range(0, len(body), step)]
    if framing == "length":
        return [LENGTH % len(body), *parts]
    return [CHUNKED, *map(chunk, parts), b"0\r\nX-Sum: 1\r\n\r\n"]


def check(request: Message, body: bytes, framing: str) -> None:
    assert request.body == body
    assert request.trailers == ([TRAILER] if framing == "chunked" else [])


def refuses(w: World) -> None:
    w.net.refuse(w.upstreams[0].name)


def resets_at_once(w: World) -> None:
    w.upstreams[0].run(_abort)


def resets_after_the_head(w: World) -> None:
    w.upstreams[0].run(_after_reading(0, _abort))


def resets_in_the_middle(w: World) -> None:
    w.upstreams[0].run(_after_reading(5000, _abort))


def closes_in_the_middle(w: World) -> None:
    w.upstreams[0].run(_after_reading(5000, _close))


def answers_503_in_the_middle(w: World) -> None:
    w.upstreams[0].run(_after_reading(5000, _answer_503))


def resets_in_the_end(w: World) -> None:
    play(w.upstreams[0], RESET)


def answers_503_in_the_end(w: World) -> None:
    play(w.upstreams[0], answer(503, b"sorry"))


async def _abort(peer: Speaker) -> None:
    peer.abort()


async def _close(peer: Speaker) -> None:
    peer.close()


async def _answer_503(peer: Speaker) -> None:
    await peer.send(answer(503, b"sorry"))
    await peer.receive_all()


def _after_reading(count: int, then: Handler) -> Handler:
    async def handle(peer: Speaker) -> None:
        await peer.read_head()
        await peer.receive_exactly(count)
        await then(peer)

    return handle


FAULTS = [
    refuses,
    resets_at_once,
    resets_after_the_head,
    resets_in_the_middle,
    closes_in_the_middle,
    answers_503_in_the_middle,
    resets_in_the_end,
    answers_503_in_the_end,
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_that_came_with_its_head(fault: Callable[[World], None], framing: str) -> None:
    """The second upstream gets all of it, and its trailers, and nothing of it twice."""
    async with world(upstreams=steady(2), retry=retry(), timeouts=only()) as w:
        fault(w)
        play(w.upstreams[1])
        client = await w.client()
        assert (await client.ask(b"".join(pieces_of(BODY, framing, 3)))).body == b"ok"
        check(w.upstreams[1].requests[0], BODY, framing)
        assert now_ms() == 0
    assert requests_of_each(w) == [1, 1]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_that_comes_in_pieces(fault: Callable[[World], None], framing: str) -> None:
    """What had come goes out again at once, and the rest behind it as it comes."""
    async with world(upstreams=steady(2), retry=retry(), timeouts=only()) as w:
        fault(w)
        play(w.upstreams[1])
        client = await w.client()
        pieces = pieces_of(BODY, framing, 10)
        w.helpers.start_soon(send_slowly, client, pieces, 0.1)
        assert (await client.read_response()).body == b"ok"
        check(w.upstreams[1].requests[0], BODY, framing)
        assert now_ms() == 100 * len(pieces)
        await client.send(LENGTH % 2 + b"hi")
        assert (await client.read_response()).body == b"ok"
    assert requests_of_each(w)[1] >= 1
    assert len(w.exchanges[0].tries) == 2


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_an_empty_body(framing: str) -> None:
    """Nothing is nothing, also the second time."""
    async with world(upstreams=steady(2), retry=retry(replay_bytes=0), timeouts=only()) as w:
        play(w.upstreams[0], RESET)
        play(w.upstreams[1])
        request = b"".join(pieces_of(b"x", framing, 1)).replace(b"1\r\nx\r\n", b"")
        request = request.replace(b"Content-Length: 1\r\n\r\nx", b"Content-Length: 0\r\n\r\n")
        assert (await (await w.client()).ask(request)).body == b"ok"
        check(w.upstreams[1].requests[0], b"", framing)
        assert w.upstreams[0].requests[0].raw == w.upstreams[1].requests[0].raw


# The bound


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("count", [1, 7])
async def test_a_body_of_exactly_replay_bytes_is_sent_again(framing: str, count: int) -> None:
    """In one piece or in many."""
    settings = retry(replay_bytes=len(BODY))
    async with world(upstreams=steady(2), retry=settings, timeouts=only()) as w:
        play(w.upstreams[0], RESET)
        play(w.upstreams[1])
        client = await w.client()
        w.helpers.start_soon(send_slowly, client, pieces_of(BODY, framing, count), 0.1)
        assert (await client.read_response()).body == b"ok"
        check(w.upstreams[1].requests[0], BODY, framing)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize(("step", "status"), [(RESET, 502), (answer(503, b"sorry"), 503)])
async def test_a_body_of_one_byte_more_is_not(
    framing: str, count: int, step: str | bytes, status: int
) -> None:
    """The failure is told to the client, and the reason why it was final to the log."""
    settings = retry(replay_bytes=len(BODY) - 1)
    async with world(upstreams=steady(2), retry=settings, timeouts=only()) as w:
        play(w.upstreams[0], step)
        client = await w.client()
        w.helpers.start_soon(send_slowly, client, pieces_of(BODY, framing, count), 0.1)
        assert (await client.read_response()).status == status
    assert requests_of_each(w) == [1, 0]
    assert " not_retried=replay_bytes tried=10.1.0.1:9000:" in log_tail(w.exchanges[0])
    assert w.proxy.stats.retries == {}


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_long_body_of_which_little_was_taken_is_sent_again(framing: str) -> None:
    """What counts is how much has to be kept, not how much is announced."""
    settings = retry(replay_bytes=3000)
    async with world(upstreams=steady(2), retry=settings, timeouts=only()) as w:
        w.upstreams[0].run(_after_reading(1000, _abort))
        play(w.upstreams[1])
        client = await w.client()
        w.helpers.start_soon(send_slowly, client, pieces_of(BODY, framing, 10), 0.1)
        assert (await client.read_response()).body == b"ok"
        check(w.upstreams[1].requests[0], BODY, framing)
    assert outcomes(w.exchanges[0]) == [(0, "connection_reset"), (1, "200")]


async def test_what_was_taken_of_a_body_counts_for_all_tries() -> None:
    """The second try fails after more has come than can be kept, so there is no third."""
    settings = retry(replay_bytes=3000, attempts=3)
    async with world(upstreams=steady(3), retry=settings, timeouts=only()) as w:
        w.upstreams[0].run(_after_reading(1000, _abort))
        w.upstreams[1].run(_after_reading(5000, _abort))
        client = await w.client()
        w.helpers.start_soon(send_slowly, client, pieces_of(BODY, "length", 10), 0.1)
        assert (await client.read_response()).status == 502
    assert requests_of_each(w) == [1, 1, 0]
    assert w.exchanges[0].not_retried == "replay_bytes"


@pytest.mark.parametrize("method", [b"PUT", b"POST"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_of_any_length_is_sent_where_nobody_was_reached_before(
    framing: str, method: bytes
) -> None:
    """Without a connection nothing was taken, so nothing has to be kept."""
    body = bytes(300_000)
    async with world(upstreams=steady(2), retry=retry(replay_bytes=0), timeouts=only()) as w:
        refuses(w)
        play(w.upstreams[1])
        client = await w.client()
        request = b"".join(pieces_of(body, framing, 3)).replace(b"PUT", method)
        w.helpers.start_soon(client.send, request)
        assert (await client.read_response()).body == b"ok"
        check(w.upstreams[1].requests[0], body, framing)
    assert requests_of_each(w) == [1, 1]
