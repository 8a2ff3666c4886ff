"""``[breaker]``: when an upstream that fails is left alone altogether."""

from __future__ import annotations

from attrs import frozen

from trio_proxy.settings.checks import milliseconds, number
from trio_proxy.settings.messages import statuses
from trio_proxy.settings.table import Table


@frozen(kw_only=True)
class BreakerSettings(Table):
    """When an upstream that fails is left alone altogether."""

    window_ms: int = milliseconds(10_000, 100)
    min_requests: int = number(20, 1, 1_000_000)
    error_percent: int = number(50, 1, 100)
    open_ms: int = milliseconds(5000, 1)
    half_open_requests: int = number(3, 1, 10_000)
    #: Statuses that count as errors, beside connect errors, resets and timeouts.
    error_statuses: tuple[str, ...] = statuses("5xx")
