"""Retry-After of a 503 or 429: obeyed where the same upstream would be asked again."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from support.failing import (
    RESET,
    answer,
    fix_jitter,
    log_tail,
    outcomes,
    play,
    requests_of_each,
    steady,
)
from support.scenario import GET, now_ms, only
from support.world import world
from trio_proxy.settings import Retry


def busy(retry_after: bytes, status: int = 503) -> bytes:
    return answer(status, b"busy", b"Retry-After: " + retry_after + b"\r\n")


def tries(count: int = 2) -> Retry:
    return Retry(attempts=count, on=("reset", "429", "500", "503"))


@pytest.mark.parametrize("status", [429, 503])
async def test_the_same_upstream_is_asked_again_when_it_wishes(status: int) -> None:
    """Two seconds later, to the millisecond."""
    async with world(upstreams=steady(1), retry=tries(), timeouts=only()) as w:
        came_at = play(w.upstreams[0], busy(b"2", status))
        assert (await (await w.client()).ask(GET)).body == b"ok"
        assert came_at == [0, 2000]
    assert outcomes(w.exchanges[0]) == [(0, str(status)), (0, "200")]
    assert w.proxy.stats.retries == {str(status): 1}


async def test_a_date_is_obeyed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the time that is left until then by the wall clock."""
    now = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    async with world(upstreams=steady(1), retry=tries(), timeouts=only()) as w:
        came_at = play(w.upstreams[0], busy(formatdate(now + 7, usegmt=True).encode()))
        assert (await (await w.client()).ask(GET)).body == b"ok"
        assert came_at == [0, 7000]


@pytest.mark.parametrize(
    "value",
    [b"0", b"soon", b"-1", b"1.5", b"", b"Sun, 06 Nov 1994 08:49:37 GMT"],
)
async def test_a_wish_that_means_nothing_leaves_the_usual_pause(value: bytes) -> None:
    """Zero, nonsense, and a date that is over."""
    async with world(upstreams=steady(1), retry=tries(), timeouts=only()) as w:
        fix_jitter(w)
        came_at = play(w.upstreams[0], busy(value))
        assert (await (await w.client()).ask(GET)).body == b"ok"
        assert came_at == [0, 12.5]


async def test_other_statuses_have_no_such_wish() -> None:
    """Retry-After of a 500 means nothing (RFC 9110 §10.2.3)."""
    async with world(upstreams=steady(1), retry=tries(), timeouts=only()) as w:
        fix_jitter(w)
        came_at = play(w.upstreams[0], busy(b"2", 500))
        assert (await (await w.client()).ask(GET)).body == b"ok"
        assert came_at == [0, 12.5]


async def test_another_upstream_is_asked_at_once() -> None:
    """The wish is about the one that said it."""
    async with world(upstreams=steady(2), retry=tries(), timeouts=only()) as w:
        play(w.upstreams[0], busy(b"20"))
        play(w.upstreams[1])
        assert (await (await w.client()).ask(GET)).body == b"ok"
        assert now_ms() == 0
    assert requests_of_each(w) == [1, 1]


@pytest.mark.parametrize(("first", "second"), [(b"1", b"2"), (b"3", b"1"), (b"2", b"20")])
async def test_the_one_that_wishes_the_shorter_pause_is_asked_first(
    first: bytes, second: bytes
) -> None:
    """When every upstream has said so, the request waits for the nearest."""
    async with world(upstreams=steady(2), retry=tries(3), timeouts=only()) as w:
        came_at = [play(w.upstreams[0], busy(first)), play(w.upstreams[1], busy(second))]
        assert (await (await w.client()).ask(GET)).body == b"ok"
        shorter = min(int(first), int(second))
        sooner = 0 if shorter == int(first) else 1
        assert came_at[sooner] == [0, shorter * 1000]
        assert came_at[1 - sooner] == [0]


async def test_the_wish_of_the_last_one_counts_at_each_try() -> None:
    """One second, then two, then half of a usual pause."""
    async with world(upstreams=steady(1), retry=tries(4), timeouts=only()) as w:
        fix_jitter(w)
        came_at = play(w.upstreams[0], busy(b"1"), busy(b"2"), answer(500))
        assert (await (await w.client()).ask(GET)).body == b"ok"
        assert came_at == [0, 1000, 3000, 3050]


async def test_one_that_made_no_wish_is_asked_before_one_that_did() -> None:
    """The first was reset and can be asked soon; the second asked for ten seconds."""
    async with world(upstreams=steady(2), retry=tries(3), timeouts=only()) as w:
        fix_jitter(w)
        came_at = [play(w.upstreams[0], RESET), play(w.upstreams[1], busy(b"10"))]
        assert (await (await w.client()).ask(GET)).body == b"ok"
        assert came_at == [[0, 25], [0]]


async def test_a_wish_is_heeded_although_the_other_upstream_is_out() -> None:
    """Whoever is asked at the third try: the second upstream is not, before its second is over."""
    async with world(upstreams=2, retry=tries(3), timeouts=only()) as w:
        fix_jitter(w)
        came_at = [play(w.upstreams[0], RESET), play(w.upstreams[1], busy(b"1"))]
        assert (await (await w.client()).ask(GET)).body == b"ok"
        assert len(came_at[0] + came_at[1]) == 3
        assert all(at == 0 or at >= 1000 for at in came_at[1])


# Too long


@pytest.mark.parametrize(("wish", "total_ms"), [(b"2", 1000), (b"2", 2000), (b"31", 30_000)])
async def test_a_wish_beyond_the_deadline_is_passed_on(wish: bytes, total_ms: int) -> None:
    """The client gets the answer as it is, at once, and can heed the wish itself."""
    async with world(upstreams=steady(1), retry=tries(), timeouts=only(total_ms=total_ms)) as w:
        play(w.upstreams[0], busy(wish))
        response = await (await w.client()).ask(GET)
        assert now_ms() == 0
        assert (response.status, response.body) == (503, b"busy")
        assert response[b"retry-after"] == wish
        assert b"proxy-status" not in response
    assert log_tail(w.exchanges[0]) == (
        "tries=1 phase=stream not_retried=deadline tried=10.1.0.1:9000:503"
    )
    assert w.proxy.stats.retries == {}


async def test_a_wish_of_more_than_a_minute_is_passed_on() -> None:
    """Without any deadline a client would wait for an hour."""
    async with world(upstreams=steady(1), retry=tries(), timeouts=only()) as w:
        play(w.upstreams[0], busy(b"3600"))
        assert (await (await w.client()).ask(GET)).status == 503
        assert now_ms() == 0
    assert w.exchanges[0].not_retried == "deadline"


async def test_a_wish_just_within_the_deadline_is_obeyed() -> None:
    """And the rest of the time is the second try's."""
    async with world(upstreams=steady(1), retry=tries(), timeouts=only(total_ms=2100)) as w:
        came_at = play(w.upstreams[0], busy(b"2"), "hang")
        response = await (await w.client()).ask(GET)
        assert came_at == [0, 2000]
        assert response.status == 504
        assert now_ms() == 2100
    assert outcomes(w.exchanges[0]) == [(0, "503"), (0, "total_timeout")]


async def test_without_a_further_try_the_wish_is_passed_on() -> None:
    """attempts are used up: the last answer is relayed with its Retry-After and body."""
    async with world(upstreams=steady(1), retry=tries(), timeouts=only()) as w:
        came_at = play(w.upstreams[0], busy(b"1"), busy(b"5"))
        response = await (await w.client()).ask(GET)
        assert came_at == [0, 1000]
        assert (response.status, response.body) == (503, b"busy")
        assert response[b"retry-after"] == b"5"
    assert w.exchanges[0].not_retried == "attempts"
