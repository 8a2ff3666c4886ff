"""A proxy as a process: signals, reload from the file, pid file, log to stderr."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import trio

from trio_proxy.config import ConfigError
from trio_proxy.server.proxy import Proxy, open_proxy
from trio_proxy.settings import Settings
from trio_proxy.telemetry import logwriter
from trio_proxy.telemetry.logwriter import LogWriter

log = logging.getLogger("trio_proxy.server")

#: Descriptors for listeners, scrapers, logs and the event loop itself.
SPARE_FILES = 256


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
    raise_file_limit(files_wanted(settings))
    # The receiver stays open to the very end: once it is closed a late SIGHUP kills the process.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            try:
                async with open_proxy(settings, on_exchange=writer.put) as proxy:
                    with _pid_file(settings.pid_file):
                        log.info("started from %s (pid %d)", source, os.getpid())
                        started(proxy)
                        await _obey(signals, proxy, source, load, writer)
                log.info("stopped")
            finally:
                await writer.flush()
            nursery.cancel_scope.cancel()


async def _obey(
    signals: AsyncIterator[int],
    proxy: Proxy,
    source: str,
    load: Callable[[], Settings],
    writer: LogWriter,
) -> None:
    async for number in signals:
        if number != signal.SIGHUP:
            break
        await _reload(proxy, source, load, writer)
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


async def _reload(
    proxy: Proxy, source: str, load: Callable[[], Settings], writer: LogWriter
) -> None:
    """A new configuration if it is valid; else everything stays as it is and the log says why."""
    old = proxy.settings
    try:
        settings = await trio.to_thread.run_sync(load)
        if settings.pid_file != old.pid_file:
            log.warning("pid_file: a change takes effect at the next start")
        raise_file_limit(files_wanted(settings))
        await proxy.reload(settings)
    except ConfigError as exc:
        for problem in exc.problems:
            log.error("reload refused: %s", problem)  # noqa: TRY400 - the message is the whole story
        proxy.stats.config_reloaded(ok=False)
        return
    except OSError as exc:
        log.error("reload refused: %s", exc)  # noqa: TRY400 - the message is the whole story
        proxy.stats.config_reloaded(ok=False)
        return
    logwriter.set_level(settings.logging.level)
    writer.set_format(settings.logging.format)
    proxy.stats.config_reloaded(ok=True)
    log.info("Config reloaded from %s (logging level=%s)", source, settings.logging.level)


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


def raise_file_limit(wanted: int) -> None:
    """Lift the soft limit on open files towards ``wanted``, as far as the hard limit allows.

    Many systems start a process with 1,024, which the default limits alone exceed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < ceiling:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))


def files_wanted(settings: Settings) -> int:
    """Descriptors that the configured limits can add up to."""
    limits = settings.limits
    per_upstream = (one.max_conns or limits.max_conns_per_upstream for one in settings.upstreams)
    return limits.max_client_conns + sum(per_upstream) + SPARE_FILES
