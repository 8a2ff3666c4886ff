"""The handler that everything is for: pass a request on to an upstream and its answer back."""

from __future__ import annotations

from trio_proxy.contract import Sink
from trio_proxy.forwarding import HeaderRules, Origin
from trio_proxy.lifecycle import Exchange
from trio_proxy.messages import Request
from trio_proxy.upstream.attempts import Attempts
from trio_proxy.upstream.call import Call
from trio_proxy.upstream.cluster import Cluster
from trio_proxy.wire.requests import HeadLimits


class ProxyHandler:
    """Proxies to one cluster.

    The connection to the upstream is free again before the last bytes have gone to the client, so
    that a slow reader does not hold it for longer than the body needs.
    """

    def __init__(self, cluster: Cluster, rules: HeaderRules, limits: HeadLimits) -> None:
        self._cluster = cluster
        self._rules = rules
        self._limits = limits

    async def handle(
        self, exchange: Exchange, request: Request, origin: Origin, sink: Sink
    ) -> None:
        call = Call(exchange, request, origin, sink, self._rules, self._limits)
        await sink.end(await Attempts(self._cluster, call).run())
