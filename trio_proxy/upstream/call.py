"""What all tries of one exchange have in common."""

from __future__ import annotations

from trio_proxy.codec.h1.requests import HeadLimits
from trio_proxy.exchange.contract import Sink
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.messages import Request
from trio_proxy.policy.forwarding import HeaderRules, Origin


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
