"""A running proxy: listeners, connections, pools, and how they start, reload and stop.

`serving` has the nurseries in which it runs.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import trio

from trio_proxy.exchange.complaint import Complaint
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.front.acceptor import Acceptor
from trio_proxy.front.service import Service
from trio_proxy.handlers.metrics import MetricsHandler
from trio_proxy.http.addresses import Address, TcpAddress
from trio_proxy.net.dial import SocketNetwork
from trio_proxy.net.network import Listener, Network
from trio_proxy.server import build
from trio_proxy.server.listeners import Change, Listeners, shown
from trio_proxy.server.metrics_port import MetricsPort
from trio_proxy.server.ratelimits import RateLimits
from trio_proxy.settings.root import Settings
from trio_proxy.telemetry.metrics import build_registry, render
from trio_proxy.telemetry.stats import Stats
from trio_proxy.upstream.pool.keeper import Keeper
from trio_proxy.upstream.pool.pool import Pool

log = logging.getLogger("trio_proxy.server")

#: What exchanges that a drain cuts off have to say so, in seconds.
CUT_SECONDS = 1.0


class Telemetry:
    """What connections report to: the counters, and the access log while it is on.

    Neither costs a connection anything if it fails: that is logged, and the other is told.
    """

    def __init__(self, stats: Stats, on_exchange: Callable[[Exchange], None] | None) -> None:
        self.stats = stats
        self.on_exchange = on_exchange
        self._uncounted, self._untold = Complaint(log), Complaint(log)
        self.connection_opened = stats.connection_opened
        self.connection_closed = stats.connection_closed
        self.request_started = stats.request_started

    def exchange_ended(self, exchange: Exchange) -> None:
        try:
            self.stats.exchange_ended(exchange)
        except Exception:  # noqa: BLE001 - logged, with its traceback
            self._uncounted.fault("internal error in counting %s", exchange.trace_id)
        if self.on_exchange is not None:
            try:
                self.on_exchange(exchange)
            except Exception:  # noqa: BLE001 - logged, with its traceback
                self._untold.fault("error in on_exchange trace_id=%s", exchange.trace_id)


class Proxy:
    """One proxy in one event loop; made by `serving.open_proxy`.

    ``announce`` is told with what format and values the log says where it listens.
    """

    def __init__(
        self,
        settings: Settings,
        network: Network,
        on_exchange: Callable[[Exchange], None] | None,
        announce: Callable[..., None] = log.info,
    ) -> None:
        self.settings = settings
        self.stats = Stats()
        self._network = network
        self._on_exchange = on_exchange
        self._announce = announce
        self._listeners = Listeners(network)
        access = on_exchange if settings.logging.access else None
        self._telemetry = Telemetry(self.stats, access)
        self.pool = Pool(
            build.DEFAULT_POOL,
            build.pool_rules(settings),
            network,
            self.stats.upstream,
            self.stats.queue_length,
        )
        self._keeper = Keeper(self.pool, self.stats.forget_upstream)
        self._rate_limits = RateLimits()
        plan = build.proxy_plan(settings, self.pool, self._rate_limits)
        self.service = Service(plan, self._telemetry)
        self.client_limiter = trio.CapacityLimiter(settings.limits.max_client_conns)
        registry = build_registry(self.stats)
        handler = MetricsHandler(functools.partial(render, registry))
        self._metrics_port = MetricsPort(network, settings, handler)
        self._reloading = trio.Lock()
        self._background: trio.Nursery
        self._acceptor: Acceptor

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
        return self._metrics_port.address

    @property
    def clients(self) -> str:
        """How many there are, in words."""
        return f"{len(self.service.connections)} client connections"

    # Start.

    async def bind(self) -> None:
        """Bind every address of the settings. Raises OSError, and then leaves none bound."""
        found = await self.pool.look_up(self.pool.plan)
        self.pool.apply(self.pool.plan, found)
        redis = await self._rate_limits.prepare(self.settings.rate_limit)
        self._rate_limits.apply(self.settings.rate_limit, redis)
        self.service.plan = build.proxy_plan(self.settings, self.pool, self._rate_limits)
        change = await self._listeners.prepare(self.settings.listen)
        self._listeners.swap(change)
        try:
            metrics_change = await self._metrics_port.prepare(self.settings)
        except BaseException:
            self.close_listeners()
            raise
        self._metrics_port.swap(self.settings, metrics_change)

    def start(self, background: trio.Nursery, connections: trio.Nursery) -> None:
        """Begin to serve what was bound."""
        self._background = background
        self._acceptor = Acceptor(self.service, self.client_limiter, connections)
        background.start_soon(self.service.timers.run)
        background.start_soon(self._keeper.run)
        self._rate_limits.start(background)
        for listener in self._listeners.bound:
            self._serve(listener)
        self._metrics_port.start(background)

    def _serve(self, listener: Listener) -> None:
        self.serve_too(listener)
        self._announce("listening on %s", shown(listener.address))

    def serve_too(self, listener: Listener) -> None:
        """Serve what is not among `addresses`; whoever made it closes it, before a `drain`."""
        self._background.start_soon(self._acceptor.run, listener)

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
        plan = build.pool_rules(settings)
        if isinstance(self._network, SocketNetwork):
            self._network.use_nameservers(settings.dns.nameservers)
        found = await self.pool.look_up(plan)
        redis = await self._rate_limits.prepare(settings.rate_limit)
        change = await self._listeners.prepare(settings.listen)
        try:
            metrics_change = await self._metrics_port.prepare(settings)
        except BaseException:
            change.abandon()
            raise
        self.pool.apply(plan, found)
        self._rate_limits.apply(settings.rate_limit, redis)
        self._swap(settings)
        self._metrics_port.swap(settings, metrics_change)
        self._swap_listeners(change)
        self._metrics_port.serve(metrics_change)

    def _swap(self, settings: Settings) -> None:
        self.settings = settings
        self.service.plan = build.proxy_plan(settings, self.pool, self._rate_limits)
        self.client_limiter.total_tokens = settings.limits.max_client_conns
        self._telemetry.on_exchange = self._on_exchange if settings.logging.access else None

    def _swap_listeners(self, change: Change[Listener]) -> None:
        for address in self._listeners.swap(change):
            self._announce("no longer listening on %s", shown(address))
        for listener in change.fresh:
            self._serve(listener)

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
            _call(connection.start_drain)
        with trio.move_on_after(self._drain_seconds()):
            await self._wait_until_no_clients()
        left = list(self.service.connections)
        if left:
            log.warning("drain_ms is over: cutting %d connections", len(left))
        for connection in left:
            _call(connection.cut)
        with trio.move_on_after(CUT_SECONDS):
            await self._wait_until_no_clients()

    async def _wait_until_no_clients(self) -> None:
        while self.service.connections:
            await self.service.emptied.wait()

    def close_listeners(self) -> None:
        """Close every listener; at the end of a stop or of a failed start."""
        self._listeners.close()
        self._metrics_port.close()


def _call(step: Callable[[], None]) -> None:
    """One connection that cannot be drained must not keep the others from it."""
    try:
        step()
    except Exception:
        log.exception("internal error in draining a client connection")


def check_settings(settings: object) -> None:
    """Raises TypeError for what is not a settings object."""
    if not isinstance(settings, Settings):
        kind = type(settings).__name__
        raise TypeError(f"expected trio_proxy.Settings, got {kind}; trio_proxy.load_file reads one")
