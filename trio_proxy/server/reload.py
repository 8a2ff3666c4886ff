"""Reloading the configuration of a running proxy when SIGHUP asks for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import trio

from trio_proxy.server.parts import Part
from trio_proxy.settings import Settings
from trio_proxy.settings.load.toml import ConfigError
from trio_proxy.telemetry import loggers
from trio_proxy.telemetry.logwriter import LogWriter
from trio_proxy.telemetry.stats import Stats

log = logging.getLogger("trio_proxy.server")

#: How long reading and checking the configuration may take (a file on a network that is away).
READ_SECONDS = 10.0


#: What is made once, before anybody is served.
FIXED = ("pid_file", "workers")


class Reloadable(Protocol):
    """What takes new settings: a proxy, or those that many workers are."""

    settings: Settings
    stats: Stats
    #: What follows the settings, to which others may be added in front.
    parts: list[Part]

    async def reload(self, settings: Settings) -> None:
        """All or nothing. Raises OSError, and then nothing has changed."""
        ...


def tell_remarks(settings: Settings) -> None:
    """Log what is allowed and looks like a slip."""
    for remark in settings.remarks():
        log.warning("%s", remark)


class Logging:
    """What of the settings the program's log follows. A part of a reload."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self._prepared: Settings

    async def prepare(self, settings: Settings) -> None:
        self._prepared = settings

    def commit(self) -> None:
        loggers.set_level(self._prepared.logging.level)
        self._writer.set_format(self._prepared.logging.format)

    def abandon(self) -> None:
        """There is nothing to undo."""


class Reloader:
    """Reloads when asked; requests that come during a reload are one more reload after it.

    ``load`` reads the settings again from ``source``, in a thread that is abandoned if it hangs, so
    that a stop never waits for it.
    """

    def __init__(self, server: Reloadable, source: str, load: Callable[[], Settings]) -> None:
        self._server = server
        self._source = source
        self._load = load
        self._wanted = trio.Event()
        self._limiter = trio.CapacityLimiter(1)

    def ask(self) -> None:
        """Have the configuration reloaded soon."""
        self._wanted.set()

    async def run(self) -> None:
        """Reload whenever asked, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            try:
                await self._reload()
            except Exception as exc:
                # A fault of ours in here must not end a proxy that serves: the old settings stay.
                log.exception("reload failed")
                self._refused(repr(exc))

    async def _reload(self) -> None:
        try:
            settings = await self._read()
            for key in FIXED:
                if getattr(settings, key) != getattr(self._server.settings, key):
                    log.warning("%s: a change takes effect at the next start", key)
            await self._server.reload(settings)
        except ConfigError as exc:
            self._refused(*map(str, exc.problems))
        except OSError as exc:
            self._refused(str(exc))
        else:
            self._server.stats.config_reloaded(ok=True)
            level = settings.logging.level
            tell_remarks(settings)
            log.info("Config reloaded from %s (logging level=%s)", self._source, level)

    async def _read(self) -> Settings:
        with trio.move_on_after(READ_SECONDS):
            return await trio.to_thread.run_sync(
                self._load, limiter=self._limiter, abandon_on_cancel=True
            )
        raise OSError(f"{self._source}: reading took more than {READ_SECONDS:.0f} s")

    def _refused(self, *reasons: str) -> None:
        """Everything stays as it is, and the log says why."""
        for reason in reasons:
            log.error("reload refused: %s", reason)
        self._server.stats.config_reloaded(ok=False)
