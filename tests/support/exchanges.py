"""Exchanges that have ended, made for tests of what is told of them."""

from __future__ import annotations

from typing import Any

from trio_proxy.exchange.exchange import Exchange


def exchange_with(peer: str = "127.0.0.1", **facts: Any) -> Exchange:
    """An exchange of which these facts are known."""
    exchange = Exchange(0.0, 0.0, peer)
    for name, value in facts.items():
        setattr(exchange, name, value)
    return exchange
