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
"""

from trio_proxy.addresses import Address, TcpAddress, UnixAddress, parse_address
from trio_proxy.config import ConfigError, load_file
from trio_proxy.server.proxy import Proxy, open_proxy
from trio_proxy.settings import (
    Balance,
    HeaderSettings,
    Limits,
    LoggingSettings,
    Settings,
    Timeouts,
    UpstreamSettings,
)

__all__ = [
    "Address",
    "Balance",
    "ConfigError",
    "HeaderSettings",
    "Limits",
    "LoggingSettings",
    "Proxy",
    "Settings",
    "TcpAddress",
    "Timeouts",
    "UnixAddress",
    "UpstreamSettings",
    "load_file",
    "open_proxy",
    "parse_address",
]
