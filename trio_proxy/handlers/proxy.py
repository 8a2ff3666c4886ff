"""The handler that everything is for: pass a request on to an upstream and its answer back."""

from __future__ import annotations

from trio_proxy.exchange.contract import Sink
from trio_proxy.exchange.deadlines import Budgets
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.messages import Request
from trio_proxy.upstream.pool.pool import Pool
from trio_proxy.upstream.retry import Retrier
from trio_proxy.upstream.tries import MessageRules


class ProxyHandler:
    """Proxies to one pool. ``budgets`` are those of the waits that come from here on.

    The slot at the upstream is free again before the last bytes have gone to the client, so that a
    slow reader does not hold it for longer than the body needs.
    """

    def __init__(self, pool: Pool, budgets: Budgets, rules: MessageRules) -> None:
        self._pool = pool
        self._budgets = budgets
        self._rules = rules

    def __repr__(self) -> str:
        return f"<ProxyHandler {self._pool.name}>"

    async def handle(self, exchange: Exchange, request: Request, sink: Sink) -> None:
        pool = self._pool
        exchange.pool = pool.name
        exchange.deadlines.budgets = self._budgets
        pool.entered()
        try:
            await sink.end(await Retrier(pool, exchange, request, sink, self._rules).run())
        finally:
            pool.left()
