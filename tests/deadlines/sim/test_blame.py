"""Who is blamed for what came too late: an upstream for its own time only, and for no other's."""

from __future__ import annotations

import pytest
import trio

from support.conversation import Speaker
from support.failing import errors_of_each, outcomes, play, requests_of_each, send_slowly
from support.scenario import GET, OK, ending, now_ms, only, post, until_ms
from support.world import World, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.settings import Limits, Retry

EXPECTING = b" / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"


def down(w: World) -> list[str]:
    """The log's lines that say that an upstream is out."""
    return [line for line in w.messages() if " down: " in line]


def busy_for(seconds: float) -> None:
    """Let time pass within one step, as a busy event loop does."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.jump(seconds)


async def answer_after(peer: Speaker, seconds: float) -> None:
    """Answer every request so much later."""
    while True:
        await peer.read_request()
        await trio.sleep(seconds)
        await peer.respond()


# A busy loop


async def test_a_place_that_comes_free_as_queue_ms_passes_is_given_back() -> None:
    """503, nothing was sent, and the upstream that was free is used by the next one."""
    limits = Limits(max_conns_per_upstream=1, queue_ms=1000)
    async with world(timeouts=only(read_ms=15_000), limits=limits) as w:
        first = await w.client()
        await first.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        second = await w.client()
        await second.send(GET)
        (member,) = w.proxy.pools["default"].members
        freed = member.freed

        def freed_in_a_long_step() -> None:
            freed()
            if not w.proxy.pools["default"].queue_length and now_ms() < 1000:
                busy_for(0.02)

        member.freed = freed_in_a_long_step  # type: ignore[method-assign]
        await until_ms(995)
        await upstream.send(OK)
        assert (await first.read_response()).status == 200
        refused = await second.read_response()
        assert (refused.status, b"retry-after" in refused) == (503, True)
        await second.send(GET)
        await upstream.read_request()
        await upstream.send(OK)
        assert (await second.read_response()).status == 200
    assert ending(w.exchanges[1])[:3] == (503, Reason.QUEUE_TIMEOUT, Source.PROXY)
    assert requests_of_each(w) == [2]
    assert errors_of_each(w) == [{}]


async def test_a_head_that_is_whole_as_head_ms_passes_is_not_sent() -> None:
    """408, no upstream hears of it, and none is tried."""
    async with world(retry=Retry(), timeouts=only(head_ms=1000)) as w:
        play(w.upstreams[0])
        client = await w.client()
        await client.ask(GET)
        await client.send(b"POST / HTTP/1.1\r\nContent-Length: 0\r\nHost: a\r\n")
        await until_ms(990)
        await client.send(b"\r\n")
        busy_for(0.02)
        assert (await client.read_response()).status == 408
        assert len(w.upstreams[0].requests) == 1
    assert ending(w.exchanges[1])[:3] == (408, Reason.HEAD_TIMEOUT, Source.CLIENT)
    assert w.exchanges[1].tries == []
    assert errors_of_each(w) == [{}]


async def test_a_proxy_that_stood_still_does_not_blame_the_upstream() -> None:
    """As after SIGSTOP and SIGCONT: 504, but who knows whether the answer had come in time."""
    async with world(upstreams=2, timeouts=only(read_ms=1000)) as w:
        client = await w.client()
        await client.send(GET)
        await (await w.upstreams[0].accept()).read_request()
        await until_ms(500)
        busy_for(2.5)
        assert (await client.read_response()).status == 504
        (exchange,) = w.exchanges
        assert exchange.error is not None
        assert exchange.error.source is Source.PROXY
        assert "2000 ms ago, the proxy stood still" in exchange.error.detail
    assert not down(w)


async def test_an_upload_in_which_the_proxy_stood_still_is_tried_again() -> None:
    """As any that an upstream has not taken in time: the next one gets all of it."""
    retry = Retry(on=("timeout",), unsafe_methods=True)
    async with world(upstreams=2, retry=retry, timeouts=only(write_ms=1000)) as w:
        w.net.link(w.upstreams[0].name, buffer=1000)
        play(w.upstreams[1])
        client = await w.client()
        w.helpers.start_soon(client.send, post(5000) + bytes(5000))
        await (await w.upstreams[0].accept()).read_head()
        await until_ms(500)
        busy_for(2.5)
        assert (await client.read_response()).status == 200
        assert [len(each.body) for each in w.upstreams[1].requests] == [5000]
    assert [each.outcome for each in w.exchanges[0].tries] == ["write_timeout", "200"]
    assert errors_of_each(w) == [{}, {}]
    assert not down(w)


# The total budget


async def test_a_body_that_takes_all_of_total_ms_is_no_failure_of_an_upstream() -> None:
    """It comes whole 20 ms before the end; the upstream would have answered after 50 ms."""
    async with world(upstreams=2, timeouts=only(body_ms=600, total_ms=1000)) as w:
        for upstream in w.upstreams:
            upstream.run(lambda peer: answer_after(peer, 0.05))
        for _ in w.upstreams:
            client = await w.client()
            await client.send(post(2))
            w.helpers.start_soon(send_slowly, client, [b"a", b"b"], 0.49)
            assert (await client.read_response()).status == 504
        assert now_ms() == 2000
        assert (await (await w.client()).ask(GET)).status == 200
    assert not down(w)


async def test_an_upstream_that_takes_all_of_total_ms_has_failed() -> None:
    """It had the whole request from the start, so it is out."""
    async with world(upstreams=2, timeouts=only(total_ms=1000)) as w:
        w.upstreams[0].run(lambda peer: answer_after(peer, 60))
        assert (await (await w.client()).ask(GET)).status == 504
    assert len(down(w)) == 1


# A client that waits for a 100


@pytest.mark.parametrize("budget", ["read_ms", "total_ms"])
async def test_a_client_that_waits_for_a_100_is_as_late_as_the_upstream(budget: str) -> None:
    """504 for each of two, and both upstreams stay in: they wait for the body that never came."""
    async with world(upstreams=2, retry=Retry(), timeouts=only(**{budget: 1000})) as w:
        for upstream in w.upstreams:
            upstream.run(lambda peer: answer_after(peer, 0))
        for method in (b"POST", b"PUT", b"POST"):
            assert (await (await w.client()).ask(method + EXPECTING)).status == 504
    assert not down(w)


# A stale connection


async def test_a_try_on_a_fresh_connection_has_all_of_its_own_time() -> None:
    """The stale one was noticed after 250 of 300 ms; the fresh one answers after 200 ms."""
    async with world(retry=Retry(attempts=1, try_timeout_ms=300), timeouts=only()) as w:
        client = await w.client()
        await client.send(GET)
        stale = await w.upstreams[0].accept()
        await stale.read_request()
        await stale.send(OK)
        await client.read_response()
        await client.send(GET)
        await stale.read_request()
        await until_ms(250)
        w.upstreams[0].run(lambda peer: answer_after(peer, 0.2))
        stale.close()
        assert (await client.read_response()).status == 200
        assert now_ms() == 450
    assert outcomes(w.exchanges[1]) == [(0, "stale"), (0, "200")]
    assert errors_of_each(w) == [{}]
