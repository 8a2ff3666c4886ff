"""Those that have much to move take turns, and hold up nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.testing import wait_all_tasks_blocked as settle

from trio_proxy.exchange.runqueue import SECONDS_PER_ROUND, TASKS_PER_ROUND, RunQueue

#: What a large piece takes, in seconds.
A_WHILE = SECONDS_PER_ROUND / 2


@asynccontextmanager
async def running(queue: RunQueue) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run)
        await settle()
        yield
        nursery.cancel_scope.cancel()


async def test_a_little_is_moved_without_queueing() -> None:
    """So much in each round; who goes beyond it queues, and finds a new round begun."""
    queue = RunQueue()
    async with running(queue):
        for _ in range(3):
            assert not queue.is_overdrawn(A_WHILE)
            assert queue.is_overdrawn(A_WHILE)
            assert queue.is_overdrawn(0.0)
            await queue.wait()


async def test_a_few_go_on_in_each_round_and_others_have_their_steps_in_between() -> None:
    """Of two hundred that move without end: one step of another task is never far."""
    queue = RunQueue()
    moved = [0] * 200
    most_in_a_step = 0

    async def move(index: int) -> None:
        while True:
            moved[index] += 1
            if queue.is_overdrawn(A_WHILE):
                await queue.wait()

    async with running(queue), trio.open_nursery() as movers:
        for index in range(len(moved)):
            movers.start_soon(move, index)
        await trio.lowlevel.checkpoint()  # each has had its first turn
        await trio.lowlevel.checkpoint()
        begun_with = before = sum(moved)
        for _ in range(1000):
            await trio.lowlevel.checkpoint()
            most_in_a_step = max(most_in_a_step, sum(moved) - before)
            before = sum(moved)
        movers.cancel_scope.cancel()
    assert begun_with <= 2 * len(moved)
    assert most_in_a_step <= 3 * TASKS_PER_ROUND
    assert max(moved) <= 2 * min(moved)  # they take turns


async def test_who_is_cancelled_leaves_the_queue() -> None:
    """And holds nobody up who is behind."""
    queue = RunQueue()
    async with running(queue), trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(10)]
        went_on: list[int] = []

        async def move(index: int) -> None:
            with scopes[index]:
                await queue.wait()
                went_on.append(index)

        for index in range(10):
            nursery.start_soon(move, index)
        await trio.lowlevel.checkpoint()
        for scope in scopes[:9]:
            scope.cancel()
        await settle()
        assert 9 in went_on


async def test_nobody_is_sent_there_or_left_there_when_it_does_not_run() -> None:
    """Before it runs, and when it has ended."""
    queue = RunQueue()
    assert not queue.is_overdrawn(1.0)
    async with trio.open_nursery() as nursery, running(queue):
        assert queue.is_overdrawn(1.0)
        for _ in range(3 * TASKS_PER_ROUND):
            nursery.start_soon(queue.wait)
        await trio.lowlevel.checkpoint()
    assert not queue.is_overdrawn(1.0)
