"""The entrypoint for ``GET /metrics``; without ``metrics_listen`` it listens nowhere."""

from __future__ import annotations

import logging

from trio_proxy.exchange.contract import Handler
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.front.entrypoint import Entrypoint, EntrypointRules
from trio_proxy.front.listeners import shown
from trio_proxy.http.addresses import Address
from trio_proxy.net.network import Network
from trio_proxy.server.build import metrics_plan
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


def metrics_entrypoint(network: Network, handler: Handler) -> Entrypoint:
    """Where ``metrics_listen`` says, served by ``handler``."""
    rules = EntrypointRules(
        addresses=_addresses,
        max_conns=lambda _: MAX_METRICS_CONNS,
        plan=lambda settings: metrics_plan(settings, handler),
        limit_name="connections to the metrics port",
        opened=lambda address: log.info("metrics on %s/metrics", shown(address)),
        closed=lambda _: None,
    )
    return Entrypoint(network, rules, Unobserved())


def _addresses(settings: Settings) -> tuple[Address, ...]:
    return () if settings.metrics_listen is None else (settings.metrics_listen,)
