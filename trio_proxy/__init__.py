"""An HTTP/1.1 reverse proxy on Trio and h11.

As a program: ``trio-proxy run conf/proxy.toml``. As a library::

    settings = Settings(
        listen=(TcpAddress("127.0.0.1", 0),),
        upstreams=(UpstreamSettings(host="127.0.0.1", port=9001),),
    )
    async with trio_proxy.open_proxy(settings) as proxy:
        print(proxy.url)

Handlers and middlewares of your own are given to `open_proxy`, or named in the configuration; what
they are is told by `Handler`, `Middleware` and `Sink`, and in docs/extending.md.
`trio_proxy.testing` has a simulated network on which the whole proxy runs in virtual time. To read
the source, begin with `trio_proxy.exchange.exchange`.

The names are imported when they are first used: the command line must be able to set its signals
right before it loads everything else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trio_proxy.exchange.contract import Handler, Middleware, Next, Sink, SinkFilter
    from trio_proxy.exchange.exchange import Exchange
    from trio_proxy.exchange.waits import Wait
    from trio_proxy.handlers.respond import respond
    from trio_proxy.http.addresses import Address, TcpAddress, UnixAddress, parse_address
    from trio_proxy.http.errors import ProxyError, Reason, Source, Verdict
    from trio_proxy.http.headers import Headers
    from trio_proxy.http.messages import Request, ResponseHead
    from trio_proxy.http.phases import Phase
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
        MiddlewareSettings,
        PoolLimits,
        PoolSettings,
        RateLimitSettings,
        Retry,
        RouteSettings,
        SettingError,
        Settings,
        Timeouts,
        UpstreamSettings,
    )
    from trio_proxy.settings.load.problems import ConfigError
    from trio_proxy.settings.load.toml import load_file

    __version__: str

__all__ = [
    "Address",
    "Balance",
    "BreakerSettings",
    "ConfigError",
    "Dns",
    "Exchange",
    "Handler",
    "HeaderSettings",
    "Headers",
    "Health",
    "Limits",
    "LoggingSettings",
    "Middleware",
    "MiddlewareSettings",
    "Next",
    "Phase",
    "PoolLimits",
    "PoolSettings",
    "Proxy",
    "ProxyError",
    "RateLimitSettings",
    "Reason",
    "Request",
    "ResponseHead",
    "Retry",
    "RouteSettings",
    "SettingError",
    "Settings",
    "Sink",
    "SinkFilter",
    "Source",
    "TcpAddress",
    "Timeouts",
    "UnixAddress",
    "UpstreamSettings",
    "Verdict",
    "Wait",
    "__version__",
    "load_file",
    "open_proxy",
    "parse_address",
    "respond",
]

#: Where the public names live.
_HOMES = {
    "exchange.contract": (
        "Handler",
        "Middleware",
        "Next",
        "Sink",
        "SinkFilter",
    ),
    "exchange.waits": ("Wait",),
    "exchange.exchange": ("Exchange",),
    "handlers.respond": ("respond",),
    "http.addresses": (
        "Address",
        "TcpAddress",
        "UnixAddress",
        "parse_address",
    ),
    "http.errors": (
        "ProxyError",
        "Reason",
        "Source",
        "Verdict",
    ),
    "http.headers": ("Headers",),
    "http.messages": (
        "Request",
        "ResponseHead",
    ),
    "http.phases": ("Phase",),
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
        "MiddlewareSettings",
        "PoolLimits",
        "PoolSettings",
        "RateLimitSettings",
        "Retry",
        "RouteSettings",
        "SettingError",
        "Settings",
        "Timeouts",
        "UpstreamSettings",
    ),
    "settings.load.problems": ("ConfigError",),
    "settings.load.toml": ("load_file",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        found: Any = importlib.import_module("importlib.metadata").version("trio-proxy")
    elif name in _HOME_OF:
        found = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
