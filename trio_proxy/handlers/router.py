"""The handler in front of those of the routes."""

from __future__ import annotations

from trio_proxy.exchange.contract import Handler, Sink
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.messages import Request
from trio_proxy.http.phases import Phase
from trio_proxy.routing.table import RouteTable


class Router:
    """Hands each request to the handler of its route."""

    def __init__(self, table: RouteTable[Handler]) -> None:
        self._table = table

    def __repr__(self) -> str:
        return f"<Router {self._table}>"

    async def handle(self, exchange: Exchange, request: Request, sink: Sink) -> None:
        """Raises `ProxyError` with `Reason.NO_ROUTE` for a request that no route takes."""
        route = self._table.find(request.target.partition(b"?")[0])
        if route is None:
            raise ProxyError(Source.CLIENT, Phase.ROUTE, Reason.NO_ROUTE)
        exchange.route = route.path
        await route.target.handle(exchange, request, sink)
