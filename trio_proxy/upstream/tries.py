"""What all tries of one request have in common, and what is decided between two of them."""

from __future__ import annotations

from trio_proxy.codec.h1.requests import HeadLimits
from trio_proxy.exchange.contract import Sink
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.errors import ProxyError
from trio_proxy.http.headers import Headers
from trio_proxy.http.messages import Content, Request, ResponseHead
from trio_proxy.policy.forwarding import HeaderRules
from trio_proxy.upstream.pool.pool import Pool
from trio_proxy.upstream.replay import ReplayContent
from trio_proxy.upstream.session import Slot


class MessageRules:
    """What the configuration says of messages to and from upstreams."""

    __slots__ = ("headers", "heads")

    def __init__(self, headers: HeaderRules, heads: HeadLimits) -> None:
        self.headers = headers
        self.heads = heads


class Tries:
    """A request on its way to one upstream after another; `trio_proxy.upstream.retry` decides.

    ``replay`` is the request's content if it has one; ``is_replayable`` says that the request may
    go out again though it may have been acted upon, ``has_next`` that there may be another try, and
    ``can_go_elsewhere`` that it may be at another upstream.
    """

    __slots__ = (
        "can_go_elsewhere",
        "content",
        "exchange",
        "has_next",
        "is_replayable",
        "pool",
        "replay",
        "request",
        "rules",
        "sink",
    )

    def __init__(
        self, pool: Pool, exchange: Exchange, request: Request, sink: Sink, rules: MessageRules
    ) -> None:
        self.pool = pool
        self.exchange = exchange
        self.request = request
        self.sink = sink
        self.rules = rules
        self.is_replayable = False
        self.has_next = False
        self.can_go_elsewhere = False
        self.replay: ReplayContent | None = None
        self.content: Content = request.content

    def may_follow_failure(self, slot: Slot, error: ProxyError) -> bool:
        """Whether another try is to follow one that has failed before its answer."""
        raise NotImplementedError

    def may_follow_answer(self, slot: Slot, head: ResponseHead) -> bool:
        """Whether another try is to follow one whose answer is no good."""
        raise NotImplementedError

    def add_cookie(self, fields: Headers, slot: Slot) -> None:
        """Tell a client that has moved, or is new, where it belongs."""
        raise NotImplementedError
