"""The handler that everything is for: pass a request on to an upstream and its answer back."""

from __future__ import annotations

from collections.abc import Mapping

from trio_proxy.codec.h1.requests import HeadLimits
from trio_proxy.exchange.contract import Sink
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.messages import Request
from trio_proxy.policy.forwarding import HeaderRules, Origin
from trio_proxy.upstream.call import Call
from trio_proxy.upstream.pool.pool import Pool
from trio_proxy.upstream.retry import Attempts


class ProxyHandler:
    """Proxies to one pool. ``seconds`` are the budgets of the waits that come from here on.

    The connection to the upstream is free again before the last bytes have gone to the client, so
    that a slow reader does not hold it for longer than the body needs.
    """

    def __init__(
        self, pool: Pool, seconds: Mapping[str, float], rules: HeaderRules, limits: HeadLimits
    ) -> None:
        self._pool = pool
        self._seconds = seconds
        self._rules = rules
        self._limits = limits

    async def handle(
        self, exchange: Exchange, request: Request, origin: Origin, sink: Sink
    ) -> None:
        pool = self._pool
        exchange.pool = pool.name
        sink.watchdog.deadlines.seconds = self._seconds
        pool.entered()
        try:
            call = Call(exchange, request, origin, sink, self._rules, self._limits)
            await sink.end(await Attempts(pool, call).run())
        finally:
            pool.left()
