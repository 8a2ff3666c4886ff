"""``GET /metrics`` for Prometheus, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import trio

from trio_proxy.exchange.contract import Sink
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.handlers.respond import respond
from trio_proxy.http.messages import Request
from trio_proxy.policy.forwarding import Origin


class MetricsHandler:
    """Renders the metrics in a worker thread, one scrape at a time.

    ``render`` is given the Accept header and returns the body and its content type.
    """

    def __init__(self, render: Callable[[str], tuple[bytes, str]]) -> None:
        self._render = render
        self._limiter = trio.CapacityLimiter(1)

    async def handle(
        self, exchange: Exchange, request: Request, origin: Origin, sink: Sink
    ) -> None:
        path = request.target.partition(b"?")[0]
        if path != b"/metrics":
            await respond(sink, request, 404, "text/plain; charset=utf-8", b"try /metrics\n")
            return
        if request.method not in (b"GET", b"HEAD"):
            allow = ((b"Allow", b"GET, HEAD"),)
            await respond(sink, request, 405, "text/plain; charset=utf-8", b"GET only\n", allow)
            return
        accept = request.fields.get(b"accept", b"").decode("latin-1")
        sink.watchdog.arm("read")
        body, content_type = await trio.to_thread.run_sync(
            self._render, accept, limiter=self._limiter
        )
        await respond(sink, request, 200, content_type, body)
