"""A running proxy: listeners, connections, clusters, and how they start, reload and stop.

The nursery of the client connections lies inside that of everything that serves them (accept
loops, hang-up watch, reaper, log writer), so that a stop ends the accept loops first, drains the
connections, and only then takes the helpers away.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from trio_proxy.addresses import Address, TcpAddress
from trio_proxy.front.service import Service
from trio_proxy.handlers.metrics import MetricsHandler
from trio_proxy.lifecycle import Exchange
from trio_proxy.net.network import SocketNetwork
from trio_proxy.net.streams import Listener, Network
from trio_proxy.server import build
from trio_proxy.server.acceptor import Acceptor
from trio_proxy.server.listeners import Change, Listeners
from trio_proxy.server.ratelimits import RateLimits
from trio_proxy.settings import Settings
from trio_proxy.telemetry.logwriter import LogWriter
from trio_proxy.telemetry.metrics import build_registry, render
from trio_proxy.telemetry.sinks import LoggingSink
from trio_proxy.telemetry.stats import Stats
from trio_proxy.upstream.cluster import Cluster
from trio_proxy.upstream.keeper import Keeper

log = logging.getLogger("trio_proxy.server")

#: Connections of scrapers; they do not compete with clients for theirs.
MAX_METRICS_CONNS = 64

#: What exchanges that a drain cuts off have to say so, in seconds.
CUT_SECONDS = 1.0


class Telemetry:
    """What connections report to: the counters, and the access log while it is on."""

    def __init__(self, stats: Stats, on_exchange: Callable[[Exchange], None] | None) -> None:
        self.stats = stats
        self.on_exchange = on_exchange
        self.connection_opened = stats.connection_opened
        self.connection_closed = stats.connection_closed
        self.request_started = stats.request_started

    def exchange_ended(self, exchange: Exchange) -> None:
        self.stats.exchange_ended(exchange)
        if self.on_exchange is not None:
            self.on_exchange(exchange)


class Unobserved:
    """The metrics port does not count itself."""

    def connection_opened(self) -> None: ...

    def connection_closed(self) -> None: ...

    def request_started(self) -> None: ...

    def exchange_ended(self, exchange: Exchange) -> None: ...


class Proxy:
    """One proxy in one event loop; made by `open_proxy`."""

    def __init__(
        self, settings: Settings, network: Network, on_exchange: Callable[[Exchange], None] | None
    ) -> None:
        self.settings = settings
        self.stats = Stats()
        self._network = network
        self._on_exchange = on_exchange
        self._listeners = Listeners(network)
        self._fresh: list[Listener] = []
        self._metrics_listener: Listener | None = None
        access = on_exchange if settings.logging.access else None
        self._telemetry = Telemetry(self.stats, access)
        self.cluster = Cluster(
            build.DEFAULT_POOL,
            build.cluster_plan(settings),
            network,
            self.stats.upstream,
            self.stats.queue_length,
        )
        self._keeper = Keeper(self.cluster, self.stats.forget_upstream)
        self._rate_limits = RateLimits()
        plan = build.proxy_plan(settings, self.cluster, self._rate_limits)
        self.service = Service(plan, self._telemetry)
        timers = self.service.timers
        self.client_limiter = trio.CapacityLimiter(settings.limits.max_client_conns)
        registry = build_registry(self.stats)
        handler = MetricsHandler(functools.partial(render, registry))
        self._metrics_service = Service(build.metrics_plan(settings, handler), Unobserved(), timers)
        self._metrics_handler = handler
        self._reloading = trio.Lock()
        self._background: trio.Nursery
        self._acceptor: Acceptor
        self._metrics_acceptor: Acceptor

    def __repr__(self) -> str:
        clients = len(self.service.connections)
        state = "draining" if self.service.draining else "serving"
        return f"<Proxy {state} on {', '.join(map(str, self.addresses))} clients={clients}>"

    @property
    def addresses(self) -> list[Address]:
        """Where clients can connect, with real port numbers, in the order of the settings."""
        return self._listeners.addresses

    @property
    def address(self) -> Address:
        """The first of `addresses`."""
        return self.addresses[0]

    @property
    def url(self) -> str:
        """``http://HOST:PORT`` of the first TCP listener. Raises LookupError if there is none."""
        for address in self.addresses:
            if isinstance(address, TcpAddress):
                return f"http://{address}"
        raise LookupError("the proxy has no TCP listener")

    @property
    def metrics_address(self) -> Address | None:
        """Where ``/metrics`` is served, or None."""
        return self._metrics_listener.address if self._metrics_listener else None

    # Start.

    async def bind(self) -> None:
        """Bind every address of the settings. Raises OSError, and then leaves none bound."""
        found = await self.cluster.look_up(self.cluster.plan)
        self.cluster.apply(self.cluster.plan, found)
        redis = await self._rate_limits.prepare(self.settings.rate_limit)
        self._rate_limits.apply(self.settings.rate_limit, redis)
        self.service.plan = build.proxy_plan(self.settings, self.cluster, self._rate_limits)
        change = await self._listeners.prepare(self.settings.listen)
        self._fresh, _ = self._listeners.swap(self.settings.listen, change)
        try:
            if self.settings.metrics_listen is not None:
                self._metrics_listener = await self._network.listen(self.settings.metrics_listen)
        except BaseException:
            self.close_listeners()
            raise

    def start(self, background: trio.Nursery, connections: trio.Nursery) -> None:
        """Begin to serve what was bound."""
        self._background = background
        self._acceptor = Acceptor(self.service, self.client_limiter, connections)
        self._metrics_acceptor = Acceptor(
            self._metrics_service,
            trio.CapacityLimiter(MAX_METRICS_CONNS),
            background,
            limit_name="connections to the metrics port",
        )
        background.start_soon(self.service.timers.run)
        background.start_soon(self._keeper.run)
        self._rate_limits.start(background)
        for listener in self._fresh:
            self._serve(listener)
        if self._metrics_listener is not None:
            self._serve_metrics(self._metrics_listener)

    def _serve(self, listener: Listener) -> None:
        self._background.start_soon(self._acceptor.run, listener)
        log.info("listening on %s", _shown(listener.address))

    def _serve_metrics(self, listener: Listener) -> None:
        self._background.start_soon(self._metrics_acceptor.run, listener)
        log.info("metrics on %s/metrics", _shown(listener.address))

    # Reload.

    async def reload(self, settings: Settings) -> None:
        """Put new settings in force without closing a connection.

        Everything that can fail comes first; then the whole of it is swapped between two task
        steps. Client connections take the new settings with their next request. Raises OSError if a
        new address cannot be bound, and then nothing has changed.
        """
        check_settings(settings)
        async with self._reloading:
            try:
                await self._reload(settings)
            except BaseException:
                self._use_nameservers()
                raise

    def _use_nameservers(self) -> None:
        if isinstance(self._network, SocketNetwork):
            self._network.use_nameservers(self.settings.dns.nameservers)

    async def _reload(self, settings: Settings) -> None:
        plan = build.cluster_plan(settings)
        if isinstance(self._network, SocketNetwork):
            self._network.use_nameservers(settings.dns.nameservers)
        found = await self.cluster.look_up(plan)
        redis = await self._rate_limits.prepare(settings.rate_limit)
        change = await self._listeners.prepare(settings.listen)
        fresh_metrics: Listener | None = None
        same = (self.settings.metrics_listen, self.metrics_address)
        metrics_moved = settings.metrics_listen not in same
        try:
            if metrics_moved and settings.metrics_listen is not None:
                fresh_metrics = await self._network.listen(settings.metrics_listen)
        except BaseException:
            change.abandon()
            raise
        self.cluster.apply(plan, found)
        self._rate_limits.apply(settings.rate_limit, redis)
        self._swap(settings)
        self._swap_listeners(settings, change)
        if metrics_moved:
            self._swap_metrics_listener(fresh_metrics)

    def _swap(self, settings: Settings) -> None:
        self.settings = settings
        self.service.plan = build.proxy_plan(settings, self.cluster, self._rate_limits)
        self._metrics_service.plan = build.metrics_plan(settings, self._metrics_handler)
        self.client_limiter.total_tokens = settings.limits.max_client_conns
        self._telemetry.on_exchange = self._on_exchange if settings.logging.access else None

    def _swap_listeners(self, settings: Settings, change: Change) -> None:
        fresh, gone = self._listeners.swap(settings.listen, change)
        for address in gone:
            log.info("no longer listening on %s", _shown(address))
        for listener in fresh:
            self._serve(listener)

    def _swap_metrics_listener(self, fresh: Listener | None) -> None:
        if self._metrics_listener is not None:
            self._metrics_listener.close()
        self._metrics_listener = fresh
        if fresh is not None:
            self._serve_metrics(fresh)

    # Stop.

    def _drain_seconds(self) -> float:
        return self.settings.timeouts.seconds["drain"]

    async def drain(self) -> None:
        """Stop accepting, let exchanges end for at most ``drain_ms``, then cut them off."""
        if self.service.draining:
            return
        self.service.draining = True
        self._listeners.close()
        for connection in list(self.service.connections):
            connection.start_drain()
        with trio.move_on_after(self._drain_seconds()):
            await self._wait_until_no_clients()
        left = list(self.service.connections)
        if left:
            log.warning("drain_ms is over: cutting %d connections", len(left))
        for connection in left:
            connection.cut()
        with trio.move_on_after(CUT_SECONDS):
            await self._wait_until_no_clients()

    async def _wait_until_no_clients(self) -> None:
        while self.service.connections:
            await self.service.emptied.wait()

    def close_listeners(self) -> None:
        """Close every listener; at the end of a stop or of a failed start."""
        self._listeners.close()
        if self._metrics_listener is not None:
            self._metrics_listener.close()


def check_settings(settings: object) -> None:
    """Raises TypeError for what is not a settings object."""
    if not isinstance(settings, Settings):
        kind = type(settings).__name__
        raise TypeError(f"expected trio_proxy.Settings, got {kind}; trio_proxy.load_file reads one")


def _shown(address: Address) -> str:
    return f"http://{address}" if isinstance(address, TcpAddress) else str(address)


@asynccontextmanager
async def open_proxy(
    settings: Settings,
    *,
    network: Network | None = None,
    on_exchange: Callable[[Exchange], None] | None = None,
) -> AsyncIterator[Proxy]:
    """Serve inside an ``async with`` block: ``async with open_proxy(settings) as proxy: ...``.

    Leaving the block normally drains the proxy; an exception or a cancellation stops it at once.
    ``network`` replaces the operating system's (see `trio_proxy.testing.SimNet`); its ``run`` is
    then the caller's business. ``on_exchange`` is called with each ended exchange, instead of an
    access log through the logger ``trio_proxy.access``. Raises OSError if an address cannot be
    bound.
    """
    check_settings(settings)
    own_network = SocketNetwork(nameservers=settings.dns.nameservers) if network is None else None
    writer = None
    if on_exchange is None:
        writer = LogWriter(LoggingSink())
        on_exchange = writer.put
    proxy = Proxy(settings, own_network or network, on_exchange)  # type: ignore[arg-type]
    failure: BaseException | None = None
    try:
        await proxy.bind()
        async with trio.open_nursery() as background:
            if own_network is not None:
                background.start_soon(own_network.run)
            if writer is not None:
                background.start_soon(writer.run)
            async with trio.open_nursery() as connections:
                proxy.start(background, connections)
                try:
                    yield proxy
                    await proxy.drain()
                except BaseException as exc:  # noqa: BLE001 - raised again below
                    # Kept out of the nurseries, so that the caller gets it back as it was raised.
                    failure = exc
                proxy.close_listeners()  # a token that comes free now must not let another one in
                connections.cancel_scope.cancel(reason="the proxy is closing")
            background.cancel_scope.cancel(reason="the proxy is closing")
        if failure is not None:
            raise failure
    finally:
        proxy.close_listeners()
        proxy.cluster.close_idle()
        if writer is not None:
            await writer.flush()
        if own_network is not None:
            own_network.close()
