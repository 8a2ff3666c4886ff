"""The timers on the clock of a process, which is not the simulated one."""

from __future__ import annotations

import trio
import trio.testing

from trio_proxy.exchange.timers import Timers


async def test_the_timers_shorter_way_leads_to_trios_own_time(nursery: trio.Nursery) -> None:
    """Deadlines are told in one time only."""
    timers = Timers()
    nursery.start_soon(timers.run)
    await trio.testing.wait_all_tasks_blocked()
    before = trio.current_time()
    now = timers.now()
    assert before <= now <= trio.current_time()
    assert timers._is_own_clock
    nursery.cancel_scope.cancel()
