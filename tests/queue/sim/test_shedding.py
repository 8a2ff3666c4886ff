"""Refusing at once what could not be served in time, and nothing else."""

from __future__ import annotations

from support.crowd import complaints, each_works, order, pool, rejected, told
from support.scenario import ending, refusal, until_ms
from support.world import world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.telemetry.accesslog import access_text


async def test_who_could_not_be_served_in_time_is_refused_at_once() -> None:
    """503 with Retry-After of the wait; who has the time for the same wait gets its answer."""
    async with world(**pool()) as w:
        crowd = each_works(w)
        await crowd.come(*range(20), work=1000)
        await until_ms(8500)
        assert crowd.waiting == 11
        await crowd.hurry(12_000, 20, work=1000)
        await crowd.hurry(14_000, 21, work=1000)
        assert told(crowd, 20, 21) == [(503, 8500), None]
        assert refusal(crowd.answers[20]) == (
            503,
            b"trio-proxy; error=connection_limit_reached",
            b"503 Service Unavailable: too busy to answer in time (phase: pick)\n",
        )
        assert crowd.retry_after(20) == 12
        await until_ms(30_000)
        assert told(crowd, 19, 21) == [(200, 20_000), (200, 21_000)]
    shed = crowd.exchange(20)
    assert ending(shed) == (503, Reason.QUEUE_SHED, Source.PROXY, Phase.PICK)
    assert shed.tries == []
    assert access_text(shed).endswith(" tries=0 phase=pick error=queue_shed")
    assert order(w.upstreams[0]) == [*range(20), 21]
    assert rejected(w) == {"queue_shed": 1}
    assert complaints(w, "pool default: shedding what could not be served in time") == 1


async def test_who_would_wait_longer_than_queue_ms_is_refused_at_once() -> None:
    """Instead of after queue_ms; the last that fits in is served."""
    async with world(**pool(queue_ms=5000)) as w:
        crowd = each_works(w)
        await crowd.come(*range(5), work=1000)
        for number in range(5, 13):
            await until_ms(1000 * (number - 5) + 500)
            await crowd.come(number, work=1000)
        await until_ms(8500)
        assert crowd.waiting == 4
        await crowd.come(13, 14, work=1000)
        assert told(crowd, 14) == [(503, 8500)]
        assert crowd.retry_after(14) == 6
        await until_ms(30_000)
        assert told(crowd, *range(14)) == [(200, 1000 * n) for n in range(1, 15)]
    assert rejected(w) == {"queue_shed": 1}


async def test_nothing_is_shed_on_a_guess() -> None:
    """With seven grants nobody knows anything: all wait until their own time is over."""
    async with world(**pool(queue_ms=750)) as w:
        crowd = each_works(w)
        await crowd.come(*range(30))
        await until_ms(740)
        await crowd.come(30)
        await crowd.hurry(50, 31)
        await until_ms(5000)
        assert told(crowd, 7, 8, 29, 30) == [(200, 800), (503, 750), (503, 750), (200, 900)]
        assert told(crowd, 31) == [(504, 790)]
    assert rejected(w) == {"queue_timeout": 22}


async def test_a_backlog_that_is_over_is_no_experience() -> None:
    """The next one begins without any: a crowd that comes at once is taken in, not shed."""
    async with world(**pool(queue_ms=1500)) as w:
        crowd = each_works(w)
        await crowd.come(*range(11))
        await until_ms(5000)
        await crowd.come(*range(20, 40), work=10)
        assert crowd.waiting == 19
        await until_ms(9000)
        assert told(crowd, *range(20, 40)) == [(200, 5000 + 10 * n) for n in range(1, 21)]
    assert rejected(w) == {}


async def test_a_turn_that_comes_too_late_is_not_taken() -> None:
    """What is left of its time is less than the work usually takes: 503, and no try."""
    async with world(**pool()) as w:
        crowd = each_works(w)
        for number in range(8):
            await crowd.come(number)
            await until_ms(100 * (number + 1))
        await crowd.come(8, work=400)
        await crowd.hurry(450, 9)
        await crowd.hurry(700, 10)
        assert crowd.waiting == 2
        await until_ms(3000)
        assert told(crowd, 8, 9, 10) == [(200, 1200), (503, 1200), (200, 1300)]
        assert order(w.upstreams[0]) == [*range(9), 10]
    assert ending(crowd.exchange(9)) == (503, Reason.QUEUE_SHED, Source.PROXY, Phase.PICK)


async def test_nothing_is_shed_while_there_is_room() -> None:
    """However little time a request has: the upstream may be quicker than it usually is."""
    async with world(**pool()) as w:
        crowd = each_works(w)
        for number in range(10):
            await crowd.come(number)
            await until_ms(100 * (number + 1))
        await crowd.hurry(30, 10, work=20)
        await until_ms(2000)
        assert told(crowd, 10) == [(200, 1020)]
    assert rejected(w) == {}


async def test_a_full_queue_tells_how_long_to_wait() -> None:
    """Retry-After is the estimate for one more, once there is one, and a second before."""
    async with world(**pool(max_queue=15)) as w:
        crowd = each_works(w)
        await crowd.come(*range(17), work=1000)
        assert crowd.retry_after(16) == 1
        for second in range(1, 10):
            await until_ms(1000 * second + 1)
            await crowd.come(16 + second, work=1000)
        await crowd.come(30)
        assert told(crowd, 30) == [(503, 9001)]
        assert crowd.retry_after(30) == 16
        await until_ms(60_000)
    assert crowd.reason(30) is Reason.QUEUE_FULL
