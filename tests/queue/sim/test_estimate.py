"""What must not lead astray the estimate by which requests are refused at once."""

from __future__ import annotations

import pytest

from support.crowd import Crowd, each_works, pool, rejected, told
from support.pools import A, B
from support.scenario import now_ms, until_ms
from support.world import world
from trio_proxy.settings import Balance

LONG = 600_000


async def bursts(crowd: Crowd, first: int, count: int, size: int, budget_ms: int) -> list[int]:
    """``size`` requests of 100 ms each second, ``count`` times; their numbers."""
    start = round(now_ms() / 1000) * 1000
    for burst in range(count):
        await until_ms(start + 1000 * burst)
        here = first + burst * size
        await crowd.hurry(budget_ms, *range(here, here + size))
    await until_ms(start + 1000 * count)
    return list(range(first, first + count * size))


async def test_a_long_stream_among_short_requests_has_nothing_shed() -> None:
    """Neither while it goes on for half a minute, nor when it has ended."""
    async with world(**pool(conns=4)) as w:
        crowd = each_works(w)
        await crowd.come(0, work=30_500)
        numbers = await bursts(crowd, 1, 40, 24, 1000)
        assert told(crowd, 0) == [(200, 30_500)]
        assert {crowd.ends.get(number, (0, 0))[0] for number in numbers} == {200}
    assert rejected(w) == {}


async def test_streams_among_the_very_first_requests_have_nothing_shed() -> None:
    """Three of the first eight that end are a hundred times as long as the rest."""
    async with world(**pool(conns=4)) as w:
        crowd = each_works(w)
        await crowd.come(0, 1, 2, work=10_000)
        await until_ms(9000)
        await crowd.come(3, 4)
        await until_ms(11_000)
        numbers = await bursts(crowd, 10, 5, 20, 1000)
        assert {crowd.ends.get(number, (0, 0))[0] for number in numbers} == {200}
    assert rejected(w) == {}


@pytest.mark.parametrize("gap_ms", [15, 50, 100])
async def test_a_stall_that_is_over_has_nothing_shed(gap_ms: int) -> None:
    """A stream holds the only connection for 20 s while others come; then all is as before."""
    async with world(**pool(queue_ms=1000)) as w:
        crowd = each_works(w)
        await crowd.come(*range(40), work=10)
        await crowd.come(40, work=20_000)
        number = 41
        for at in range(50, 20_390, 100):
            await until_ms(at)
            await crowd.hurry(800, number, work=10)
            number += 1
        await until_ms(20_450)
        assert crowd.ends[40] == (200, 20_400)
        after = range(number, number + 100)
        for each in after:
            await crowd.hurry(800, each, work=10)
            await until_ms(now_ms() + gap_ms)
        await until_ms(now_ms() + 1000)
        assert {crowd.ends.get(each, (0, 0))[0] for each in after} == {200}


@pytest.mark.parametrize("budget_ms", [500, 950])
async def test_an_upstream_that_has_become_fast_again_is_trusted_soon(budget_ms: int) -> None:
    """A minute of slow answers is forgotten after ten seconds of quick ones."""
    async with world(**pool(conns=2)) as w:
        crowd = each_works(w)
        for number in range(60):
            await until_ms(1000 * number)
            await crowd.hurry(1000, number, work=900)
        await until_ms(60_000)
        number, shed = 100, []
        for _ in range(20):
            await crowd.hurry(budget_ms, *range(number, number + 20), work=10)
            await until_ms(now_ms() + 1000)
            shed.append(sum(crowd.ends[n][0] != 200 for n in range(number, number + 20)))
            number += 20
        assert shed[12:] == [0] * 8


async def test_those_who_wait_for_another_upstream_do_not_count() -> None:
    """Forty are stuck to one that hangs; who takes any has nobody before it, and is let in."""
    sticky = Balance(sticky_cookie="at")
    async with world(upstreams=2, balance=sticky, **pool()) as w:
        crowd = each_works(w)
        cookie = {name: w.proxy.pools["default"].member(name).cookie.encode() for name in (A, B)}
        stuck = {name: b"Cookie: at=%s\r\n" % cookie[name] for name in (A, B)}
        await crowd.come(0, work=LONG, fields=stuck[B])
        await crowd.come(*range(1, 41), fields=stuck[B])
        await crowd.come(*range(50, 62))
        await until_ms(1150)
        assert crowd.waiting == 40
        await crowd.come(62, 63)
        await crowd.hurry(500, 64)
        await until_ms(2000)
        assert told(crowd, 62, 63, 64) == [(200, 1300), (200, 1400), (200, 1500)]
        await crowd.leave(0, *range(1, 41))
    assert rejected(w) == {}


async def test_clients_that_give_up_early_do_not_make_the_proxy_refuse_others() -> None:
    """Nor promise what cannot be kept: who waits still gets its answer."""
    async with world(**pool(conns=2)) as w:
        crowd = each_works(w)
        for number in range(0, 60, 2):
            await until_ms(50 * number)
            await crowd.come(number, number + 1)
            await until_ms(50 * number + 5)
            await crowd.leave(number, number + 1)
        await until_ms(4000)
        await crowd.hurry(1000, *range(100, 110))
        await until_ms(6000)
        ends = [(200, 4000 + 100 * (n // 2 + 1)) for n in range(10)]
        assert told(crowd, *range(100, 110)) == ends


async def test_a_hang_that_is_over_has_nothing_shed() -> None:
    """Deadlines that cut requests off say nothing of how long their work would have been."""
    async with world(**pool(conns=4)) as w:
        crowd = each_works(w)
        for second in range(3):
            await until_ms(1000 * second)
            await crowd.hurry(900, *range(4 * second, 4 * second + 4), work=LONG)
        await until_ms(3000)
        assert told(crowd, *range(12)) == [(504, 1000 * (n // 4) + 900) for n in range(12)]
        await crowd.hurry(900, *range(20, 60), work=10)
        await until_ms(5000)
        assert told(crowd, *range(20, 60)) == [(200, 3010 + 10 * (n // 4)) for n in range(40)]
    assert rejected(w) == {}
