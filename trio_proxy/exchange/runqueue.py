"""Whose turn it is among those that have much to move.

A task of which the event loop takes a step moves all that it can: that is what makes a relay cheap.
But when five hundred clients ask for a large body at once, each such step takes milliseconds, and
whoever else is there waits for all of them, with each of its own steps anew. So there is a bound on
the time in which all connections together send before the loop looks again at who is there. Beyond
it they queue, and a few of them go on each time, while those that have little to do run as ever.

It is time that is bounded, and not bytes: to fill the buffers of a client that reads nothing takes
the system several times as long as to send to one that reads.
"""

from __future__ import annotations

import trio

#: Seconds of sending in one round; to read what is sent takes about as long.
SECONDS_PER_ROUND = 0.002

#: How many of those that queue go on in each round. Each moves one piece at least.
TASKS_PER_ROUND = 4


class RunQueue:
    """The queue; without its `run`, nobody is ever sent there."""

    __slots__ = ("_is_running", "_left", "_movers", "_runner")

    def __init__(self) -> None:
        #: Of this round's seconds.
        self._left = SECONDS_PER_ROUND
        self._is_running = False
        self._movers = trio.lowlevel.ParkingLot()
        self._runner = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<RunQueue waiting={len(self._movers)}>"

    def is_overdrawn(self, seconds: float) -> bool:
        """Note that to send has taken so long; whether who did it must `wait` now."""
        self._left -= seconds
        return self._left <= 0.0 and self._is_running

    async def wait(self) -> None:
        """Let others run until it is one's turn again."""
        self._runner.unpark()
        await self._movers.park()

    async def run(self) -> None:
        """Let a few go on in each round, until cancelled."""
        self._is_running = True
        try:
            while True:
                if self._movers:
                    await trio.lowlevel.checkpoint()
                else:
                    await self._runner.park()
                self._left = SECONDS_PER_ROUND
                self._movers.unpark(count=TASKS_PER_ROUND)
        finally:
            self._is_running = False
            self._movers.unpark_all()
