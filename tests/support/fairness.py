"""How far a client comes between two steps of a task that wants nothing but its turn."""

from __future__ import annotations

from collections.abc import Callable

import trio

from trio_proxy.exchange.turns import TURNS_WITHOUT_CHECKPOINT

#: What one task may do between two steps of another: its turns in each of two steps, because the
#: scheduler takes the tasks that are ready in any order.
AT_MOST = 2 * TURNS_WITHOUT_CHECKPOINT

#: So many that a client which is never interrupted cannot be overlooked.
FLOOD = 400

#: Steps of the bystander in a row in which nothing happens: then nothing ever will.
MAX_IDLE_STEPS = 1_000_000


async def most_between_steps(progress: Callable[[], int], total: int) -> int:
    """Be a bystander until ``progress()`` is ``total``: by how much it rose at most in a step."""
    most, seen, idle = 0, progress(), 0
    assert seen < total, "all was over before anybody could look"
    while seen < total:
        await trio.lowlevel.checkpoint()
        now = progress()
        idle = idle + 1 if now == seen else 0
        assert idle < MAX_IDLE_STEPS, f"stuck at {now} of {total}"
        most, seen = max(most, now - seen), now
    return most
