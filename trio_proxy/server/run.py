"""A server as a process: signals, pid file, log."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, TypeVar

import trio

from trio_proxy.codec.h1 import machine
from trio_proxy.front import h1_session as connection
from trio_proxy.server import garbage
from trio_proxy.server.files import fit_to_open_files
from trio_proxy.server.proxy import Proxy
from trio_proxy.server.reload import Logging, Reloadable, Reloader, tell_remarks
from trio_proxy.server.serving import open_proxy
from trio_proxy.settings import Settings
from trio_proxy.telemetry.logwriter import LogWriter

log = logging.getLogger("trio_proxy.server")

#: What the hot path runs on, for the log.
DRIVEN_BY = machine.NAME
if not connection.__file__.endswith(".py"):
    DRIVEN_BY += ", own modules compiled"


class Server(Reloadable, Protocol):
    """What a process serves with: a proxy, or the supervisor of many."""

    @property
    def clients(self) -> str:
        """Whom a drain waits for, in words."""
        ...

    async def drain(self) -> None:
        """Stop accepting, and return when all that is under way has ended, or its time is over."""
        ...


S = TypeVar("S", bound=Server)


async def serve(
    settings: Settings,
    *,
    source: str,
    load: Callable[[], Settings],
    writer: LogWriter,
    started: Callable[[Proxy], None] = lambda proxy: None,
) -> None:
    """Serve in this process; see `attend`."""
    fitting = fit_to_open_files(settings)
    await attend(
        open_proxy(fitting, on_exchange=writer.put),
        source=source,
        load=lambda: fit_to_open_files(load()),
        writer=writer,
        started=started,
    )


async def attend(
    opening: AbstractAsyncContextManager[S],
    *,
    source: str,
    load: Callable[[], Settings],
    writer: LogWriter,
    started: Callable[[S], None] = lambda server: None,
) -> None:
    """Serve until SIGTERM or SIGINT, and then drain; a second one stops at once. SIGHUP reloads.

    One that comes during the start ends it, except for SIGHUP, which is obeyed afterwards.
    ``load`` reads the settings again from ``source``; it runs in a thread. Raises OSError if an
    address cannot be bound or the pid file cannot be written.
    """
    # The receiver stays open to the very end: once it is closed a late SIGHUP kills the process.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            start = _Start(signals)
            nursery.start_soon(start.watch)
            try:
                with start.scope:
                    async with opening as server:
                        writer.count_in(server.stats)
                        server.parts.insert(0, Logging(writer))
                        with _pid_file(server.settings.pid_file):
                            log.info(
                                "started from %s (pid %d) on %s", source, os.getpid(), DRIVEN_BY
                            )
                            tell_remarks(server.settings)
                            started(server)
                            garbage.quieten()
                            reloader = Reloader(server, source, load)
                            if await start.has_heard_hangup():
                                reloader.ask()
                            await _obey(signals, server, reloader)
                log.info("stopped")
            finally:
                await writer.flush()
            nursery.cancel_scope.cancel()


class _Start:
    """Heeds signals until there is a server; what starts it runs in ``scope``."""

    def __init__(self, signals: AsyncIterator[int]) -> None:
        self.scope = trio.CancelScope()
        self._signals = signals
        self._watch = trio.CancelScope()
        self._watched = trio.Event()
        self._hangup = False

    async def watch(self) -> None:
        with self._watch:
            async for number in self._signals:
                if number == signal.SIGHUP:
                    self._hangup = True
                elif not self.scope.cancel_called:
                    log.info("%s: ending the start", signal.Signals(number).name)
                    self.scope.cancel()
        self._watched.set()

    async def has_heard_hangup(self) -> bool:
        """End the watch; whether a SIGHUP has come. Is cancelled if a signal to stop has."""
        self._watch.cancel()
        await self._watched.wait()
        return self._hangup


async def _obey(signals: AsyncIterator[int], server: Server, reloader: Reloader) -> None:
    """Follow signals to the end of the drain that the first SIGTERM or SIGINT begins."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reloader.run)
        async for number in signals:
            if number != signal.SIGHUP:
                break
            reloader.ask()
        nursery.cancel_scope.cancel()
    log.info("%s: draining %s", signal.Signals(number).name, server.clients)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_at_next, signals, nursery.cancel_scope)
        await server.drain()
        nursery.cancel_scope.cancel()


async def _stop_at_next(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for number in signals:
        if number != signal.SIGHUP:
            log.warning("second %s: stopping at once", signal.Signals(number).name)
            scope.cancel()
            return


@contextlib.contextmanager
def _pid_file(path: str | None) -> Iterator[None]:
    """Hold our process id in a file; on leaving, remove it if it is still ours."""
    if path is None:
        yield
        return
    text = f"{os.getpid()}\n"
    file = Path(path)
    try:
        file.write_text(text)
    except OSError as exc:
        raise OSError(exc.errno, f"cannot write pid_file {path}: {exc.strerror}") from exc
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if file.read_text() == text:
                file.unlink()
