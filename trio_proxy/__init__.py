"""An HTTP/1.1 reverse proxy on Trio and h11.

As a program: ``trio-proxy run conf/proxy.toml``. As a library::

    settings = Settings(
        listen=(TcpAddress("127.0.0.1", 0),),
        upstreams=(UpstreamSettings(host="127.0.0.1", port=9001),),
    )
    async with trio_proxy.open_proxy(settings) as proxy:
        print(proxy.url)

`trio_proxy.testing` has a simulated network on which the whole proxy runs in virtual time. To read
the source, begin with `trio_proxy.lifecycle`.

The names are imported when they are first used: the command line must be able to set its signals
right before it loads everything else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trio_proxy.addresses import Address, TcpAddress, UnixAddress, parse_address
    from trio_proxy.config import ConfigError, load_file
    from trio_proxy.server.proxy import Proxy
    from trio_proxy.server.serving import open_proxy
    from trio_proxy.settings import (
        HeaderSettings,
        Limits,
        LoggingSettings,
        Settings,
        Timeouts,
    )
    from trio_proxy.settings_upstreams import (
        Balance,
        BreakerSettings,
        Dns,
        Health,
        RateLimitSettings,
        Retry,
        UpstreamSettings,
    )

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
    "Proxy",
    "RateLimitSettings",
    "Retry",
    "Settings",
    "TcpAddress",
    "Timeouts",
    "UnixAddress",
    "UpstreamSettings",
    "load_file",
    "open_proxy",
    "parse_address",
]

_MODULES = (
    "addresses",
    "settings",
    "settings_upstreams",
    "config",
    "server.proxy",
    "server.serving",
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = importlib.import_module(f"trio_proxy.{module}")
            if hasattr(found, name):
                globals()[name] = getattr(found, name)
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
