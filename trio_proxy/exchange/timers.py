"""Deadlines that are put off all the time and hardly ever pass.

An exchange waits a few times, each wait has a deadline, and nearly all of them end in time. To
move the deadline of a trio cancel scope costs 2 µs, most of it for keeping a heap in order. Here a
deadline is an attribute, which costs nothing to move. One task keeps a heap of the times at which
it will *look* at each of them, never later than the deadline itself: when it comes upon one that
has been put off meanwhile, it notes the new time and looks again then. So a busy connection is
looked at once in the length of its shortest wait, not once a wait (nginx does the same for
keep-alive timers, within 300 ms; here no deadline is ever late).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from time import perf_counter

import trio

from trio_proxy.exchange.complaint import Complaint
from trio_proxy.exchange.runqueue import RunQueue

log = logging.getLogger("trio_proxy.exchange")

#: Entries in the heap, beyond twice as many as are of use, before it is tidied up.
SPARE_ENTRIES = 1024


class Timed:
    """What has a deadline, ``due``, on the event loop's clock; `math.inf` for none.

    `put_off` moves it. When it has passed, `expire` is called, between two steps of tasks.
    """

    __slots__ = ("due", "look_at", "overdue", "timers")

    def __init__(self, timers: Timers) -> None:
        self.timers = timers
        self.due = math.inf
        #: When `Timers` will look; never after ``due``.
        self.look_at = math.inf
        #: By how many seconds it was noticed late that the deadline had passed.
        self.overdue = 0.0

    def put_off(self, due: float) -> None:
        """Move the deadline, to an earlier or a later time."""
        self.due = due
        if due < self.look_at:
            self.timers.watch(self, due)

    @property
    def is_too_late(self) -> bool:
        """Whether the deadline has passed, though `Timers` may not have seen it yet.

        To be asked after a wait: what comes in the very step in which its time is up comes too
        late, whichever of the two the event loop takes up first.
        """
        return self.timers.now() >= self.due

    def run_out(self, now: float) -> None:
        """Have it expire, as ``now`` is not before its deadline."""
        self.overdue = now - self.due
        self.due = math.inf
        self.expire()

    def expire(self) -> None:
        """The deadline has passed."""
        raise NotImplementedError

    def end(self) -> None:
        """End what it belongs to: `expire` has failed, so nothing bounds that any more."""


class Timers:
    """Watches over all that is `Timed`; `run` is its task, and that of the `run_queue`."""

    def __init__(self) -> None:
        self.run_queue = RunQueue()
        self._heap: list[tuple[float, int, Timed]] = []
        self._serial = count()
        self._tidy_at = SPARE_ENTRIES
        self._next_at = math.inf
        self._wakeup = trio.Event()
        self._current_time: Callable[[], float] = trio.current_time
        #: What trio's own clock adds to `time.perf_counter`; unless it is another clock.
        self._offset = 0.0
        self._is_own_clock = False
        self._faults = Complaint(log)

    def __repr__(self) -> str:
        return f"<Timers entries={len(self._heap)} next={self._next_at:.3f}>"

    def now(self) -> float:
        """The event loop's time, by a shorter way than that of `trio.current_time`."""
        if self._is_own_clock:
            return perf_counter() + self._offset
        return self._current_time()

    def _find_clock(self) -> None:
        clock = trio.lowlevel.current_clock()
        self._current_time = clock.current_time
        offset = getattr(clock, "offset", None)
        if isinstance(offset, float) and type(clock).__module__.startswith("trio."):
            self._offset = offset
            self._is_own_clock = True

    def watch(self, timed: Timed, at: float) -> None:
        """Look at something at a time that is earlier than the one noted for it."""
        timed.look_at = at
        heappush(self._heap, (at, next(self._serial), timed))
        if len(self._heap) > self._tidy_at:
            self._tidy()
        if at < self._next_at:
            self._wakeup.set()

    def forget(self, timed: Timed) -> None:
        """Look at it no more, until its deadline is put off again."""
        timed.due = timed.look_at = math.inf

    def _tidy(self) -> None:
        """Drop the entries of what was put forward or forgotten since."""
        self._heap = [entry for entry in self._heap if entry[2].look_at == entry[0]]
        heapify(self._heap)
        self._tidy_at = 2 * len(self._heap) + SPARE_ENTRIES

    async def run(self) -> None:
        """Look at each when it is time, until cancelled."""
        self._find_clock()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run_queue.run)
            await self._run()

    async def _run(self) -> None:
        while True:
            self._look(self.now())
            self._wakeup = trio.Event()
            self._next_at = self._heap[0][0] if self._heap else math.inf
            with trio.CancelScope(deadline=self._next_at):
                await self._wakeup.wait()
            self._next_at = -math.inf  # it is awake: no need to wake it

    def _look(self, now: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, timed = heappop(heap)
            if timed.look_at == at:
                timed.look_at = math.inf
                if timed.due <= now:
                    self._run_out(timed, now)
                elif timed.due < math.inf:
                    self.watch(timed, timed.due)
            heap = self._heap

    def _run_out(self, timed: Timed, now: float) -> None:
        """One that fails costs its own connection, and nobody else anything."""
        try:
            timed.run_out(now)
        except Exception:  # noqa: BLE001 - logged, with its traceback
            self._faults.fault("internal error as a deadline passed")
            timed.end()
