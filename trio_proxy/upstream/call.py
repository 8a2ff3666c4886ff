"""What all tries of one exchange have in common."""

from __future__ import annotations

from attrs import frozen

from trio_proxy.contract import Sink
from trio_proxy.forwarding import HeaderRules, Origin
from trio_proxy.lifecycle import Exchange
from trio_proxy.messages import Request
from trio_proxy.wire.requests import HeadLimits


@frozen(eq=False)
class Call:
    """One request on its way to whichever upstream."""

    exchange: Exchange
    request: Request
    origin: Origin
    sink: Sink
    rules: HeaderRules
    limits: HeadLimits
