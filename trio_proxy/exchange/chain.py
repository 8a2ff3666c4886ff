"""Middlewares in front of a handler, as one handler."""

from __future__ import annotations

from collections.abc import Sequence

from trio_proxy.exchange.contract import Handler, Middleware, Sink
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.messages import Request
from trio_proxy.http.phases import Phase


class Chained:
    """The handler that is made of a middleware and of what comes next."""

    def __init__(self, middleware: Middleware, handler: Handler) -> None:
        self._middleware = middleware
        self._handler = handler
        self._next = handler.handle

    def __repr__(self) -> str:
        return f"<Chained {self._middleware!r} {self._handler!r}>"

    async def handle(self, exchange: Exchange, request: Request, sink: Sink) -> None:
        exchange.phase = Phase.REQUEST_FILTER
        await self._middleware.handle(exchange, request, sink, self._next)


def chain(middlewares: Sequence[Middleware], handler: Handler) -> Handler:
    """The handler behind the middlewares, of which the first has the first word."""
    for middleware in reversed(middlewares):
        handler = Chained(middleware, handler)
    return handler
