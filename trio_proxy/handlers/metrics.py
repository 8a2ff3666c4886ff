"""``GET /metrics`` for Prometheus, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import trio

from trio_proxy.exchange.contract import Sink
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.handlers.respond import respond
from trio_proxy.http.messages import Request


class MetricsHandler:
    """Renders the metrics in a worker thread, one scrape at a time.

    ``render`` is given the Accept header and returns the body and its content type.
    """

    def __init__(self, render: Callable[[str], tuple[bytes, str]]) -> None:
        self._render = render
        self._limiter = trio.CapacityLimiter(1)

    async def handle(self, exchange: Exchange, request: Request, sink: Sink) -> None:
        path = request.target.partition(b"?")[0]
        if path != b"/metrics":
            await respond(exchange, sink, 404, "try /metrics\n")
            return
        if request.method not in (b"GET", b"HEAD"):
            await respond(exchange, sink, 405, "GET only\n", fields=((b"Allow", b"GET, HEAD"),))
            return
        accept = request.fields.get(b"accept", b"").decode("latin-1")
        body, content_type = await trio.to_thread.run_sync(
            self._render, accept, limiter=self._limiter
        )
        await respond(exchange, sink, 200, body, content_type=content_type)
