"""Every setting of the proxy: what a TOML file becomes, and what library users construct."""

from __future__ import annotations

from trio_proxy.settings.root import (
    HeaderSettings,
    Limits,
    LoggingSettings,
    Settings,
    Timeouts,
)
from trio_proxy.settings.table import SettingError
from trio_proxy.settings.upstreams import (
    Balance,
    BreakerSettings,
    Dns,
    Health,
    RateLimitSettings,
    Retry,
    UpstreamSettings,
)

__all__ = [
    "Balance",
    "BreakerSettings",
    "Dns",
    "HeaderSettings",
    "Health",
    "Limits",
    "LoggingSettings",
    "RateLimitSettings",
    "Retry",
    "SettingError",
    "Settings",
    "Timeouts",
    "UpstreamSettings",
]
