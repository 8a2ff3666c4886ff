"""One worker as its supervisor sees it: a process at the other end of a channel."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Collection

import trio
from attrs import frozen

from trio_proxy.http.addresses import Address
from trio_proxy.net.channel import new_pair
from trio_proxy.net.shared import SharedListener
from trio_proxy.server.workers.control import (
    Adopt,
    Command,
    Count,
    Drain,
    Refused,
    Reload,
    Start,
    Stop,
    SupervisorEnd,
)
from trio_proxy.settings import Settings
from trio_proxy.telemetry.stats import Stats

log = logging.getLogger("trio_proxy.server")

#: How long a worker may take, in seconds, to import itself, look up names and reach its stores, …
START_SECONDS = 60.0
#: … to look up new names when it reloads, …
RELOAD_SECONDS = 30.0
#: … to say that it has adopted a few sockets, …
ADOPT_SECONDS = 10.0
#: … to take a few bytes that tell it to stop, …
TELL_SECONDS = 1.0
#: … and to end once it has hung up.
EXIT_SECONDS = 5.0

#: A worker reports every second or few. One that does not for so many pauses in a row hangs. They
#: are counted one by one, so that it is none when both were suspended together.
SILENT_PAUSES = 6
SILENT_PAUSE_SECONDS = 5.0


@frozen(eq=False)
class Orders:
    """What all workers are to do: the settings of each, and what they listen on, in that order."""

    settings: Settings
    listeners: tuple[SharedListener, ...]

    def addresses(self) -> tuple[Address, ...]:
        return tuple(listener.address for listener in self.listeners)


class WorkerProcess:
    """A child process; `spawn` it and then `attend` it to its end.

    What asks it something raises `trio.TooSlowError` beside what `SupervisorEnd.ask` raises.
    """

    def __init__(
        self,
        index: int,
        on_stats: Callable[[WorkerProcess, Stats], None],
        on_leaving: Callable[[WorkerProcess], None],
    ) -> None:
        self.index = index
        #: What it was told last, None before its start.
        self.orders: Orders | None = None
        self._on_stats = on_stats
        self._on_leaving = on_leaving
        self._end: SupervisorEnd
        self._process: trio.Process
        #: For whom it stands in, by index, and by which orders.
        self._stands_in: dict[int, Orders] = {}

    def __repr__(self) -> str:
        return f"<WorkerProcess {self} {self.ending()}>"

    def __str__(self) -> str:
        return f"worker {self.index + 1} (pid {self.pid})"

    @property
    def pid(self) -> int:
        return self._process.pid

    def ending(self) -> str:
        """How it came to its end, in words."""
        code = self._process.returncode
        if code is None:
            return "runs"
        return f"died: signal {-code}" if code < 0 else f"ended: status {code}"

    async def spawn(self) -> None:
        """Start the process. Raises OSError."""
        channel, theirs = new_pair()
        self._end = SupervisorEnd(
            channel,
            on_stats=lambda stats: self._on_stats(self, stats),
            on_leaving=lambda: self._on_leaving(self),
        )
        descriptor = theirs.fileno()
        try:
            self._process = await trio.lowlevel.open_process(
                _command(descriptor),
                env=_environment(),
                pass_fds=(descriptor,),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
            )
        except OSError:
            self._end.close()
            raise
        finally:
            theirs.close()

    async def attend(self) -> None:
        """Take its answers and reports, until it has ended and what it had to say is read."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._kill_if_silent)
                await self._listen()
                with trio.move_on_after(EXIT_SECONDS):
                    await self._process.wait()
                nursery.cancel_scope.cancel()
        finally:
            self.kill()
            self._end.close()
            with trio.CancelScope(shield=True):  # a killed process ends at once
                await self._process.wait()

    async def _listen(self) -> None:
        try:
            await self._end.run()
        except Exception:
            # Whatever it sends, it must not end the supervisor of all the others.
            log.exception("%s cannot be understood: killed", self)
            self.kill()

    async def _kill_if_silent(self) -> None:
        pauses = 0
        while pauses < SILENT_PAUSES:
            before = self._end.received
            await trio.sleep(SILENT_PAUSE_SECONDS)
            is_silent = self._end.received == before and self.orders is not None
            pauses = pauses + 1 if is_silent else 0
        log.error("%s hangs: killed", self)
        self.kill()

    def kill(self) -> None:
        """End it at once, if it runs; it has no say in it."""
        if self._process.returncode is None:
            self._process.kill()

    # Questions

    async def start(self, orders: Orders) -> None:
        """Have it serve."""
        with trio.fail_after(START_SECONDS):
            descriptors = [each.descriptor_for(self.index) for each in orders.listeners]
            await self._end.ask(Start(self.index + 1, orders.settings), descriptors)
        self.orders = orders

    async def reload(self, orders: Orders) -> None:
        """Have it take other orders, without closing a connection."""
        known = self.orders.listeners if self.orders is not None else ()
        fresh = [each for each in orders.listeners if each not in known]
        with trio.fail_after(RELOAD_SECONDS):
            await self._end.ask(
                Reload(orders.settings, tuple(each.address for each in fresh)),
                [each.descriptor_for(self.index) for each in fresh],
            )
        self.orders = orders

    async def stand_in_for(self, absent: Collection[int], orders: Orders) -> None:
        """Have it take the connections that the kernel deals to these workers.

        What it has no descriptors for waits for the next time, or for the absent one's successor.
        """
        for index in [*self._stands_in]:
            if index not in absent:
                await self._adopt(index, ())
                del self._stands_in[index]
        for index in absent:
            if self._stands_in.get(index) is not orders:
                dealt = [listener for listener in orders.listeners if listener.is_dealt]
                try:
                    await self._adopt(index, dealt)
                except Refused as exc:
                    log.warning("%s cannot stand in for worker %d: %s", self, index + 1, exc)
                else:
                    self._stands_in[index] = orders

    async def _adopt(self, index: int, listeners: Collection[SharedListener]) -> None:
        addresses = tuple(listener.address for listener in listeners)
        with trio.fail_after(ADOPT_SECONDS):
            await self._end.ask(
                Adopt(index, addresses), [each.descriptor_for(index) for each in listeners]
            )

    async def count(self) -> None:
        """Have it report its counters now."""
        await self._end.ask(Count())

    async def drain(self) -> None:
        await self._tell(Drain())

    async def stop(self) -> None:
        await self._tell(Stop())

    async def _tell(self, command: Command) -> None:
        """Kill it if it does not even listen."""
        try:
            with trio.fail_after(TELL_SECONDS):
                await self._end.tell(command)
        except (OSError, trio.TooSlowError):
            self.kill()


def _command(descriptor: int) -> list[str]:
    # -P: what lies in the current folder is not for import, as it is not for `trio-proxy` itself.
    warnings = [f"-W{option}" for option in sys.warnoptions]
    return [
        sys.executable,
        "-P",
        *warnings,
        "-m",
        "trio_proxy.server.workers.worker",
        str(descriptor),
    ]


def _environment() -> dict[str, str]:
    """Ours, with a path on which the worker finds what we have found."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
