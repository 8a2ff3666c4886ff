"""The stale keep-alive race: an upstream closes a pooled connection as the next request leaves.

A request that may be repeated never shows it to its client, whatever `[retry]` says: it goes out
again on a fresh connection to the same upstream, at once, and that is nobody's failure.
"""

from __future__ import annotations

import pytest
import trio

from support.conversation import Speaker
from support.failing import (
    HANG,
    RESET,
    answer,
    errors_of_each,
    fix_jitter,
    log_tail,
    outcomes,
    play,
    requests_of_each,
    steady,
)
from support.scenario import GET, OK, ending, now_ms, only, pooled
from support.world import World, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.settings import Retry

PUT = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n"
)
REPLAYABLE = [
    GET,
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n",
    PUT,
    CHUNKED,
]
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"


def taken_and_dropped(w: World, upstream: Speaker, how: str) -> None:
    """Have the upstream read the next request, and then close or reset instead of answering."""

    async def drop() -> None:
        await upstream.read_request()
        if how == "reset":
            upstream.abort()
        upstream.close()

    w.helpers.start_soon(drop)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("request_bytes", REPLAYABLE)
@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_replayable_request_is_sent_again(
    request_bytes: bytes, how: str, attempts: int
) -> None:
    """Whole, on a fresh connection; it is no retry that needs attempts or a budget."""
    async with world(retry=Retry(attempts=attempts), timeouts=only()) as w:
        client, upstream = await pooled(w)
        taken_and_dropped(w, upstream, how)
        play(w.upstreams[0])
        response = await client.ask(request_bytes)
        assert response.status == 200
        assert now_ms() == 0
        (request,) = w.upstreams[0].requests
        assert request.body == (b"hello" if request_bytes in (PUT, CHUNKED) else b"")
        assert request.trailers == ([(b"X-Sum", b"1")] if request_bytes == CHUNKED else [])
    assert outcomes(w.exchanges[1]) == [(0, "stale"), (0, "200")]
    assert log_tail(w.exchanges[1]) == (
        "tries=2 phase=stream tried=10.1.0.1:9000:stale,10.1.0.1:9000:200"
    )
    assert w.proxy.stats.retries == {"stale": 1}
    assert errors_of_each(w) == [{}]


async def test_it_takes_no_upstream_out() -> None:
    """Neither does it count for max_fails, nor is the other upstream bothered."""
    async with world(upstreams=2, retry=Retry(), timeouts=only()) as w:
        client, upstream = await pooled(w)
        play(w.upstreams[1])
        await client.ask(GET)
        taken_and_dropped(w, upstream, "close")
        play(w.upstreams[0])
        assert (await client.ask(GET)).body == b"ok"
    assert requests_of_each(w) == [3, 1]
    assert not [line for line in w.messages() if "down" in line]


async def test_it_costs_the_budget_nothing() -> None:
    """Twenty in a row, and then ten true retries."""
    async with world(upstreams=steady(1), retry=Retry(on=("503",)), timeouts=only()) as w:
        client, upstream = await pooled(w)
        for _ in range(20):
            taken_and_dropped(w, upstream, "close")
            await client.send(GET)
            upstream = await w.upstreams[0].accept()
            await upstream.read_request()
            await upstream.send(OK)
            await client.read_response()
        upstream.close()
        play(w.upstreams[0], *[answer(503), answer(503)] * 10)
        for _ in range(10):
            assert (await client.ask(GET)).status == 503
    assert [len(each.tries) for each in w.exchanges[-10:]] == [2] * 10
    assert w.proxy.stats.retries == {"stale": 20, "503": 10}


async def test_the_fresh_connection_fails_too() -> None:
    """That is a failure of the upstream, and followed by a try elsewhere."""
    async with world(upstreams=2, retry=Retry(), timeouts=only()) as w:
        client, upstream = await pooled(w)
        play(w.upstreams[1])
        await client.ask(GET)
        taken_and_dropped(w, upstream, "close")
        play(w.upstreams[0], RESET)
        assert (await client.ask(GET)).body == b"ok"
    assert outcomes(w.exchanges[2]) == [(0, "stale"), (0, "connection_reset"), (1, "200")]
    assert errors_of_each(w) == [{"other": 1}, {}]
    assert w.proxy.stats.retries == {"stale": 1, "connection_reset": 1}


@pytest.mark.parametrize("fault", ["refuse", "blackhole"])
async def test_the_fresh_connection_cannot_be_opened(fault: str) -> None:
    """The same, also for a PUT with a body."""
    async with world(upstreams=2, retry=Retry(), timeouts=only(connect_ms=300)) as w:
        client, upstream = await pooled(w)
        play(w.upstreams[1])
        await client.ask(GET)
        taken_and_dropped(w, upstream, "close")
        getattr(w.net, fault)(w.upstreams[0].name)
        assert (await client.ask(PUT)).body == b"ok"
        assert w.upstreams[1].requests[1].body == b"hello"
    assert w.exchanges[2].tries[0].outcome == "stale"
    assert [number for number, _ in outcomes(w.exchanges[2])] == [0, 0, 1]


async def test_the_second_try_can_meet_a_stale_connection_as_well() -> None:
    """A whole fleet restarts: two connections that were dead, and one answer."""
    async with world(upstreams=steady(2), retry=Retry(), timeouts=only()) as w:
        client = await w.client()
        idle = []
        for upstream in w.upstreams:
            await client.send(GET)
            idle.append(await upstream.accept())
            await idle[-1].read_request()
            await idle[-1].send(OK)
            await client.read_response()
        taken_and_dropped(w, idle[0], "reset")
        taken_and_dropped(w, idle[1], "reset")
        play(w.upstreams[0], RESET)
        play(w.upstreams[1])
        assert (await client.ask(PUT)).body == b"ok"
        assert w.upstreams[1].requests[0].body == b"hello"
    assert outcomes(w.exchanges[2]) == [
        (0, "stale"),
        (0, "connection_reset"),
        (1, "stale"),
        (1, "200"),
    ]


async def test_a_post_that_was_taken_is_not_sent_again() -> None:
    """It may have been acted upon: 502, and the log says that the method is the reason."""
    async with world(upstreams=steady(2), retry=Retry(), timeouts=only()) as w:
        client, upstream = await pooled(w)
        play(w.upstreams[1])
        await client.ask(GET)
        taken_and_dropped(w, upstream, "close")
        play(w.upstreams[0])
        assert (await client.ask(POST)).status == 502
    failed = w.exchanges[2]
    assert ending(failed)[:3] == (502, Reason.CONNECTION_RESET, Source.UPSTREAM)
    assert outcomes(failed) == [(0, "connection_reset")]
    assert failed.not_retried == "method"


async def test_a_post_is_sent_again_if_unsafe_methods_may_be() -> None:
    """`unsafe_methods` holds for a stale connection too."""
    async with world(retry=Retry(attempts=1, unsafe_methods=True), timeouts=only()) as w:
        client, upstream = await pooled(w)
        taken_and_dropped(w, upstream, "close")
        play(w.upstreams[0])
        assert (await client.ask(POST)).body == b"ok"
    assert outcomes(w.exchanges[1]) == [(0, "stale"), (0, "200")]


async def test_a_body_that_was_not_kept_is_not_sent_again() -> None:
    """Beyond replay_bytes even the stale race is told to the client."""
    async with world(upstreams=steady(1), retry=Retry(replay_bytes=4), timeouts=only()) as w:
        client, upstream = await pooled(w)
        taken_and_dropped(w, upstream, "close")
        play(w.upstreams[0])
        assert (await client.ask(PUT)).status == 502
    assert w.exchanges[1].not_retried == "replay_bytes"


async def test_a_connection_that_answered_something_was_not_stale() -> None:
    """A cut inside the head is a failure, and no free try; but it can be retried as any."""
    async with world(upstreams=steady(1), retry=Retry(), timeouts=only()) as w:
        fix_jitter(w)
        client, upstream = await pooled(w)
        came_at = play(w.upstreams[0])
        await client.send(GET)
        await upstream.read_request()
        await upstream.send(b"HTTP/1.1 20")
        upstream.close()
        assert (await client.read_response()).body == b"ok"
        assert came_at == [12.5]
    assert outcomes(w.exchanges[1]) == [(0, "connection_reset"), (0, "200")]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.9, ["stale", "connection_reset"]), (1.1, ["connection_reset"])],
)
async def test_a_connection_that_dies_late_was_not_stale(
    seconds: float, expected: list[str]
) -> None:
    """After more than a second it is the request that kills it: a failure, and no free try."""

    async def die_of_it(peer: Speaker) -> None:
        await peer.read_request()
        await trio.sleep(seconds)
        peer.abort()

    async with world(retry=Retry(attempts=1), timeouts=only()) as w:
        client, upstream = await pooled(w)
        w.helpers.start_soon(die_of_it, upstream)
        w.upstreams[0].run(die_of_it)
        assert (await client.ask(GET)).status == 502
        assert now_ms() == seconds * 1000 * len(expected)
    assert [one.outcome for one in w.exchanges[1].tries] == expected
    assert errors_of_each(w) == [{"other": 1}]


async def test_a_timeout_on_a_pooled_connection_is_no_stale_race() -> None:
    """It is a failure of the upstream, which is not asked again as there is no other."""
    async with world(upstreams=steady(1), retry=Retry(), timeouts=only(read_ms=100)) as w:
        fix_jitter(w)
        play(w.upstreams[0], OK, HANG)
        client = await w.client()
        await client.ask(GET)
        assert (await client.ask(GET)).status == 504
        assert now_ms() == 100
    assert outcomes(w.exchanges[1]) == [(0, "read_timeout")]
    assert w.exchanges[1].not_retried == "no_upstream"


async def ask_often(w: World, count: int, pauses: tuple[float, ...]) -> None:
    """So many answers, half of them to a PUT; all but the first met a stale connection."""
    client = await w.client()
    for number in range(count + 1):
        assert (await client.ask(PUT if number % 2 else GET)).body == b"ok"
        for seconds in pauses:
            await trio.sleep(seconds)
    assert w.proxy.stats.requests_total == count + 1


async def answer_once(peer: Speaker) -> None:
    """Keep the connection, but for what comes next."""
    request = await peer.read_request()
    assert request.body == (b"hello" if request.start.startswith(b"PUT") else b"")
    await peer.send(OK)


@pytest.mark.slow
async def test_nine_thousand_races_and_no_client_sees_one() -> None:
    """Each connection is reset at the very moment at which its second request leaves."""

    async def answer_once_and_reset(peer: Speaker) -> None:
        await answer_once(peer)
        await peer.stream.wait_readable()
        peer.abort()

    async with world(retry=Retry(attempts=1), timeouts=only()) as w:
        w.upstreams[0].run(answer_once_and_reset)
        await ask_often(w, 9000, ())
    assert w.proxy.stats.retries == {"stale": 9000}
    assert w.proxy.stats.responses[2] == 9001
    assert errors_of_each(w) == [{}]


@pytest.mark.parametrize("pause", [0.0005, 0.001, 0.0015, 0.0019])
async def test_a_thousand_more_whose_ends_are_on_the_way(pause: float) -> None:
    """An answer arrives after 1 ms, the upstream closes after 2 ms, and that arrives after 3 ms."""

    async def answer_once_and_close(peer: Speaker) -> None:
        await answer_once(peer)
        await trio.sleep(0.002)

    async with world(retry=Retry(attempts=1), timeouts=only()) as w:
        w.net.link(w.upstreams[0].name, latency=0.001)
        w.upstreams[0].run(answer_once_and_close)
        await ask_often(w, 250, (pause,))
    assert w.proxy.stats.retries == {"stale": 250}
    assert w.proxy.stats.responses[2] == 251
    assert errors_of_each(w) == [{}]
