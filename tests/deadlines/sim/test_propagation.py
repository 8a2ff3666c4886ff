"""Deadlines from hop to hop: what is left goes out with each try, whoever set the deadline."""

from __future__ import annotations

import pytest
import trio

from support.failing import HANG, RESET, answer, fix_jitter, outcomes, play, steady, tries
from support.propagation import DEADLINE, GRPC, NAME, SENT, TRUSTING, get
from support.scenario import GET, OK, now_ms, only, until_ms
from support.world import upstream_settings, world
from trio_proxy.settings import HeaderSettings, Limits

# What the upstream is told


async def test_the_whole_budget_is_told_to_an_upstream_that_is_asked_at_once() -> None:
    """In whole milliseconds."""
    async with world(headers=SENT, timeouts=only(total_ms=30_000)) as w:
        w.upstreams[0].serve()
        await (await w.client()).ask(GET)
        assert w.upstreams[0].requests[0][DEADLINE] == b"30000"


async def test_without_a_deadline_nothing_is_told() -> None:
    """Neither is the field invented without a name for it."""
    for headers, budgets in ((SENT, only()), (HeaderSettings(), only(total_ms=1000))):
        async with world(headers=headers, timeouts=budgets) as w:
            w.upstreams[0].serve()
            await (await w.client()).ask(GET)
            assert DEADLINE not in w.upstreams[0].requests[0]


async def test_each_try_is_told_what_is_left() -> None:
    """400 ms less after one that hangs, and the pause before the next is counted too."""
    budgets = only(total_ms=10_000, read_ms=400)
    async with world(upstreams=steady(2), headers=SENT, retry=tries(3), timeouts=budgets) as w:
        fix_jitter(w)
        first = play(w.upstreams[0], HANG)
        second = play(w.upstreams[1], RESET, OK)
        assert (await (await w.client()).ask(GET)).status == 200
        assert first + second == [0, 400, 425]
        told = [each[DEADLINE] for upstream in w.upstreams for each in upstream.requests]
        assert told == [b"10000", b"9600", b"9575"]
    assert len(w.exchanges[0].tries) == 3


async def test_a_wait_in_the_queue_is_not_given_to_the_upstream() -> None:
    """Half a second in the queue leaves half a second."""
    limits = Limits(max_conns_per_upstream=1)
    async with world(headers=SENT, limits=limits, timeouts=only(total_ms=1000)) as w:
        first, second = await w.client(), await w.client()
        await first.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await second.send(GET)
        await until_ms(500)
        await upstream.send(OK)
        assert (await upstream.read_request())[DEADLINE] == b"500"
        await upstream.send(OK)
        assert (await second.read_response()).body == b"ok"


async def test_neither_is_the_time_to_connect() -> None:
    """The request leaves when the black hole is gone, with what is left then."""
    async with world(headers=SENT, timeouts=only(total_ms=1000)) as w:
        w.upstreams[0].serve()
        w.net.blackhole(w.upstreams[0].name)
        client = await w.client()
        await client.send(GET)
        await until_ms(700)
        w.net.heal(w.upstreams[0].name)
        assert (await client.read_response()).body == b"ok"
        assert w.upstreams[0].requests[0][DEADLINE] == b"300"


async def test_the_second_try_of_a_stale_connection_is_told_anew() -> None:
    """The dial took 600 ms of the budget."""
    async with world(headers=SENT, timeouts=only(total_ms=1000)) as w:
        client = await w.client()
        await client.send(GET)
        pooled = await w.upstreams[0].accept()
        await pooled.read_request()
        await pooled.send(OK)
        await client.read_response()
        await client.send(GET)
        assert (await pooled.read_request())[DEADLINE] == b"1000"
        w.net.blackhole(w.upstreams[0].name)
        pooled.close()
        await until_ms(600)
        w.upstreams[0].serve()
        w.net.heal(w.upstreams[0].name)
        assert (await client.read_response()).body == b"ok"
        assert w.upstreams[0].requests[0][DEADLINE] == b"400"


# With retries


async def test_it_spans_all_tries() -> None:
    """No try begins after it, and each is told what is left of it."""
    async with world(
        upstreams=steady(4), headers=TRUSTING, retry=tries(4, 300), timeouts=only(total_ms=5000)
    ) as w:
        for upstream in w.upstreams:
            play(upstream, HANG)
        client = await w.client()
        assert (await client.ask(get(b"grpc-timeout: 800m"))).status == 504
        assert now_ms() == 800
        told = [each[GRPC] for upstream in w.upstreams for each in upstream.requests]
        assert told == [b"800000u", b"500000u", b"200000u"]
    assert [outcome for _, outcome in outcomes(w.exchanges[0])] == [
        "try_timeout",
        "try_timeout",
        "total_timeout",
    ]


async def test_a_retry_after_beyond_it_is_passed_on() -> None:
    """Ours would have had the time, but nobody would wait for the answer."""
    busy = answer(503, b"busy", b"Retry-After: 2\r\n")
    async with world(headers=TRUSTING, retry=tries(2), timeouts=only(total_ms=5000)) as w:
        play(w.upstreams[0], busy)
        response = await (await w.client()).ask(get(NAME.encode() + b": 1500"))
        assert (response.status, response.body, now_ms()) == (503, b"busy", 0)
    assert w.exchanges[0].not_retried == "deadline"


async def test_a_wait_in_the_queue_ends_with_it() -> None:
    """504 in the phase pick, long before queue_ms."""
    upstreams = [upstream_settings("10.1.0.1:9000", max_conns=1)]
    async with world(upstreams=upstreams, headers=TRUSTING, timeouts=only(total_ms=5000)) as w:
        first, second = await w.client(), await w.client()
        play(w.upstreams[0], HANG)
        await first.send(GET)
        await trio.sleep(0.1)
        response = await second.ask(get(NAME.encode() + b": 250"))
        assert (response.status, now_ms()) == (504, 350)
        assert b"(phase: pick)" in response.body


@pytest.mark.parametrize("step", [RESET, answer(503)])
async def test_grpc_timeout_is_rewritten_at_each_try(step: str | bytes) -> None:
    """What is obeyed is told: an hour, but our total is 30 seconds."""
    async with world(
        upstreams=steady(2), headers=TRUSTING, retry=tries(2), timeouts=only(total_ms=30_000)
    ) as w:
        play(w.upstreams[0], step)
        play(w.upstreams[1])
        client = await w.client()
        assert (await client.ask(get(b"Grpc-Timeout: 1H"))).body == b"ok"
        told = [upstream.requests[0].all(GRPC) for upstream in w.upstreams]
        assert told == [[b"30000000u"], [b"30000000u"]]
