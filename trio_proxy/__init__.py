"""An HTTP/1.1 reverse proxy on Trio and h11.

As a program: ``trio-proxy run conf/proxy.toml``. As a library::

    settings = Settings(
        listen=(TcpAddress("127.0.0.1", 0),),
        upstreams=(UpstreamSettings(host="127.0.0.1", port=9001),),
    )
    async with trio_proxy.open_proxy(settings) as proxy:
        print(proxy.url)

`trio_proxy.testing` has a simulated network on which the whole proxy runs in virtual time. To read
the source, begin with `trio_proxy.exchange.exchange`.

The names are imported when they are first used: the command line must be able to set its signals
right before it loads everything else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trio_proxy.http.addresses import Address, TcpAddress, UnixAddress, parse_address
    from trio_proxy.server.proxy import Proxy
    from trio_proxy.server.serving import open_proxy
    from trio_proxy.settings import (
        Balance,
        BreakerSettings,
        Dns,
        HeaderSettings,
        Health,
        Limits,
        LoggingSettings,
        PoolLimits,
        PoolSettings,
        RateLimitSettings,
        Retry,
        RouteSettings,
        Settings,
        Timeouts,
        UpstreamSettings,
    )
    from trio_proxy.settings.load.problems import ConfigError
    from trio_proxy.settings.load.toml import load_file

__all__ = [
    "Address",
    "Balance",
    "BreakerSettings",
    "ConfigError",
    "Dns",
    "HeaderSettings",
    "Health",
    "Limits",
    "LoggingSettings",
    "PoolLimits",
    "PoolSettings",
    "Proxy",
    "RateLimitSettings",
    "Retry",
    "RouteSettings",
    "Settings",
    "TcpAddress",
    "Timeouts",
    "UnixAddress",
    "UpstreamSettings",
    "load_file",
    "open_proxy",
    "parse_address",
]

#: Where the public names live.
_HOMES = {
    "http.addresses": ("Address", "TcpAddress", "UnixAddress", "parse_address"),
    "server.proxy": ("Proxy",),
    "server.serving": ("open_proxy",),
    "settings": (
        "Balance",
        "BreakerSettings",
        "Dns",
        "HeaderSettings",
        "Health",
        "Limits",
        "LoggingSettings",
        "PoolLimits",
        "PoolSettings",
        "RateLimitSettings",
        "Retry",
        "RouteSettings",
        "Settings",
        "Timeouts",
        "UpstreamSettings",
    ),
    "settings.load.problems": ("ConfigError",),
    "settings.load.toml": ("load_file",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
