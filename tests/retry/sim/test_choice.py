"""Where a request is tried again, and when: elsewhere at once, or here after a pause."""

from __future__ import annotations

from itertools import chain, pairwise

import pytest
import trio

from support.failing import (
    RESET,
    answer,
    fix_jitter,
    outcomes,
    play,
    play_together,
    requests_of_each,
    steady,
    tries,
)
from support.scenario import GET, OK, now_ms, only
from support.world import upstream_settings, world
from trio_proxy.settings import BreakerSettings, Retry
from trio_proxy.testing import SimNet

A, B, C = ("10.1.0.1:9000", "10.1.0.2:9000", "10.1.0.3:9000")


async def test_each_try_goes_to_another_upstream_without_a_pause() -> None:
    """In balancing order, all within no time."""
    async with world(upstreams=steady(3), retry=tries(3), timeouts=only()) as w:
        w.net.refuse(A)
        play(w.upstreams[1], RESET)
        play(w.upstreams[2])
        client = await w.client()
        assert (await client.ask(GET)).body == b"ok"
        assert now_ms() == 0
    assert outcomes(w.exchanges[0]) == [
        (0, "connection_refused"),
        (1, "connection_reset"),
        (2, "200"),
    ]
    assert w.proxy.stats.retries == {"connection_refused": 1, "connection_reset": 1}


async def test_one_attempt_is_no_retry() -> None:
    """502 from the first upstream; the second is left alone."""
    async with world(upstreams=steady(2), retry=tries(1), timeouts=only()) as w:
        w.net.refuse(A)
        play(w.upstreams[1])
        assert (await (await w.client()).ask(GET)).status == 502
    assert requests_of_each(w) == [1, 0]
    assert w.exchanges[0].not_retried == ""


async def test_a_sole_upstream_is_tried_again_after_a_pause() -> None:
    """Half of 25 ms, for a random number in the middle."""
    async with world(upstreams=steady(1), retry=tries(2), timeouts=only()) as w:
        fix_jitter(w)
        came_at = play(w.upstreams[0], RESET)
        assert (await (await w.client()).ask(GET)).body == b"ok"
        assert came_at == [0, 12.5]
    assert outcomes(w.exchanges[0]) == [(0, "connection_reset"), (0, "200")]


async def test_pauses_grow_up_to_a_bound() -> None:
    """Half of 25, 50, 100, 200, 250 and 250 ms."""
    async with world(upstreams=steady(1), retry=tries(7), timeouts=only()) as w:
        fix_jitter(w)
        came_at = play(w.upstreams[0], *[RESET] * 6)
        assert (await (await w.client()).ask(GET)).body == b"ok"
        assert came_at == [0, 12.5, 37.5, 87.5, 187.5, 312.5, 437.5]


@pytest.mark.parametrize("seed", range(10))
async def test_pauses_are_drawn_from_nothing_to_their_bound(seed: int) -> None:
    """Whatever the random number: none is longer than its share allows."""
    async with world(
        upstreams=steady(1), network=SimNet(seed=seed), retry=tries(6), timeouts=only()
    ) as w:
        came_at = play(w.upstreams[0], *[RESET] * 5)
        assert (await (await w.client()).ask(GET)).body == b"ok"
        pauses = [after - before for before, after in pairwise(came_at)]
        bounds = (25, 50, 100, 200, 250)
        assert all(0 <= pause < most for pause, most in zip(pauses, bounds, strict=True))
        assert len(set(pauses)) == 5


async def test_clients_that_failed_together_do_not_come_back_together() -> None:
    """A hundred requests that met the same reset are spread over the 25 ms that follow."""
    async with world(upstreams=steady(1), retry=Retry(budget_percent=100), timeouts=only()) as w:
        came_at = play(w.upstreams[0], *[RESET] * 100)
        clients = [await w.client() for _ in range(100)]
        for client in clients:
            await client.send(GET)
        for client in clients:
            assert (await client.read_response()).body == b"ok"
        again = sorted(came_at)[100:]
        assert len(again) == 100
        assert all(0 < at < 25 for at in again)
        for third in range(3):
            assert sum(third * 8 <= at < (third + 1) * 8 + 1 for at in again) > 10


async def test_more_tries_than_upstreams() -> None:
    """Three at once on three upstreams, and then two more with pauses."""
    async with world(upstreams=steady(3), retry=tries(5), timeouts=only()) as w:
        fix_jitter(w)
        came_at = [play(upstream, RESET, RESET, RESET) for upstream in w.upstreams]
        response = await (await w.client()).ask(GET)
        assert response.status == 502
        assert sorted(chain(*came_at)) == [0, 0, 0, 50, 150]
        assert all(at[:1] == [0] for at in came_at)
    assert sum(requests_of_each(w)) == 5
    assert len(w.exchanges[0].tries) == 5
    assert w.exchanges[0].not_retried == "attempts"
    assert w.proxy.stats.retries == {"connection_reset": 4}


async def test_an_upstream_that_is_out_is_asked_before_the_same_one_again() -> None:
    """When all are out, health is no guide; one that has not failed this request is better."""
    async with world(upstreams=2, retry=tries(2), timeouts=only()) as w:
        came_at = play_together(w.upstreams, RESET, RESET, RESET)
        client = await w.client()
        assert (await client.ask(GET)).status == 502
        assert (await client.ask(GET)).body == b"ok"
        assert came_at == [0, 0, 0, 0]
    assert requests_of_each(w) == [2, 2]


async def test_who_failed_the_last_request_is_not_asked_again_while_others_are_there() -> None:
    """The retry's failure counts for the upstream as any: max_fails = 1 takes it out."""
    async with world(upstreams=2, retry=tries(2), timeouts=only()) as w:
        play(w.upstreams[0], RESET)
        play(w.upstreams[1])
        client = await w.client()
        for _ in range(5):
            assert (await client.ask(GET)).body == b"ok"
    assert requests_of_each(w) == [1, 5]
    assert [line for line in w.messages() if "down" in line] == [
        f"upstream {A} down: connection_reset (max_fails=1 within 10 s), not used for 10 s"
    ]


async def test_a_backup_is_asked_when_every_primary_has_failed_the_request() -> None:
    """As nginx does, although the primary is not out yet."""
    upstreams = [upstream_settings(A, max_fails=3), upstream_settings(B, backup=True)]
    async with world(upstreams=upstreams, retry=tries(2), timeouts=only()) as w:
        play(w.upstreams[0], RESET)
        play(w.upstreams[1])
        assert (await (await w.client()).ask(GET)).body == b"ok"
        assert now_ms() == 0
    assert outcomes(w.exchanges[0]) == [(0, "connection_reset"), (1, "200")]


async def test_a_backup_is_not_asked_while_a_primary_is_left() -> None:
    """The retry goes to the other primary."""
    upstreams = [*steady(2), upstream_settings(C, backup=True)]
    async with world(upstreams=upstreams, retry=tries(2), timeouts=only()) as w:
        play(w.upstreams[0], RESET)
        play(w.upstreams[1])
        assert (await (await w.client()).ask(GET)).body == b"ok"
    assert requests_of_each(w) == [1, 1, 0]


async def test_an_upstream_that_drains_is_not_asked() -> None:
    """Also when the only other one has just failed the request."""
    async with world(upstreams=steady(2), retry=tries(2), timeouts=only()) as w:
        w.proxy.pools["default"].drain(B)
        fix_jitter(w)
        came_at = play(w.upstreams[0], RESET)
        play(w.upstreams[1])
        assert (await (await w.client()).ask(GET)).body == b"ok"
        assert came_at == [0, 12.5]
    assert requests_of_each(w) == [2, 0]


BREAKER = BreakerSettings(min_requests=1, error_percent=1, open_ms=5000)


async def test_a_breaker_that_opens_by_a_failure_does_not_hide_it() -> None:
    """Nobody may be asked again, so the client is told what befell the one that was."""
    async with world(upstreams=1, retry=tries(2), timeouts=only(), breaker=BREAKER) as w:
        play(w.upstreams[0], RESET)
        response = await (await w.client()).ask(GET)
        assert response.status == 502
        assert response[b"proxy-status"] == b"trio-proxy; error=connection_terminated"
    assert outcomes(w.exchanges[0]) == [(0, "connection_reset")]


async def test_a_breaker_that_opens_by_a_status_does_not_hide_the_answer() -> None:
    """The upstream's own 503 goes to the client, as there is nobody else to ask."""
    async with world(upstreams=1, retry=tries(2), timeouts=only(), breaker=BREAKER) as w:
        play(w.upstreams[0], answer(503, b"my own"))
        response = await (await w.client()).ask(GET)
        assert (response.status, response.body) == (503, b"my own")
    assert outcomes(w.exchanges[0]) == [(0, "503")]


async def test_a_retry_waits_for_another_upstream_that_is_full() -> None:
    """Rather than ask the one that has just failed it."""
    upstreams = [upstream_settings(each, max_fails=0, max_conns=1) for each in (A, B)]
    async with world(upstreams=upstreams, retry=tries(2), timeouts=only()) as w:
        first, second = await w.client(), await w.client()
        play(w.upstreams[0], answer(200, fields=b"Connection: close\r\n"), RESET)
        await first.ask(GET)
        await first.send(GET)
        busy = await w.upstreams[1].accept()
        await second.send(GET)
        await trio.sleep(1)
        assert w.proxy.pools["default"].queue_length == 1
        await busy.read_request()
        await busy.send(OK)
        await busy.read_request()
        await busy.send(OK)
        assert (await first.read_response()).body == b"ok"
        assert (await second.read_response()).body == b"ok"
        assert now_ms() == 1000
    assert requests_of_each(w) == [2, 2]
