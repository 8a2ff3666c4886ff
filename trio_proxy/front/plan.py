"""What a connection needs of the configuration."""

from __future__ import annotations

from attrs import field, frozen

from trio_proxy.codec.h1.requests import HeadLimits
from trio_proxy.exchange.contract import Handler
from trio_proxy.exchange.deadlines import Budgets
from trio_proxy.policy.forwarding import HeaderRules


@frozen(kw_only=True)
class Plan:
    """All of it. A reload swaps the whole object.

    ``route`` is the only route that there is, empty if the handler finds the one of each request.
    ``max_body_bytes`` 0 stands for no limit.
    """

    handler: Handler
    budgets: Budgets
    rules: HeaderRules = field(factory=HeaderRules)
    head_limits: HeadLimits = field(factory=HeadLimits)
    max_body_bytes: int = 0
    route: str = ""
