"""A proxy as a process: signals, pid file, log."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import trio

from trio_proxy.server import garbage
from trio_proxy.server.files import fit_to_open_files
from trio_proxy.server.proxy import Proxy, open_proxy
from trio_proxy.server.reload import Reloader
from trio_proxy.settings import Settings
from trio_proxy.telemetry.logwriter import LogWriter

log = logging.getLogger("trio_proxy.server")


async def serve(
    settings: Settings,
    *,
    source: str,
    load: Callable[[], Settings],
    writer: LogWriter,
    started: Callable[[Proxy], None] = lambda proxy: None,
) -> None:
    """Serve until SIGTERM or SIGINT, and then drain; a second one stops at once. SIGHUP reloads.

    ``load`` reads the settings again from ``source``; it runs in a thread. Raises OSError if an
    address cannot be bound or the pid file cannot be written.
    """
    # The receiver stays open to the very end: once it is closed a late SIGHUP kills the process.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            try:
                settings = fit_to_open_files(settings)
                async with open_proxy(settings, on_exchange=writer.put) as proxy:
                    with _pid_file(settings.pid_file):
                        log.info("started from %s (pid %d)", source, os.getpid())
                        started(proxy)
                        garbage.quieten()
                        await _obey(signals, proxy, Reloader(proxy, source, load, writer))
                log.info("stopped")
            finally:
                await writer.flush()
            nursery.cancel_scope.cancel()


async def _obey(signals: AsyncIterator[int], proxy: Proxy, reloader: Reloader) -> None:
    """Follow signals to the end of the drain that the first SIGTERM or SIGINT begins."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reloader.run)
        async for number in signals:
            if number != signal.SIGHUP:
                break
            reloader.ask()
        nursery.cancel_scope.cancel()
    clients = len(proxy.service.connections)
    log.info("%s: draining %d client connections", signal.Signals(number).name, clients)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_at_next, signals, nursery.cancel_scope)
        await proxy.drain()
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
