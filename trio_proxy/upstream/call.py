"""What all tries of one exchange have in common."""

from __future__ import annotations

from trio_proxy.contract import Sink
from trio_proxy.errors import ProxyError, Reason, Source
from trio_proxy.forwarding import HeaderRules, Origin
from trio_proxy.lifecycle import Exchange
from trio_proxy.messages import Request
from trio_proxy.wire.requests import HeadLimits


class Call:
    """One request on its way to whichever upstream. It holds the leases that its tries need."""

    __slots__ = ("exchange", "limits", "origin", "request", "rules", "sink", "watchdog")

    def __init__(
        self,
        exchange: Exchange,
        request: Request,
        origin: Origin,
        sink: Sink,
        rules: HeaderRules,
        limits: HeadLimits,
    ) -> None:
        self.exchange = exchange
        self.request = request
        self.origin = origin
        self.sink = sink
        self.watchdog = sink.watchdog
        self.rules = rules
        self.limits = limits

    def cut(self) -> None:
        """End the exchange: its upstream was taken away and the drain's time is up."""
        phase, detail = self.exchange.phase, "upstream removed and drain deadline passed"
        error = ProxyError(Source.PROXY, phase, Reason.SHUTTING_DOWN, detail=detail)
        self.watchdog.abort(error)
