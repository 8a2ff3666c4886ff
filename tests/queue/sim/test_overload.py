"""Twice the load that the upstreams can bear: the proxy still does what can be done.

Requests come by chance and do not wait for one another (an open loop), for a minute; the upstream
works on so many at a time, also on those that nobody waits for any more. Goodput is what was
answered in time; a request is admitted once it has got an upstream connection.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Literal

import pytest
import trio
from attrs import frozen

from support.crowd import Crowd, works
from support.scenario import only, until_ms
from support.world import run, world
from trio_proxy.http.errors import Reason
from trio_proxy.settings import Limits
from trio_proxy.testing import SimNet

SECONDS = 60
#: Before it, the same at half the capacity: overload comes upon a proxy that has been at work.
QUIET_SECONDS = 5
PLACES = 4
WORK_MS = 400
#: Requests per second that the upstream can answer.
CAPACITY = PLACES * 1000 / WORK_MS

Work = Literal["constant", "exponential"]
Order = Literal["fifo", "lifo"]


@frozen
class Figures:
    """What came of one run."""

    offered: int
    #: Answered with 200 before its deadline, and before the minute was over.
    in_time: int
    admitted: int
    #: Admitted, and not answered in time all the same.
    late: int
    reasons: dict[str, int]

    @property
    def goodput(self) -> float:
        """The share of the capacity that was put to use."""
        return self.in_time / SECONDS / CAPACITY

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {reason}" for reason, count in sorted(self.reasons.items()))
        return (
            f"offered {self.offered / SECONDS / CAPACITY:.0%} of capacity, goodput"
            f" {self.goodput:.1%}, {self.late} of {self.admitted} admitted late ({ends})"
        )


async def overload(work: Work, queue: Order, total_ms: int, queue_ms: int, seed: int) -> Figures:
    """A quiet time and a minute of overload."""
    rng = random.Random(seed)
    limits = Limits(max_conns_per_upstream=PLACES, queue_ms=queue_ms, queue=queue)
    timeouts = only(total_ms=total_ms)
    async with world(network=SimNet(seed=seed), timeouts=timeouts, limits=limits) as w:
        works(w.upstreams[0], at_once=PLACES)
        crowd = Crowd(w)
        came: list[float] = []
        for load, until in (0.5, QUIET_SECONDS), (2.0, QUIET_SECONDS + SECONDS):
            while (at := trio.current_time() + rng.expovariate(load * CAPACITY)) < until:
                await trio.sleep_until(at)
                work_ms = WORK_MS * (1.0 if work == "constant" else rng.expovariate(1.0))
                await crowd.start(len(came), work=work_ms)
                came.append(at)
            await trio.sleep_until(until)
        await trio.sleep(total_ms / 1000 + 1)
    return figures(crowd, came, total_ms)


def figures(crowd: Crowd, came: list[float], total_ms: int) -> Figures:
    in_time: set[int] = set()
    good: set[int] = set()
    for number, (status, at_ms) in crowd.ends.items():
        if status == 200 and at_ms <= came[number] * 1000 + total_ms:
            good.add(number)
            if QUIET_SECONDS * 1000 <= at_ms < (QUIET_SECONDS + SECONDS) * 1000:
                in_time.add(number)
    admitted = {int(each.target[1:]) for each in crowd.w.exchanges if each.tries}
    reasons = Counter(each.error.reason.slug for each in crowd.w.exchanges if each.error)
    assert set(crowd.ends) == set(range(len(came)))
    return Figures(
        offered=sum(at >= QUIET_SECONDS for at in came),
        in_time=len(in_time),
        admitted=len(admitted),
        late=len(admitted - good),
        reasons=dict(reasons),
    )


@pytest.mark.parametrize(
    ("queue", "total_ms", "queue_ms"),
    [("fifo", 1000, 5000), ("fifo", 4000, 0), ("lifo", 1000, 5000), ("lifo", 30_000, 5000)],
)
def test_with_constant_work_nothing_admitted_is_late(
    queue: Order, total_ms: int, queue_ms: int
) -> None:
    """Deadlines of 2.5 to 75 times the work: all the capacity is put to use, none of it wasted."""
    result = run(overload, "constant", queue, total_ms, queue_ms, 1)
    print(f"constant work, {queue}, total_ms {total_ms}, queue_ms {queue_ms}: {result}")
    assert 1.9 < result.offered / SECONDS / CAPACITY < 2.1
    assert result.goodput > 0.9
    assert result.late == 0


@pytest.mark.parametrize("queue", ["fifo", "lifo"])
def test_with_exponential_work_and_time_to_spare_nothing_admitted_is_late(queue: Order) -> None:
    """The usual deadlines: queue_ms leaves each far more time than any work takes."""
    result = run(overload, "exponential", queue, 30_000, 5000, 1)
    print(f"exponential work, {queue}, total_ms 30000, queue_ms 5000: {result}")
    assert result.goodput > 0.9
    assert result.late == 0


@pytest.mark.parametrize(("queue", "total_ms"), [("fifo", 4000), ("fifo", 8000), ("lifo", 4000)])
def test_with_exponential_work_and_no_bound_but_the_deadline_hardly_any_is_late(
    queue: Order, total_ms: int
) -> None:
    """The proxy keeps enough of each deadline for the work that is to follow: 99 of 100 make it.

    All of them cannot: how long the work will be is not known before it is done.
    """
    result = run(overload, "exponential", queue, total_ms, 0, 1)
    print(f"exponential work, {queue}, total_ms {total_ms}, queue_ms 0: {result}")
    assert result.goodput > 0.9
    assert result.late <= 0.01 * result.admitted


async def test_after_the_overload_the_next_is_served_as_if_nothing_had_been() -> None:
    """Twelve seconds' worth of requests in two; once the queue is empty nobody is refused."""
    limits = Limits(max_conns_per_upstream=PLACES, queue_ms=2000)
    async with world(timeouts=only(total_ms=3000), limits=limits) as w:
        works(w.upstreams[0], at_once=PLACES)
        crowd = Crowd(w)
        for number in range(500):
            await crowd.start(number, work=100)
            await trio.sleep(0.004)
        await until_ms(10_000)
        assert crowd.waiting == 0
        refusals = {crowd.reason(n) for n in range(500)} - {None}
        assert Reason.QUEUE_SHED in refusals <= {Reason.QUEUE_SHED, Reason.QUEUE_TIMEOUT}
        assert sum(status == 200 for status, _ in crowd.ends.values()) >= 0.9 * 4000 / 100 * PLACES
        for number in range(500, 520):
            await crowd.start(number, work=100)
        await until_ms(20_000)
        answers = [crowd.ends[number] for number in range(500, 520)]
        assert answers == [(200, 10_100 + 100 * (n // PLACES)) for n in range(20)]
