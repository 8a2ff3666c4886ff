"""The workers of one supervisor: started, restarted, given orders, counted, ended.

Each worker has a task, `Crew.keep`, which starts a new process whenever the last one has died. Each
process that serves has another, `Crew._tend`, which compares what the process was told with what
it should know and tells it the difference: the orders in force, and for whom to stand in.

**Standing in.** The kernel deals connections out among the sockets of an address, and goes on to
deal to the socket of a worker that has died. To close that socket would turn the others' share
into the whole, but also reset every connection that waits in it, and those whose handshake is
under way (tcp(7) has no way to move them unless net.ipv4.tcp_migrate_req is set). So the
supervisor keeps it open, and all others accept from it too until the successor serves, be that
after half a second or after a pause of half a minute: no connection is lost that the dead worker
had not accepted, and none waits for its successor.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable

import trio

from trio_proxy.policy.restarts import Restarts
from trio_proxy.server.workers.control import Refused
from trio_proxy.server.workers.process import Orders, WorkerProcess
from trio_proxy.telemetry.merging import Ledger

log = logging.getLogger("trio_proxy.server")

#: How long a scrape waits for the counters of the workers, in seconds; then it has the last known.
COUNT_SECONDS = 1.0

#: What workers may take beyond ``drain_ms``, in seconds: to cut what is left, and to end.
GRACE_SECONDS = 5.0

#: What they may take to stop at once, in seconds.
STOP_SECONDS = 3.0


class Crew:
    """So many workers, by their index."""

    def __init__(self, size: int, orders: Orders) -> None:
        self.size = size
        self.orders = orders
        #: The processes that serve.
        self.ready: dict[int, WorkerProcess] = {}
        #: All that there are.
        self.alive: set[WorkerProcess] = set()
        self.restarts = 0
        self.ledger = Ledger()
        #: Why a worker did not come to serve at its first start.
        self.failures: dict[int, str] = {}
        self._has_begun = False
        self._is_ending = False
        #: The one that tries orders before the others get them.
        self._trying: WorkerProcess | None = None
        #: Set, and replaced by a new one, whenever something in here changes.
        self._changed = trio.Event()

    def __repr__(self) -> str:
        state = "ending" if self._is_ending else "serving"
        return f"<Crew {state} ready={len(self.ready)}/{self.size} restarts={self.restarts}>"

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _until(self, predicate: Callable[[], bool]) -> None:
        while not predicate():
            await self._changed.wait()

    def _started(self) -> set[WorkerProcess]:
        """Those that serve or drain."""
        return {worker for worker in self.alive if worker.orders is not None}

    # Start and restart

    async def begin(self, nursery: trio.Nursery) -> None:
        """Start every worker, in tasks of the nursery. Raises OSError if not one can serve."""
        for index in range(self.size):
            nursery.start_soon(self.keep, index)
        await self._until(lambda: len(self.ready) + len(self.failures) >= self.size)
        if not self.ready:
            raise OSError(self.failures[min(self.failures)])
        self._has_begun = True
        self._notify()

    async def keep(self, index: int) -> None:
        """Have a worker at all times, until the end."""
        restarts = Restarts()
        while not self._is_ending:
            started_at = trio.current_time()
            ending = await self._live(index)
            # At the first start it is for `begin` to say whether there is a second.
            await self._until(lambda: self._has_begun or self._is_ending)
            if self._is_ending:
                return
            pause = restarts.pause_after(trio.current_time() - started_at)
            log.error("%s, restarting %s", ending, f"in {pause:g} s" if pause else "at once")
            with trio.move_on_after(pause):
                await self._until(lambda: self._is_ending)
            self.restarts += 1

    async def _live(self, index: int) -> str:
        """The life of one process, from its start to its end; how that came, in words."""
        worker = WorkerProcess(index, self.ledger.update, self._leaving)
        try:
            await worker.spawn()
        except OSError as exc:
            return self._failed(index, f"worker {index + 1} cannot be started: {exc.strerror}")
        self.alive.add(worker)
        if self._is_ending:
            worker.kill()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve, worker)
                await worker.attend()
                nursery.cancel_scope.cancel()
        finally:
            self.alive.discard(worker)
            self.ready.pop(index, None)
            self.ledger.remove(worker)
            self._notify()
        return self._failed(index, f"{worker} {worker.ending()}")

    def _leaving(self, worker: WorkerProcess) -> None:
        """It drains by itself: the others have to accept for it from now on."""
        if self.ready.get(worker.index) is worker:
            del self.ready[worker.index]
            self._notify()

    def _failed(self, index: int, reason: str) -> str:
        if not self._has_begun:
            self.failures.setdefault(index, reason)
            self._notify()
        return reason

    async def _serve(self, worker: WorkerProcess) -> None:
        try:
            await worker.start(self.orders)
            self.ready[worker.index] = worker
            if self._has_begun:
                log.info("%s started", worker)
            self._notify()
            await self._tend(worker)
        except Refused as exc:
            self._failed(worker.index, str(exc))
            _end_at_once(worker, str(exc))
        except trio.TooSlowError:
            _end_at_once(worker, "does not answer")
        except (trio.EndOfChannel, OSError):
            worker.kill()  # it is dying, or breaks the rules

    async def _tend(self, worker: WorkerProcess) -> None:
        """Have it know what it should, for as long as it accepts clients."""
        while self.ready.get(worker.index) is worker:
            changed = self._changed
            if worker.orders is not self.orders and worker is not self._trying:
                await worker.reload(self.orders)
                self._notify()
            elif not self._is_ending:
                absent = [index for index in range(self.size) if index not in self.ready]
                await worker.stand_in_for(absent, self.orders)
            await changed.wait()

    # Reload

    async def take(self, orders: Orders) -> None:
        """Have all workers take new orders. Raises OSError if they cannot, and none has then.

        One tries them before the others. If another cannot do what that one could, it is ended,
        and its successor starts with the new orders.
        """
        await self._try(orders)
        self.orders = orders
        self._notify()
        await self._until(lambda: all(each.orders is orders for each in self.ready.values()))

    async def _try(self, orders: Orders) -> None:
        for worker in list(self.ready.values()):
            self._trying = worker
            try:
                await worker.reload(orders)
            except Refused as exc:
                raise OSError(str(exc)) from exc
            except trio.TooSlowError:
                _end_at_once(worker, "does not answer")
            except (trio.EndOfChannel, OSError):
                worker.kill()
            else:
                if worker in self.ready.values():  # one that leaves only says that it can
                    return
            finally:
                self._trying = None

    # Counters

    async def count(self) -> None:
        """Get the counters of all workers into the ledger, as far as they answer soon."""
        with trio.move_on_after(COUNT_SECONDS):
            async with trio.open_nursery() as nursery:
                for worker in self._started():
                    nursery.start_soon(self._count, worker)

    @staticmethod
    async def _count(worker: WorkerProcess) -> None:
        with contextlib.suppress(OSError, trio.EndOfChannel):
            await worker.count()

    # End

    async def drain(self, seconds: float) -> None:
        """Have all workers drain; end those that take longer than ``seconds`` and a little."""
        await self._end(WorkerProcess.drain, seconds + GRACE_SECONDS)

    async def stop(self) -> None:
        """End all workers soon, whatever they are about."""
        await self._end(WorkerProcess.stop, STOP_SECONDS)

    async def _end(self, tell: Callable[[WorkerProcess], Awaitable[None]], seconds: float) -> None:
        self._is_ending = True
        self._notify()
        started = self._started()
        for worker in self.alive - started:
            worker.kill()
        async with trio.open_nursery() as nursery:
            for worker in started:
                nursery.start_soon(tell, worker)
        with trio.move_on_after(seconds):
            await self._until(lambda: not self.alive)
        for worker in self.alive:
            _end_at_once(worker, "does not end")
        await self._until(lambda: not self.alive)


def _end_at_once(worker: WorkerProcess, reason: str) -> None:
    log.error("%s: %s: killed", worker, reason)
    worker.kill()
