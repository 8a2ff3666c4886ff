"""The port for ``GET /metrics``, or none."""

from __future__ import annotations

import logging

import trio

from trio_proxy.exchange.contract import Handler
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.front.acceptor import Acceptor
from trio_proxy.front.service import Service
from trio_proxy.http.addresses import Address
from trio_proxy.net.network import Listener, Network
from trio_proxy.server.build import metrics_plan
from trio_proxy.server.listeners import Change, Listeners, shown
from trio_proxy.settings import Settings

log = logging.getLogger("trio_proxy.server")

#: Connections of scrapers; they do not compete with clients for theirs.
MAX_METRICS_CONNS = 64


class Unobserved:
    """The metrics port does not count itself."""

    def connection_opened(self) -> None: ...

    def connection_closed(self) -> None: ...

    def request_started(self) -> None: ...

    def exchange_ended(self, exchange: Exchange) -> None: ...


class MetricsPort:
    """Where ``metrics_listen`` says, served by ``handler``."""

    def __init__(self, network: Network, settings: Settings, handler: Handler) -> None:
        self._handler = handler
        self._listeners = Listeners(network)
        self._service = Service(metrics_plan(settings, handler), Unobserved())
        self._nursery: trio.Nursery
        self._acceptor: Acceptor

    @property
    def address(self) -> Address | None:
        """With the real port number; None if there is none."""
        return next(iter(self._listeners.addresses), None)

    def start(self, nursery: trio.Nursery) -> None:
        """Serve what is bound, and what is bound later, in tasks of this nursery."""
        self._nursery = nursery
        self._acceptor = Acceptor(
            self._service,
            trio.CapacityLimiter(MAX_METRICS_CONNS),
            nursery,
            limit_name="connections to the metrics port",
        )
        nursery.start_soon(self._service.timers.run)
        for listener in self._listeners.bound:
            self._serve(listener)

    def _serve(self, listener: Listener) -> None:
        self._nursery.start_soon(self._acceptor.run, listener)
        log.info("metrics on %s/metrics", shown(listener.address))

    async def prepare(self, settings: Settings) -> Change[Listener]:
        """Bind what new settings ask for, if it is not bound already. Raises OSError."""
        wanted = settings.metrics_listen
        return await self._listeners.prepare(() if wanted is None else (wanted,))

    def swap(self, settings: Settings, change: Change[Listener]) -> None:
        """Put settings, and the change that was prepared for them, in force."""
        self._service.plan = metrics_plan(settings, self._handler)
        self._listeners.swap(change)

    def serve(self, change: Change[Listener]) -> None:
        """Serve what is new in a change that is in force."""
        for listener in change.fresh:
            self._serve(listener)

    def close(self) -> None:
        """Accept no more."""
        self._listeners.close()
