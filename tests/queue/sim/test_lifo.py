"""``queue = "lifo"``: while the queue stands the newest come first, who have the most time left.

Requests take 60 ms each on one connection, the target is 100 ms. So a backlog is first in, first
out at 60, 120 and 180 ms, where nobody has waited for longer than the target during the 100 ms of
CoDel's interval; from 240 ms on it stands.
"""

from __future__ import annotations

from typing import Any

import pytest

from support.crowd import OBEYED, each_works, order, rejected, told
from support.pools import A, B
from support.scenario import now_ms, only, until_ms
from support.world import settings_for, world
from trio_proxy.http.errors import Reason
from trio_proxy.settings import Balance, Limits


def bounds(queue: str = "lifo", **limits: int) -> Limits:
    rules: dict[str, Any] = {"queue": queue, "queue_ms": 0, **limits}
    return Limits(max_conns_per_upstream=1, **rules)


def lifo(**limits: int) -> dict[str, Any]:
    return {"timeouts": only(), "headers": OBEYED, "limits": bounds(**limits)}


async def test_a_queue_that_stands_is_served_from_its_end() -> None:
    """The first four in their order, then whoever came last, until it is empty."""
    async with world(**lifo()) as w:
        crowd = each_works(w)
        await crowd.come(*range(10), work=60)
        await until_ms(350)
        await crowd.come(10, work=60)
        await until_ms(2000)
        assert order(w.upstreams[0]) == [0, 1, 2, 3, 9, 8, 10, 7, 6, 5, 4]
        assert told(crowd, 9, 10, 4) == [(200, 300), (200, 420), (200, 660)]
    assert rejected(w) == {}


async def test_first_in_first_out_unless_told_otherwise() -> None:
    """The same crowd with queue = "fifo", which is the default."""
    tables = {**lifo(), "limits": Limits(max_conns_per_upstream=1, queue_ms=0)}
    async with world(**tables) as w:
        crowd = each_works(w)
        await crowd.come(*range(10), work=60)
        await until_ms(350)
        await crowd.come(10, work=60)
        await until_ms(2000)
        assert order(w.upstreams[0]) == list(range(11))


async def test_a_burst_keeps_its_order() -> None:
    """Nobody waits for as long as the target, so the queue does what a queue is for."""
    async with world(**lifo()) as w:
        crowd = each_works(w)
        for burst in range(5):
            await crowd.come(*range(10 * burst, 10 * burst + 5), work=20)
            await until_ms(200 * (burst + 1))
        assert order(w.upstreams[0]) == [10 * burst + n for burst in range(5) for n in range(5)]


@pytest.mark.parametrize(("target", "oldest_first"), [(10, 3), (100, 4), (200, 6), (300, 7)])
async def test_the_target_is_a_key(target: int, oldest_first: int) -> None:
    """So many are served in their order before the queue stands."""
    async with world(**lifo(queue_target_ms=target)) as w:
        crowd = each_works(w)
        await crowd.come(*range(20), work=60)
        await until_ms(3000)
        newest = list(range(19, oldest_first - 1, -1))
        assert order(w.upstreams[0]) == [*range(oldest_first), *newest]


async def test_after_the_overload_it_is_first_in_first_out_again() -> None:
    """From the moment at which nobody waits; the next backlog has to stand for itself."""
    async with world(**lifo()) as w:
        crowd = each_works(w)
        await crowd.come(*range(8), work=60)
        await until_ms(1000)
        assert order(w.upstreams[0]) == [0, 1, 2, 3, 7, 6, 5, 4]
        await crowd.come(*range(20, 23), work=60)
        await until_ms(1100)
        await crowd.come(23, work=10)
        await until_ms(2000)
        assert order(w.upstreams[0])[8:] == [20, 21, 22, 23]


async def test_the_oldest_are_refused_when_their_time_is_up() -> None:
    """At queue_ms each, though the queue moves all the time; the newest lose nothing by it."""
    async with world(**lifo(queue_ms=400)) as w:
        crowd = each_works(w)
        await crowd.come(*range(8), work=60)
        number = 8
        while now_ms() < 1000:
            await until_ms(60 * (number - 3) - 30)
            await crowd.come(number, work=60)
            number += 1
        await until_ms(3000)
        assert told(crowd, 4, 5, 6, 7) == [(503, 400), (503, 400), (503, 400), (200, 300)]
        late = range(8, number)
        assert [crowd.ends[n][0] for n in late] == [200] * len(late)
        assert all(crowd.ends[n][1] == 60 * (n - 3) + 60 for n in late)
    assert crowd.reason(4) is Reason.QUEUE_TIMEOUT


async def test_a_newcomer_is_not_refused_for_those_who_come_after_it_now() -> None:
    """With 200 ms left it is let in past fifteen that wait, and served at the next turn."""
    async with world(**lifo()) as w:
        crowd = each_works(w)
        await crowd.come(*range(25), work=60)
        await until_ms(610)
        assert crowd.waiting == 14
        await crowd.hurry(200, 30, work=60)
        await until_ms(3000)
        assert told(crowd, 30) == [(200, 720)]
    assert rejected(w) == {}


async def test_a_turn_that_comes_too_late_is_not_taken() -> None:
    """The oldest come last: those with no time left are refused then, without a try."""
    async with world(**lifo()) as w:
        crowd = each_works(w)
        await crowd.come(*range(4), work=60)
        await crowd.hurry(950, 4, 5, work=60)
        await crowd.come(*range(6, 16), work=60)
        await until_ms(3000)
        assert order(w.upstreams[0]) == [0, 1, 2, 3, *range(15, 5, -1), 5]
        assert told(crowd, 5, 4) == [(200, 900), (503, 900)]
    assert crowd.reason(4) is Reason.QUEUE_SHED


async def test_of_those_who_can_use_an_upstream_the_newest_is_next() -> None:
    """The newest of all is stuck to the other one, and in nobody's way."""
    tables = {**lifo(), "balance": Balance(sticky_cookie="at"), "upstreams": 2}
    async with world(**tables) as w:
        crowd = each_works(w)
        cookie = {name: w.proxy.pools["default"].member(name).cookie.encode() for name in (A, B)}
        at_b = b"Cookie: at=%s\r\n" % cookie[B]
        await crowd.come(0, work=60, fields=b"Cookie: at=%s\r\n" % cookie[A])
        await crowd.come(1, work=1000, fields=at_b)
        await crowd.come(*range(2, 9), work=60)
        await crowd.come(9, 10, work=60, fields=at_b)
        await until_ms(3000)
        assert order(w.upstreams[0]) == [0, 2, 3, 4, 8, 7, 6, 5]
        assert order(w.upstreams[1]) == [1, 10, 9]


async def test_a_reload_to_fifo_holds_for_the_next_turn() -> None:
    """Though the queue stands: from then on the oldest is next."""
    async with world(**lifo()) as w:
        crowd = each_works(w)
        await crowd.come(*range(10), work=60)
        await until_ms(270)
        await w.reload(settings_for(timeouts=only(), headers=OBEYED, limits=bounds("fifo")))
        await until_ms(2000)
        assert order(w.upstreams[0]) == [0, 1, 2, 3, 9, 4, 5, 6, 7, 8]


async def test_a_reload_to_lifo_holds_for_those_who_wait() -> None:
    """Once the queue is seen to stand, an interval later."""
    async with world(timeouts=only(), limits=bounds("fifo")) as w:
        crowd = each_works(w)
        await crowd.come(*range(12), work=60)
        await until_ms(350)
        await w.reload(settings_for(timeouts=only(), limits=bounds("lifo")))
        await until_ms(2000)
        # Seen to be over the target at 350 ms, so it stands from 450 on.
        assert order(w.upstreams[0]) == [*range(8), 11, 10, 9, 8]


async def test_whoever_leaves_is_skipped() -> None:
    """Newest or oldest, while the queue stands."""
    async with world(**lifo()) as w:
        crowd = each_works(w)
        await crowd.come(*range(10), work=60)
        await until_ms(250)
        await crowd.leave(8, 4)
        assert crowd.waiting == 3
        await until_ms(2000)
        assert order(w.upstreams[0]) == [0, 1, 2, 3, 9, 7, 6, 5]
