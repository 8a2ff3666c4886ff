"""How many may wait and for how long: max_queue, queue_ms, the request's own deadline."""

from __future__ import annotations

import pytest

from support.crowd import OBEYED, complaints, each_works, order, rejected, told
from support.scenario import ending, now_ms, only, timeouts, until_ms, upstream_errors
from support.world import settings_for, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.settings import Limits
from trio_proxy.telemetry.metrics import build_registry, render


def one(**limits: object) -> Limits:
    """One connection to each upstream."""
    return Limits(max_conns_per_upstream=1, **limits)  # type: ignore[arg-type]


async def test_a_full_queue_turns_away_at_once_whatever_is_behind_it() -> None:
    """Each beyond max_queue gets 503 in the moment it comes; those who wait are all served."""
    async with world(timeouts=only(), limits=one(max_queue=3, queue_ms=0)) as w:
        crowd = each_works(w)
        await crowd.come(*range(6))
        assert crowd.waiting == 3
        assert told(crowd, 4, 5) == [(503, 0), (503, 0)]
        assert crowd.answers[4][b"retry-after"] == b"1"
        await until_ms(100)
        await crowd.come(6)
        await until_ms(1000)
        assert told(crowd, 0, 1, 2, 3, 6) == [(200, 100 * n) for n in (1, 2, 3, 4, 5)]
    assert [crowd.reason(n) for n in (4, 5)] == [Reason.QUEUE_FULL] * 2
    assert order(w.upstreams[0]) == [0, 1, 2, 3, 6]
    assert rejected(w) == {"queue_full": 2}
    assert complaints(w, "limits.max_queue reached") == 1


async def test_a_waiter_is_refused_at_queue_ms_and_frees_its_place() -> None:
    """503 at the exact moment, counted from its own arrival; the next one may wait then."""
    async with world(timeouts=only(), limits=one(max_queue=2, queue_ms=250)) as w:
        crowd = each_works(w)
        await crowd.come(0, work=10_000)
        await crowd.come(1)
        await until_ms(100)
        await crowd.come(2, 3)
        assert told(crowd, 3) == [(503, 100)]
        await until_ms(250)
        await crowd.come(4)
        assert crowd.waiting == 2
        await until_ms(1000)
        assert told(crowd, 1, 2, 4) == [(503, 250), (503, 350), (503, 500)]
        assert crowd.waiting == 0
        await crowd.leave(0)
    assert ending(crowd.exchange(1)) == (503, Reason.QUEUE_TIMEOUT, Source.PROXY, Phase.PICK)
    assert crowd.exchange(1).tries == []
    assert rejected(w) == {"queue_full": 1, "queue_timeout": 3}
    assert order(w.upstreams[0]) == [0]
    assert upstream_errors(w) == {}


async def test_no_wait_goes_past_the_total_deadline() -> None:
    """504 at total_ms if queue_ms is later; no try was made, and no upstream is to blame."""
    limits = one(queue_ms=5000)
    async with world(timeouts=only(), limits=limits) as w:
        crowd = each_works(w)
        await crowd.come(0, work=10_000)
        await w.reload(settings_for(timeouts=only(total_ms=300), limits=limits))
        await until_ms(50)
        await crowd.come(1, 2)
        await until_ms(11_000)
        assert told(crowd, 0, 1, 2) == [(200, 10_000), (504, 350), (504, 350)]
    assert ending(crowd.exchange(1)) == (504, Reason.TOTAL_TIMEOUT, Source.PROXY, Phase.PICK)
    assert crowd.exchange(1).tries == []
    assert order(w.upstreams[0]) == [0]
    assert timeouts(w) == {"total": 2}
    assert upstream_errors(w) == {}


async def test_no_wait_goes_past_an_inherited_deadline() -> None:
    """A trusted peer's budget ends the wait before queue_ms and total_ms do."""
    limits = one(queue_ms=5000)
    async with world(timeouts=only(total_ms=8000), limits=limits, headers=OBEYED) as w:
        crowd = each_works(w)
        await crowd.come(0, work=6000)
        await crowd.hurry(120, 1)
        await crowd.come(2, fields=b"X-Budget: 120\r\n")
        await until_ms(4000)
        assert told(crowd, 1, 2) == [(504, 120), None]
        await until_ms(9000)
        assert told(crowd, 0, 2) == [(200, 6000), (503, 5000)]
    assert ending(crowd.exchange(1)) == (504, Reason.TOTAL_TIMEOUT, Source.PROXY, Phase.PICK)


async def test_what_the_queue_has_used_up_is_not_sent_on_as_a_budget() -> None:
    """The upstream is told of the rest after the wait, and the total deadline ends it there."""
    async with world(timeouts=only(total_ms=500), limits=one(), headers=OBEYED) as w:
        crowd = each_works(w)
        await crowd.come(0, work=150)
        await crowd.come(1, work=400)
        await until_ms(1000)
        assert told(crowd, 0, 1) == [(200, 150), (504, 500)]
        budgets = [request[b"x-budget"] for request in w.upstreams[0].requests]
        assert budgets == [b"500", b"350"]


@pytest.mark.parametrize("rest", [0, 1, 99])
async def test_a_connection_that_comes_free_just_in_time(rest: int) -> None:
    """A waiter is served in the last moment before queue_ms; the one behind it has its own time."""
    async with world(timeouts=only(), limits=one(queue_ms=400)) as w:
        crowd = each_works(w)
        await crowd.come(0, work=399)
        await crowd.come(1, work=300 - rest)
        await until_ms(300)
        await crowd.come(2)
        await until_ms(2000)
        served, last = 699 - rest, 799 - rest
        assert told(crowd, 0, 1, 2) == [(200, 399), (200, served), (200, last)]


async def test_no_deadline_at_all() -> None:
    """queue_ms = 0 and total_ms = 0: whoever waits an hour is served in the end."""
    async with world(timeouts=only(), limits=one(queue_ms=0)) as w:
        crowd = each_works(w)
        await crowd.come(0, work=3_600_000)
        await crowd.come(1)
        await until_ms(4_000_000)
        assert told(crowd, 0, 1) == [(200, 3_600_000), (200, 3_600_100)]


async def test_a_smaller_max_queue_by_reload_disturbs_nobody_who_waits() -> None:
    """They go on waiting, newcomers are refused until there is room under the new bound."""
    async with world(timeouts=only(), limits=one(max_queue=5, queue_ms=0)) as w:
        crowd = each_works(w)
        await crowd.come(*range(5))
        await w.reload(settings_for(timeouts=only(), limits=one(max_queue=2, queue_ms=0)))
        assert crowd.waiting == 4
        await crowd.come(5)
        await until_ms(250)
        assert crowd.waiting == 2
        await crowd.come(6)
        await until_ms(301)
        assert crowd.waiting == 1
        await crowd.come(7)
        await until_ms(2000)
        assert told(crowd, 5, 6) == [(503, 0), (503, 250)]
        assert told(crowd, 1, 2, 3, 4, 7) == [(200, 100 * n) for n in (2, 3, 4, 5, 6)]


async def test_a_shorter_queue_ms_by_reload_is_for_newcomers() -> None:
    """Who waits already keeps the time that it was given."""
    async with world(timeouts=only(), limits=one(queue_ms=1000)) as w:
        crowd = each_works(w)
        await crowd.come(0, work=5000)
        await crowd.come(1)
        await w.reload(settings_for(timeouts=only(), limits=one(queue_ms=200)))
        await crowd.come(2)
        await until_ms(6000)
        assert told(crowd, 0, 1, 2) == [(200, 5000), (503, 1000), (503, 200)]


async def test_the_metric_shows_the_length_of_the_queue() -> None:
    """3, then 1 after one was served and another has left, 0 in the end."""

    def shown() -> bytes:
        page, _ = render(build_registry(w.proxy.stats), "")
        (line,) = [each for each in page.splitlines() if each.startswith(b"proxy_queue_length{")]
        return line

    async with world(timeouts=only(), limits=one(queue_ms=0)) as w:
        crowd = each_works(w)
        assert shown() == b'proxy_queue_length{pool="default"} 0.0'
        await crowd.come(*range(4))
        assert shown() == b'proxy_queue_length{pool="default"} 3.0'
        await until_ms(150)
        await crowd.leave(2)
        assert shown() == b'proxy_queue_length{pool="default"} 1.0'
        await until_ms(1000)
        assert shown() == b'proxy_queue_length{pool="default"} 0.0'
        assert told(crowd, 0, 1, 2, 3) == [(200, 100), (200, 200), None, (200, 300)]
    assert crowd.reason(2) is Reason.CLIENT_GONE


async def test_a_crowd_is_logged_by_name_and_not_by_the_thousand() -> None:
    """One warning when a queue forms, one when it is full, however many come."""
    async with world(timeouts=only(), limits=one(max_queue=10, queue_ms=0)) as w:
        crowd = each_works(w)
        await crowd.come(*range(40), work=1)
        await until_ms(100)
        assert now_ms() == 100
        statuses = [crowd.ends[number][0] for number in range(40)]
        assert (statuses.count(200), statuses.count(503)) == (11, 29)
    assert complaints(w, "pool default: every upstream is at max_conns, queueing") == 1
    assert complaints(w, "pool default: limits.max_queue reached") == 1
