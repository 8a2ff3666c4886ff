"""Several workers as one proxy: what they share, and the one who answers for them.

The supervisor serves no client. It binds the addresses, divides the limits, has the workers started
and started again, hands them new settings, drains them, and serves the metrics of all at one
address. To whoever runs it, it is a server like a proxy in one process (`server.run.attend`).
"""

from __future__ import annotations

import functools
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from trio_proxy.exchange.contract import Sink
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.front.listeners import Listeners, shown
from trio_proxy.handlers.metrics import MetricsHandler
from trio_proxy.http.messages import Request
from trio_proxy.net.channel import MAX_DESCRIPTORS
from trio_proxy.net.dial import SocketNetwork
from trio_proxy.net.shared import SharedListener, Sharer
from trio_proxy.server.files import SPARE_FILES, raise_soft_limit
from trio_proxy.server.metrics_port import metrics_entrypoint
from trio_proxy.server.parts import Part, put_in_force
from trio_proxy.server.run import attend
from trio_proxy.server.workers.crew import Crew
from trio_proxy.server.workers.division import share_of, too_small
from trio_proxy.server.workers.process import Orders
from trio_proxy.settings import Balance, Settings
from trio_proxy.settings.table import SettingError
from trio_proxy.telemetry.logwriter import LogWriter
from trio_proxy.telemetry.merging import combined
from trio_proxy.telemetry.metrics import WorkersCollector, registry_of, render
from trio_proxy.telemetry.stats import Stats

log = logging.getLogger("trio_proxy.server")


class _ClientListeners:
    """The addresses for clients, which the supervisor binds and the workers serve."""

    def __init__(self, network: SocketNetwork, workers: int) -> None:
        self.listeners = Listeners(
            Sharer(network, workers), lambda settings: settings.listen, self._opened, self._closed
        )
        self.prepare = self.listeners.prepare
        self.commit = self.listeners.commit
        self.abandon = self.listeners.abandon
        self._is_served = False

    def served(self) -> None:
        """The workers accept clients there: tell it, and from now on when it changes."""
        self._is_served = True
        for listener in self.listeners.bound:
            self._opened(listener)

    def _opened(self, listener: SharedListener) -> None:
        if self._is_served:
            log.info("listening on %s", shown(listener.address))

    @staticmethod
    def _closed(listener: SharedListener) -> None:
        log.info("no longer listening on %s", shown(listener.address))


class _Workers:
    """The part of a reload that the workers do.

    It comes last: once they have taken new orders there is no way back.
    """

    def __init__(self, crew: Crew, orders_of: Callable[[Settings], Orders]) -> None:
        self._crew = crew
        self._orders_of = orders_of

    async def prepare(self, settings: Settings) -> None:
        """Have all of them reload. Raises OSError if they cannot, and none has then."""
        await self._crew.take(self._orders_of(settings))

    def commit(self) -> None:
        """They have done it."""

    def abandon(self) -> None:
        """Nothing can fail after them."""


class Supervisor:
    """Made by `open_supervisor`."""

    def __init__(self, settings: Settings, workers: int, network: SocketNetwork) -> None:
        self.settings = settings
        #: What is the supervisor's own: reloads, and lines that its log could not take.
        self.stats = Stats()
        self._workers = workers
        self._shared = _ClientListeners(network, workers)
        self._collector = WorkersCollector()
        self._metrics_port = metrics_entrypoint(network, self)
        #: What a reload changes, beside the workers.
        self.parts: list[Part] = [self._shared, self._metrics_port]
        self._metrics = MetricsHandler(functools.partial(render, registry_of(self._collector)))
        self._reloading = trio.Lock()
        #: For sticky cookies, where the settings have none.
        self._own_secret = secrets.token_hex()
        self._crew: Crew

    def __repr__(self) -> str:
        return f"<Supervisor workers={self._workers} on {self._shared.listeners.addresses}>"

    @property
    def clients(self) -> str:
        """Whom a drain waits for, in words."""
        return f"{len(self._crew.alive)} workers"

    # Start

    async def bind(self) -> None:
        """Bind every address of the settings. Raises OSError, and then leaves none bound."""
        self._make_room(self.settings)
        await put_in_force(self.parts, self.settings)
        try:
            orders = self._orders(self.settings, self._shared.listeners.bound)
        except BaseException:
            self.close()
            raise
        self._crew = Crew(self._workers, orders)

    async def start(self, nursery: trio.Nursery) -> None:
        """Serve, in tasks of this nursery. Raises OSError if no worker can."""
        self._warn_of_small_caps(self.settings)
        await self._crew.begin(nursery)
        self._shared.served()
        self._metrics_port.start(nursery, nursery)
        pids = [str(worker.pid) for _, worker in sorted(self._crew.ready.items())]
        log.info("started %d workers (pids %s)", len(pids), ", ".join(pids))

    def _make_room(self, settings: Settings) -> None:
        """For the sockets of each worker, and what it takes to start and reach it."""
        raise_soft_limit(SPARE_FILES + self._workers * (len(settings.listen) + 4))

    def _warn_of_small_caps(self, settings: Settings) -> None:
        for key, cap in too_small(settings, self._workers):
            log.warning("%s is %d: each of %d workers has 1", key, cap, self._workers)

    def _orders(self, settings: Settings, listeners: Sequence[SharedListener]) -> Orders:
        """What each worker is to do. Raises OSError if it cannot be told so."""
        if len(listeners) > MAX_DESCRIPTORS:
            raise OSError(f"listen: more than {MAX_DESCRIPTORS} addresses for several workers")
        pools = {
            name: attrs.evolve(pool, balance=pool.balance and self._with_secret(pool.balance))
            for name, pool in settings.pools.items()
        }
        settings = attrs.evolve(settings, balance=self._with_secret(settings.balance), pools=pools)
        try:
            share = attrs.evolve(
                share_of(settings, self._workers),
                listen=tuple(listener.address for listener in listeners),
                metrics_listen=None,
            )
        except SettingError as exc:  # what a host name stands for can be where an upstream is
            raise OSError(str(exc)) from exc
        return Orders(share, tuple(listeners))

    def _with_secret(self, balance: Balance) -> Balance:
        """All workers must understand each other's cookies."""
        if not balance.sticky_cookie or balance.sticky_secret:
            return balance
        return attrs.evolve(balance, sticky_secret=self._own_secret)

    # Reload

    async def reload(self, settings: Settings) -> None:
        """Have every worker reload. Raises OSError if they cannot; then nothing has changed."""
        async with self._reloading:
            self._make_room(settings)
            await put_in_force([*self.parts, _Workers(self._crew, self._new_orders)], settings)
            self.settings = settings
            self._warn_of_small_caps(settings)

    def _new_orders(self, settings: Settings) -> Orders:
        return self._orders(settings, self._shared.listeners.prepared)

    # Metrics

    async def handle(self, exchange: Exchange, request: Request, sink: Sink) -> None:
        """Answer on the metrics port with the sums over all workers, as they are now."""
        await self._crew.count()
        self._collector.stats = combined(self._crew.ledger.total(), self.stats)
        self._collector.running = len(self._crew.ready)
        self._collector.restarts = self._crew.restarts
        await self._metrics.handle(exchange, request, sink)

    # Stop

    async def drain(self) -> None:
        """Have all workers drain, for at most ``drain_ms``; metrics are served meanwhile."""
        self._shared.listeners.close()
        await self._crew.drain(self.settings.timeouts.seconds["drain"])

    async def stop(self) -> None:
        """End all workers, soon."""
        self.close()
        await self._crew.stop()

    def close(self) -> None:
        """Close every listener."""
        self._shared.listeners.close()
        self._metrics_port.close()


@asynccontextmanager
async def open_supervisor(settings: Settings, workers: int) -> AsyncIterator[Supervisor]:
    """Serve with so many processes inside an ``async with`` block.

    However the block ends, no worker is left then; have the supervisor drain first. Raises OSError
    if an address cannot be bound or no worker can serve.
    """
    network = SocketNetwork()
    supervisor = Supervisor(settings, workers, network)
    failure: BaseException | None = None
    try:
        await supervisor.bind()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.run)
            try:
                await supervisor.start(nursery)
                yield supervisor
            except BaseException as exc:  # noqa: BLE001 - raised again below
                # Kept out of the nursery, so that the caller gets it back as it was raised.
                failure = exc
            with trio.CancelScope(shield=True):  # it takes a few seconds at most
                await supervisor.stop()
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
    finally:
        supervisor.close()
        network.close()


async def supervise(
    settings: Settings,
    workers: int,
    *,
    source: str,
    load: Callable[[], Settings],
    writer: LogWriter,
) -> None:
    """Serve with so many processes; signals, pid file and failures as with one, see `attend`."""
    await attend(open_supervisor(settings, workers), source=source, load=load, writer=writer)
