"""Tries and time: one total deadline over all of them, and clients that leave in between."""

from __future__ import annotations

import pytest

from support.failing import (
    HANG,
    RESET,
    answer,
    errors_of_each,
    fix_jitter,
    log_tail,
    outcomes,
    play,
    play_together,
    requests_of_each,
    steady,
    tries,
)
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
    timeouts,
    until_ms,
)
from support.world import settings_for, upstream_settings, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase

A, B = ("10.1.0.1:9000", "10.1.0.2:9000")


async def test_the_total_deadline_spans_all_tries_and_pauses() -> None:
    """A pause of 12.5 ms, a read deadline of 400 ms and part of another; 504 at total_ms."""
    budgets = only(read_ms=400, total_ms=700)
    async with world(upstreams=steady(3), retry=tries(9), timeouts=budgets) as w:
        fix_jitter(w)
        came_at = play_together(w.upstreams, HANG, HANG, HANG)
        response = await (await w.client()).ask(GET)
        assert now_ms() == 700
        assert came_at == [0, 400]
        assert response.body == b"504 Gateway Timeout: total deadline passed (phase: await_head)\n"
    failed = w.exchanges[0]
    assert ending(failed) == (504, Reason.TOTAL_TIMEOUT, Source.UPSTREAM, Phase.AWAIT_HEAD)
    assert outcomes(failed) == [(0, "read_timeout"), (1, "total_timeout")]
    assert timeouts(w) == {"total": 1}
    assert errors_of_each(w) == [{"timeout": 1}, {"timeout": 1}, {}]


@pytest.mark.parametrize("deadline", ["connect", "read", "try"])
async def test_a_sole_upstream_that_took_too_long_is_not_asked_again(deadline: str) -> None:
    """That would only double the wait; one that fails in another way is."""
    budgets = only(**{f"{deadline}_ms": 400}) if deadline != "try" else only()
    retry = tries(3, try_timeout_ms=400 if deadline == "try" else 0)
    async with world(upstreams=steady(1), retry=retry, timeouts=budgets) as w:
        fix_jitter(w)
        if deadline == "connect":
            w.net.blackhole(w.upstreams[0].name)
        play(w.upstreams[0], HANG)
        assert (await (await w.client()).ask(GET)).status == 504
        assert now_ms() == 400
    assert outcomes(w.exchanges[0]) == [(0, f"{deadline}_timeout")]
    assert w.exchanges[0].not_retried == "no_upstream"


async def test_of_two_upstreams_that_take_too_long_each_is_asked_once() -> None:
    """However many attempts there may be."""
    async with world(upstreams=steady(2), retry=tries(9), timeouts=only(read_ms=400)) as w:
        play_together(w.upstreams, HANG, HANG, HANG)
        assert (await (await w.client()).ask(GET)).status == 504
        assert now_ms() == 800
    assert outcomes(w.exchanges[0]) == [(0, "read_timeout"), (1, "read_timeout")]


async def test_the_deadline_of_a_try_lies_within_the_total_one() -> None:
    """300 ms each for three, and the 100 ms that are left for the fourth."""
    async with world(upstreams=steady(4), retry=tries(9, 300), timeouts=only(total_ms=1000)) as w:
        came_at = [play(upstream, HANG) for upstream in w.upstreams]
        assert (await (await w.client()).ask(GET)).status == 504
        assert now_ms() == 1000
        assert came_at == [[0], [300], [600], [900]]
    assert [outcome for _, outcome in outcomes(w.exchanges[0])] == [
        *["try_timeout"] * 3,
        "total_timeout",
    ]


async def test_connecting_counts_too() -> None:
    """Three black holes of 300 ms connect_ms each, and 100 ms with a fourth."""
    budgets = only(connect_ms=300, total_ms=1000)
    async with world(upstreams=steady(4), retry=tries(9), timeouts=budgets) as w:
        for upstream in w.upstreams:
            w.net.blackhole(upstream.name)
        response = await (await w.client()).ask(GET)
        assert now_ms() == 1000
        assert response.body == b"504 Gateway Timeout: total deadline passed (phase: connect)\n"
    assert len(w.exchanges[0].tries) == 4


async def test_a_try_that_ends_with_the_total_deadline_is_the_last() -> None:
    """read_ms and total_ms at the same moment: nobody else is asked, and total is to blame."""
    budgets = only(read_ms=400, total_ms=400)
    async with world(upstreams=steady(2), retry=tries(2), timeouts=budgets) as w:
        play(w.upstreams[0], HANG)
        assert (await (await w.client()).ask(GET)).status == 504
        assert now_ms() == 400
    assert requests_of_each(w) == [1, 0]
    assert outcomes(w.exchanges[0]) == [(0, "total_timeout")]


async def test_no_pause_ends_beyond_the_total_deadline() -> None:
    """10 ms are left and the pause would be 12.5 ms: the failure is told at once."""
    async with world(upstreams=steady(1), retry=tries(2), timeouts=only(total_ms=10)) as w:
        fix_jitter(w)
        play(w.upstreams[0], RESET)
        response = await (await w.client()).ask(GET)
        assert now_ms() == 0
        assert response[b"proxy-status"] == b"trio-proxy; error=connection_terminated"
    line = log_tail(w.exchanges[0])
    assert line.startswith("tries=1 phase=await_head error=connection_reset")
    assert line.endswith(" not_retried=deadline tried=10.1.0.1:9000:connection_reset")


async def test_the_total_deadline_passes_while_a_retry_waits_in_the_queue() -> None:
    """504 in the phase pick; the log still says what the first try came to."""
    upstreams = [upstream_settings(each, max_fails=0, max_conns=1) for each in (A, B)]
    async with world(upstreams=upstreams, retry=tries(2), timeouts=only(total_ms=1000)) as w:
        play(w.upstreams[0], answer(200, b"ok", b"Connection: close\r\n"), RESET)
        first, second = await w.client(), await w.client()
        await first.ask(GET)
        await first.send(UPGRADE)
        await (await w.upstreams[1].accept()).send(SWITCH)  # a tunnel has no total
        await until_ms(500)
        assert (await second.ask(GET)).status == 504
        assert now_ms() == 1500
    failed = next(each for each in w.exchanges if each.ended_in is Phase.PICK)
    assert ending(failed) == (504, Reason.TOTAL_TIMEOUT, Source.PROXY, Phase.PICK)
    assert outcomes(failed) == [(0, "connection_reset")]
    assert errors_of_each(w)[0] == {"other": 1}


# Clients that leave


async def test_a_client_that_leaves_in_the_pause() -> None:
    """Nothing more is sent, and the log says when it left and what the try had come to."""
    async with world(upstreams=steady(1), retry=tries(2), timeouts=only()) as w:
        play(w.upstreams[0], answer(503, b"busy", b"Retry-After: 10\r\n"))
        client = await w.client()
        await client.send(GET)
        await until_ms(4000)
        assert connections(w) == (0, 1)
        client.close()
        await until_ms(4001)
        assert len(w.exchanges) == 1
        await until_ms(20_000)
    (exchange,) = w.exchanges
    assert ending(exchange) == (499, Reason.CLIENT_GONE, Source.CLIENT, Phase.PICK)
    assert round(exchange.ended_at, 6) == 4
    assert outcomes(exchange) == [(0, "503")]
    assert requests_of_each(w) == [1]
    assert w.proxy.stats.disconnects[Phase.PICK] == 1


async def test_what_a_try_came_to_is_not_rewritten_by_a_client_that_leaves_later() -> None:
    """A reset stays a reset in the log and in the metrics."""
    async with world(upstreams=steady(1), retry=tries(2), timeouts=only()) as w:
        fix_jitter(w, 0.9)
        play(w.upstreams[0], RESET)
        client = await w.client()
        await client.send(GET)
        await until_ms(15)
        client.close()
        await until_ms(1000)
    (exchange,) = w.exchanges
    assert ending(exchange)[:2] == (499, Reason.CLIENT_GONE)
    assert outcomes(exchange) == [(0, "connection_reset")]
    assert errors_of_each(w) == [{"other": 1}]


@pytest.mark.parametrize("by_reset", [False, True])
async def test_a_client_that_leaves_during_the_second_try(by_reset: bool) -> None:
    """The second upstream sees the end at once, and it is no failure of its."""
    async with world(upstreams=2, retry=tries(3), timeouts=only()) as w:
        play(w.upstreams[0], RESET)
        client = await w.client()
        await client.send(GET)
        second = await w.upstreams[1].accept()
        await second.read_request()
        await until_ms(700)
        if by_reset:
            client.abort()
        else:
            client.close()
        assert await how_it_ends(second) == (b"", "eof")
        assert now_ms() == 700
        assert connections(w, 1) == (0, 0)
    (exchange,) = w.exchanges
    assert ending(exchange) == (499, Reason.CLIENT_GONE, Source.CLIENT, Phase.AWAIT_HEAD)
    assert outcomes(exchange) == [(0, "connection_reset"), (1, "client_gone")]
    assert errors_of_each(w) == [{"other": 1}, {}]
    assert not [line for line in w.messages() if f"{B} down" in line]


async def test_a_client_that_leaves_while_the_second_try_connects() -> None:
    """The dial is given up at once."""
    async with world(upstreams=steady(2), retry=tries(3), timeouts=only()) as w:
        w.net.refuse(A)
        w.net.blackhole(B)
        client = await w.client()
        await client.send(GET)
        await until_ms(300)
        assert connections(w, 1) == (1, 0)
        client.close()
        await until_ms(301)
        assert connections(w, 1) == (0, 0)
    assert ending(w.exchanges[0])[:2] == (499, Reason.CLIENT_GONE)
    assert w.exchanges[0].ended_in is Phase.CONNECT


async def test_a_client_that_leaves_while_a_retry_waits_in_the_queue() -> None:
    """Its place goes to nobody, and the first upstream's failure stays told."""
    upstreams = [upstream_settings(each, max_fails=0, max_conns=1) for each in (A, B)]
    async with world(upstreams=upstreams, retry=tries(2), timeouts=only()) as w:
        play(w.upstreams[0], answer(200, b"ok", b"Connection: close\r\n"), RESET)
        first, second = await w.client(), await w.client()
        await first.ask(GET)
        await first.send(GET)
        busy = await w.upstreams[1].accept()
        await second.send(GET)
        await until_ms(100)
        assert w.proxy.pools["default"].queue_length == 1
        second.close()
        await until_ms(101)
        assert w.proxy.pools["default"].queue_length == 0
        await busy.read_request()
        await busy.send(OK)
        assert (await first.read_response()).body == b"ok"
    gone = next(each for each in w.exchanges if each.status == 499)
    assert outcomes(gone) == [(0, "connection_reset")]


async def test_a_client_that_half_closes_with_its_request_has_not_left() -> None:
    """It gets the answer of the second try, a pause later."""
    async with world(upstreams=steady(1), retry=tries(2), timeouts=only()) as w:
        play(w.upstreams[0], answer(503, b"busy", b"Retry-After: 3\r\n"))
        client = await w.client()
        await client.send(GET)
        client.send_eof()
        assert (await client.read_response()).body == b"ok"
        assert now_ms() == 3000


# Drains and reloads


async def test_a_pause_in_which_the_upstream_is_replaced() -> None:
    """The next try goes to an upstream of the new configuration."""
    async with world(upstreams=steady(1), retry=tries(2), timeouts=only()) as w:
        play(w.upstreams[0], answer(503, b"busy", b"Retry-After: 3\r\n"))
        play(await w.add_upstream("10.1.0.2:9000"))
        client = await w.client()
        await client.send(GET)
        await until_ms(1000)
        await w.reload(settings_for(["10.1.0.2:9000"], retry=tries(2), timeouts=only()))
        assert (await client.read_response()).body == b"ok"
        assert now_ms() == 3000
    assert outcomes(w.exchanges[0]) == [(0, "503"), (1, "200")]


async def test_a_drain_lets_a_retry_finish() -> None:
    """A pause of two seconds is within drain_ms."""
    budgets = only(drain_ms=5000)
    async with world(upstreams=steady(1), retry=tries(2), timeouts=budgets) as w:
        came_at = play(w.upstreams[0], answer(503, b"busy", b"Retry-After: 2\r\n"))
        client = await w.client()
        await client.send(GET)
        await until_ms(500)
        w.helpers.start_soon(w.proxy.drain)
        assert (await client.read_response()).body == b"ok"
        assert came_at == [0, 2000]


async def test_the_end_of_a_drain_cuts_a_pause_short() -> None:
    """503, as for any exchange that the drain cannot wait for."""
    async with world(upstreams=steady(1), retry=tries(2), timeouts=only()) as w:
        play(w.upstreams[0], answer(503, b"busy", b"Retry-After: 20\r\n"))
        client = await w.client()
        await client.send(GET)
        await until_ms(500)
        w.helpers.start_soon(w.proxy.drain)
        response = await client.read_response()
        assert now_ms() == 1500
        assert response[b"proxy-status"] == b"trio-proxy; error=proxy_internal_response"
    assert ending(w.exchanges[0])[:2] == (503, Reason.SHUTTING_DOWN)
    assert outcomes(w.exchanges[0]) == [(0, "503")]
