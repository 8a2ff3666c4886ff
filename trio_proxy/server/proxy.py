"""A running proxy: entrypoints, connections, pools, and how they start, reload and stop.

`serving` has the nurseries in which it runs.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping

import trio

from trio_proxy.exchange.complaint import Complaint
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.front.entrypoint import Entrypoint, EntrypointRules
from trio_proxy.front.listeners import shown
from trio_proxy.front.plan import Plan
from trio_proxy.front.service import Service
from trio_proxy.handlers.metrics import MetricsHandler
from trio_proxy.http.addresses import Address, TcpAddress
from trio_proxy.net.network import Listener, Network
from trio_proxy.server import build
from trio_proxy.server.metrics_port import metrics_entrypoint
from trio_proxy.server.parts import Part, put_in_force
from trio_proxy.server.plugins import Plugins
from trio_proxy.server.pools import Pools
from trio_proxy.server.ratelimits import RateLimits
from trio_proxy.settings import Settings
from trio_proxy.telemetry.metrics import build_registry, render
from trio_proxy.telemetry.stats import Stats
from trio_proxy.upstream.pool.pool import Pool

log = logging.getLogger("trio_proxy.server")


class Telemetry:
    """What connections report to: the counters, and the access log while it is on.

    Neither costs a connection anything if it fails: that is logged, and the other is told.
    """

    def __init__(self, stats: Stats, on_exchange: Callable[[Exchange], None] | None) -> None:
        self.stats = stats
        self._uncounted, self._untold = Complaint(log), Complaint(log)
        self.connection_opened = stats.connection_opened
        self.connection_closed = stats.connection_closed
        self.request_started = stats.request_started
        self._on_exchange = on_exchange
        self._logs_access = False
        self._prepared = False

    def exchange_ended(self, exchange: Exchange) -> None:
        try:
            self.stats.exchange_ended(exchange)
        except Exception:  # noqa: BLE001 - logged, with its traceback
            self._uncounted.fault("internal error in counting %s", exchange.trace_id)
        if self._logs_access and self._on_exchange is not None:
            try:
                self._on_exchange(exchange)
            except Exception:  # noqa: BLE001 - logged, with its traceback
                self._untold.fault("error in on_exchange trace_id=%s", exchange.trace_id)

    async def prepare(self, settings: Settings) -> None:
        self._prepared = settings.logging.access

    def commit(self) -> None:
        self._logs_access = self._prepared

    def abandon(self) -> None:
        """There is nothing to undo."""


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
        *,
        plugins: Plugins | None = None,
    ) -> None:
        self.settings = settings
        self.stats = Stats()
        telemetry = Telemetry(self.stats, on_exchange)
        self._pools = Pools(network, self.stats)
        self._rate_limits = RateLimits()
        self._plugins = plugins or Plugins()
        rules = EntrypointRules(
            addresses=lambda settings: settings.listen,
            max_conns=lambda settings: settings.limits.max_client_conns,
            plan=self._plan,
            limit_name="limits.max_client_conns",
            opened=lambda address: announce("listening on %s", shown(address)),
            closed=lambda address: announce("no longer listening on %s", shown(address)),
        )
        self._clients = Entrypoint(network, rules, telemetry)
        metrics = MetricsHandler(functools.partial(render, build_registry(self.stats)))
        self._metrics = metrics_entrypoint(network, metrics)
        #: What a reload changes. Entrypoints come last: their plans are made of the others.
        self.parts: list[Part] = [
            self._pools,
            self._rate_limits,
            self._plugins,
            telemetry,
            self._clients,
            self._metrics,
        ]
        self._reloading = trio.Lock()

    def _plan(self, settings: Settings) -> Plan:
        return build.proxy_plan(settings, self.pools, self._rate_limits, self._plugins)

    def __repr__(self) -> str:
        clients = len(self.service.connections)
        state = "draining" if self.service.draining else "serving"
        return f"<Proxy {state} on {', '.join(map(str, self.addresses))} clients={clients}>"

    @property
    def service(self) -> Service:
        """What all client connections share."""
        return self._clients.service

    @property
    def client_limiter(self) -> trio.CapacityLimiter:
        """The cap on client connections."""
        return self._clients.limiter

    @property
    def addresses(self) -> list[Address]:
        """Where clients can connect, with real port numbers, in the order of the settings."""
        return self._clients.addresses

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
        return next(iter(self._metrics.addresses), None)

    @property
    def pools(self) -> Mapping[str, Pool]:
        """The pools by their names; that of the short form is called ``default``."""
        return self._pools.by_name

    @property
    def clients(self) -> str:
        """How many there are, in words."""
        return f"{len(self.service.connections)} client connections"

    # Start.

    async def bind(self) -> None:
        """Bind every address of the settings. Raises OSError, and then leaves none bound.

        Raises ConfigError for what routes name and nothing has, and for what cannot be made.
        """
        await put_in_force(self.parts, self.settings)

    def start(self, background: trio.Nursery, connections: trio.Nursery) -> None:
        """Begin to serve what was bound."""
        self._pools.start(background)
        self._rate_limits.start(background)
        self._clients.start(background, connections)
        self._metrics.start(background, background)

    def serve_too(self, listener: Listener) -> None:
        """Serve what is not among `addresses`; whoever made it closes it, before a `drain`."""
        self._clients.serve(listener)

    # Reload.

    async def reload(self, settings: Settings) -> None:
        """Put new settings in force without closing a connection.

        Client connections take them with their next request. Raises OSError if a new address cannot
        be bound, and ConfigError as `bind` does; then nothing has changed.
        """
        check_settings(settings)
        async with self._reloading:
            await put_in_force(self.parts, settings)
            self.settings = settings

    # Stop.

    async def drain(self) -> None:
        """Stop accepting, let exchanges end for at most ``drain_ms``, then cut them off."""
        await self._clients.drain(self.settings.timeouts.seconds["drain"])

    def close_listeners(self) -> None:
        """Close every listener; at the end of a stop or of a failed start."""
        self._clients.close()
        self._metrics.close()

    def close_idle(self) -> None:
        """Close every idle connection to an upstream."""
        self._pools.close_idle()


def check_settings(settings: object) -> None:
    """Raises TypeError for what is not a settings object."""
    if not isinstance(settings, Settings):
        kind = type(settings).__name__
        raise TypeError(f"expected trio_proxy.Settings, got {kind}; trio_proxy.load_file reads one")
