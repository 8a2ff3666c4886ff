"""Every setting of the proxy: what a TOML file becomes, and what library users construct.

One table has one file. Outside of this folder they are imported from here.
"""

from __future__ import annotations

from trio_proxy.settings.balance import Balance, Policy
from trio_proxy.settings.breaker import BreakerSettings
from trio_proxy.settings.checks import MAX_CONNECTIONS
from trio_proxy.settings.dns import Dns
from trio_proxy.settings.headers import HeaderSettings, TrustedPeer
from trio_proxy.settings.health import Health
from trio_proxy.settings.limits import MAX_BODY_BYTES, Limits, PoolLimits
from trio_proxy.settings.logging import LoggingSettings, LogLevel
from trio_proxy.settings.middleware import MiddlewareSettings
from trio_proxy.settings.pool import DEFAULT_POOL, PoolSettings
from trio_proxy.settings.rate_limit import RateLimitSettings
from trio_proxy.settings.retry import RETRY_CONDITIONS, Retry
from trio_proxy.settings.root import MAX_WORKERS, Settings, Workers
from trio_proxy.settings.route import RouteSettings
from trio_proxy.settings.table import SettingError
from trio_proxy.settings.timeouts import Timeouts
from trio_proxy.settings.upstream import UpstreamSettings

__all__ = [
    "DEFAULT_POOL",
    "MAX_BODY_BYTES",
    "MAX_CONNECTIONS",
    "MAX_WORKERS",
    "RETRY_CONDITIONS",
    "Balance",
    "BreakerSettings",
    "Dns",
    "HeaderSettings",
    "Health",
    "Limits",
    "LogLevel",
    "LoggingSettings",
    "MiddlewareSettings",
    "Policy",
    "PoolLimits",
    "PoolSettings",
    "RateLimitSettings",
    "Retry",
    "RouteSettings",
    "SettingError",
    "Settings",
    "Timeouts",
    "TrustedPeer",
    "UpstreamSettings",
    "Workers",
]
