"""One of several workers: a process that serves what its supervisor hands it.

``python -m trio_proxy.server.workers.worker DESCRIPTOR``, where DESCRIPTOR is its end of the
channel. It has a session of its own, so that a Ctrl-C reaches the supervisor alone, which then asks
it to drain. SIGTERM does that too, and a second one stops it at once. If the supervisor dies it
drains and ends: nobody would start a successor, answer for its counters or reload it.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable

import trio

from trio_proxy.http.addresses import Address
from trio_proxy.net.channel import Channel, Socket
from trio_proxy.net.network import Listener
from trio_proxy.net.shared import InheritingNetwork, close_sockets
from trio_proxy.server import garbage
from trio_proxy.server.files import fit_to_open_files
from trio_proxy.server.proxy import Proxy
from trio_proxy.server.reload import Logging
from trio_proxy.server.serving import serving
from trio_proxy.server.workers.control import (
    Adopt,
    Answer,
    Count,
    Done,
    Drain,
    Leaving,
    Order,
    Refusal,
    Reload,
    Start,
    Stop,
    WorkerEnd,
)
from trio_proxy.settings import Settings
from trio_proxy.settings.load.plugins import import_middlewares
from trio_proxy.settings.load.problems import ConfigError
from trio_proxy.telemetry import loggers
from trio_proxy.telemetry.logwriter import LogWriter
from trio_proxy.telemetry.outputs import StreamSink

log = logging.getLogger("trio_proxy.server")

#: Seconds between two reports of the counters; so much of them is lost when a worker is killed.
REPORT_SECONDS = 1.0

#: The share of a worker's time that reports may take, with thousands of upstreams in them.
REPORT_SHARE = 0.02

#: The longest pause between two reports, in seconds; the supervisor takes silence for death.
MAX_REPORT_SECONDS = 5.0

#: What the last report may take, in seconds; the supervisor may be gone or stuck.
LAST_REPORT_SECONDS = 1.0


class Worker:
    """Obeys the supervisor for as long as it serves."""

    def __init__(self, supervisor: WorkerEnd, settings: Settings, writer: LogWriter) -> None:
        self._supervisor = supervisor
        self._writer = writer
        self._settings = fit_to_open_files(settings)
        self._network = InheritingNetwork()
        self._proxy = Proxy(self._settings, self._network, writer.put, announce=lambda *_: None)
        self._proxy.parts.insert(0, Logging(writer))
        self._adopted: dict[int, list[Listener]] = {}
        self._drain_asked = trio.Event()
        self._drain_scope = trio.CancelScope()
        #: What a drain puts an end to.
        self._tasks: trio.Nursery

    async def run(self, start: Order, signals: AsyncIterator[int]) -> None:
        """Serve until told to drain, and be done with it. Raises OSError if it cannot begin."""
        self._writer.count_in(self._proxy.stats)
        self._network.hand_over(dict(zip(self._settings.listen, start.sockets, strict=True)))
        try:
            async with serving(self._proxy, self._network.run):
                await self._supervisor.answer(start, Done())
                garbage.quieten()
                await self._serve(signals)
        finally:
            self._network.close()
        with trio.move_on_after(LAST_REPORT_SECONDS), contextlib.suppress(OSError):
            await self._supervisor.tell(self._proxy.stats)

    async def _serve(self, signals: AsyncIterator[int]) -> None:
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as self._tasks:
                nursery.start_soon(self._obey_supervisor)
                nursery.start_soon(self._obey_signals, signals)
                nursery.start_soon(self._report)
                await self._drain_asked.wait()
                self._tasks.cancel_scope.cancel()
            nursery.start_soon(self._leave)
            with self._drain_scope:
                await self._drain()
            nursery.cancel_scope.cancel()

    async def _leave(self) -> None:
        """Have others accept the clients that come meanwhile."""
        with contextlib.suppress(OSError):
            await self._supervisor.tell(Leaving())

    async def _drain(self) -> None:
        for worker in self._adopted:
            self._give_up(worker)
        log.info("draining %s", self._proxy.clients)
        await self._proxy.drain()

    def _stop(self) -> None:
        self._drain_asked.set()
        self._drain_scope.cancel(reason="told to stop at once")

    async def _obey_signals(self, signals: AsyncIterator[int]) -> None:
        # Who stops a whole service sends each process the first one: that is not our second.
        async for _ in signals:
            self._drain_asked.set()
            break
        async for _ in signals:
            self._stop()

    # The supervisor

    async def _obey_supervisor(self) -> None:
        try:
            while True:
                await self._obey(await self._supervisor.receive())
        except (trio.EndOfChannel, OSError):
            log.warning("the supervisor has gone")
            self._drain_asked.set()

    async def _obey(self, order: Order) -> None:
        match order.command:
            case Drain():
                self._drain_asked.set()
            case Stop():
                self._stop()
            case Count():
                await self._supervisor.answer(order, self._proxy.stats)
            case Adopt(worker, addresses):
                self._adopt(worker, zip(addresses, order.sockets, strict=True))
                await self._supervisor.answer(order, Done())
            case Reload(settings, fresh):
                if self._drain_asked.is_set():
                    close_sockets(order.sockets)
                    await self._supervisor.answer(order, Done())
                    return
                sockets = dict(zip(fresh, order.sockets, strict=True))
                # Looking up names takes time, and meanwhile there may be something to obey.
                self._tasks.start_soon(self._reload, order, settings, sockets)

    def _adopt(self, worker: int, sockets: Iterable[tuple[Address, Socket]]) -> None:
        self._give_up(worker)
        listeners = [self._network.listener_on(sock, address) for address, sock in sockets]
        self._adopted[worker] = listeners
        if self._drain_asked.is_set():
            self._give_up(worker)
            return
        for listener in listeners:
            self._proxy.serve_too(listener)

    def _give_up(self, worker: int) -> None:
        for listener in self._adopted.get(worker, []):
            listener.close()

    async def _reload(
        self, order: Order, settings: Settings, sockets: dict[Address, Socket]
    ) -> None:
        self._network.hand_over(sockets)
        try:
            # That can take longer than clients should wait for.
            await trio.to_thread.run_sync(import_middlewares, settings)
            await self._proxy.reload(fit_to_open_files(settings))
        except (OSError, ConfigError) as exc:
            answer: Answer = Refusal(_reason(exc))
        except Exception as exc:
            # A fault of ours in here must not end a proxy that serves: the old settings stay.
            log.exception("reload failed")
            answer = Refusal(repr(exc))
        else:
            answer = Done()
        finally:
            self._network.close_unused()
        with contextlib.suppress(OSError):  # who reads the commands will notice
            await self._supervisor.answer(order, answer)

    async def _report(self) -> None:
        """Report every second, or more seldom if it takes long, until the supervisor has gone."""
        pause = REPORT_SECONDS
        with contextlib.suppress(OSError):
            while True:
                await trio.sleep(pause)
                started_at = time.perf_counter()
                await self._supervisor.tell(self._proxy.stats)
                took = time.perf_counter() - started_at
                pause = min(max(REPORT_SECONDS, took / REPORT_SHARE), MAX_REPORT_SECONDS)


def _reason(exc: OSError | ConfigError) -> str:
    return getattr(exc, "strerror", None) or str(exc)


async def work(channel: Channel, writer: LogWriter) -> int:
    """Be a worker to the end; the exit status."""
    supervisor = WorkerEnd(channel)
    # The receiver stays open to the very end: once it is closed a late signal kills the process.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        try:
            start = await supervisor.receive()
            return await _work(supervisor, start, signals, writer)
        except trio.EndOfChannel:
            return 1  # the supervisor had no time to say anything
        finally:
            supervisor.close()


async def _work(
    supervisor: WorkerEnd, start: Order, signals: AsyncIterator[int], writer: LogWriter
) -> int:
    assert isinstance(start.command, Start)
    settings, prefix = start.command.settings, f"worker {start.command.number}: "
    loggers.configure(writer, settings.logging.level, settings.logging.format, prefix)
    status = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        try:
            await Worker(supervisor, settings, writer).run(start, signals)
        except (OSError, ConfigError) as exc:
            status = 1
            with contextlib.suppress(OSError):
                await supervisor.answer(start, Refusal(_reason(exc)))
        except Exception:
            status = 1
            log.exception("cannot go on")
        finally:
            await writer.flush()
        nursery.cancel_scope.cancel()
    return status


def main() -> None:
    """The entry point of the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # whoever reloads says so on the channel
    channel = Channel.from_descriptor(int(sys.argv[1]))
    writer = LogWriter(StreamSink(is_shared=True))
    try:
        status = trio.run(work, channel, writer)
    finally:
        loggers.unconfigure()
    sys.exit(status)


if __name__ == "__main__":
    main()
