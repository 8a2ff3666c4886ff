"""The proxies under test and their configurations, equal as far as they can be.

Each has one worker, process and thread; keep-alive on both sides with the same idle time and no
limit of requests; at most `CLIENTS` clients and `UPSTREAMS` upstream connections; it adds to
X-Forwarded-For and writes an access log into a file. HAProxy has no files for logs, so its standard
output is one. Everything else is left as it comes.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from machine import tool_version
from upstream import user_line

CLIENTS = 4000
UPSTREAMS = 512
IDLE_SECONDS = 75
HERE = Path(__file__).parent

TRIO_PROXY = "trio-proxy"


class Proxy:
    """One proxy: how to see that it is there, how to start it, and where its access log is."""

    def __init__(
        self,
        name: str,
        *,
        command: str,
        config: str = "",
        version: Callable[[], str | None],
        log: str = "{name}.out",
        env: Mapping[str, str] | None = None,
        has_features: bool = True,
    ) -> None:
        self.name = name
        self.version = version
        self.has_features = has_features
        self._command = command
        self._config = config
        self._log = log
        self._env = env or {}

    def prepare(
        self, directory: Path, port: int, upstream: int
    ) -> tuple[list[str], dict[str, str]]:
        """Write the configuration; returns the command and its environment."""
        facts = {
            "name": self.name,
            "directory": directory,
            "config": directory / f"{self.name}.conf",
            "here": HERE / "peers",
            "python": sys.executable,
            "port": port,
            "upstream": upstream,
            "clients": CLIENTS,
            "upstreams": UPSTREAMS,
            "idle": IDLE_SECONDS,
            "user": user_line(),
        }
        facts["config"].write_text(_fill(self._config, facts))
        environment = {key: _fill(value, facts) for key, value in self._env.items()}
        return [_fill(word, facts) for word in self._command.split()], environment

    def log_path(self, directory: Path) -> Path:
        return directory / self._log.format(name=self.name)


def _fill(template: str, facts: Mapping[str, object]) -> str:
    """Replace ``<key>``; braces mean something in most of these configurations."""
    return re.sub(r"<(\w+)>", lambda match: str(facts[match[1]]), template)


def _program(name: str, *arguments: str) -> Callable[[], str | None]:
    return functools.partial(tool_version, name, *arguments)


def _modules(*names: str, optional: tuple[str, ...] = ()) -> Callable[[], str | None]:
    def look() -> str | None:
        there = [name for name in names + optional if importlib.util.find_spec(name) is not None]
        if not set(names) <= set(there):
            return None
        return ", ".join(
            version(name) if name == names[0] else f"{name} {version(name)}" for name in there
        )

    return look


_TRIO_PROXY_CONFIG = """
listen = "127.0.0.1:<port>"

[[upstreams]]
host = "127.0.0.1"
port = <upstream>

[timeouts]
idle_ms = <idle>000
upstream_idle_ms = <idle>000
drain_ms = 1000

[limits]
max_client_conns = <clients>
max_conns_per_upstream = <upstreams>
"""

_NGINX_CONFIG = """
<user>
worker_processes 1;
daemon off;
pid <directory>/<name>.pid;
error_log <directory>/<name>-error.log;
events { worker_connections 9000; }  # counts both sides
http {
    access_log <directory>/<name>-access.log combined;
    tcp_nodelay on;
    keepalive_timeout <idle>s;
    keepalive_requests 100000000;
    client_max_body_size 0;
    client_body_temp_path <directory>/<name>-body;
    proxy_temp_path <directory>/<name>-proxy;
    upstream origin {
        server 127.0.0.1:<upstream> max_conns=<upstreams>;
        keepalive <upstreams>;
        keepalive_requests 100000000;
        keepalive_timeout <idle>s;
    }
    server {
        listen 127.0.0.1:<port> backlog=4096;
        location / {
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;  # no part of a large response goes to the disk
        }
    }
}
"""

_HAPROXY_CONFIG = """
global
    nbthread 1
    maxconn <clients>
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    option forwardfor
    http-reuse always
    timeout connect 1s
    timeout client <idle>s
    timeout server 15s
    timeout http-keep-alive <idle>s
    timeout http-request 10s
frontend clients
    bind 127.0.0.1:<port> backlog 4096
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    default_backend origin
backend origin
    server origin 127.0.0.1:<upstream> maxconn <upstreams> pool-max-conn <upstreams>
"""

_CADDY_CONFIG = """
{
    admin off
    auto_https off
    servers {
        timeouts {
            idle <idle>s
        }
    }
}
http://127.0.0.1:<port> {
    bind 127.0.0.1
    log {
        output file <directory>/<name>-access.log {
            roll_disabled
        }
    }
    reverse_proxy 127.0.0.1:<upstream> {
        transport http {
            versions 1.1
            keepalive <idle>s
            keepalive_idle_conns <upstreams>
            keepalive_idle_conns_per_host <upstreams>
            max_conns_per_host <upstreams>
        }
    }
}
"""

ALL = (
    Proxy(
        TRIO_PROXY,
        command="<python> -m trio_proxy run <config>",
        config=_TRIO_PROXY_CONFIG,
        version=_modules("trio_proxy"),
    ),
    Proxy(
        "nginx",
        command="nginx -e stderr -p <directory> -c <config>",
        config=_NGINX_CONFIG,
        version=_program("nginx", "-v"),
        log="{name}-access.log",
    ),
    Proxy(
        "haproxy",
        command="haproxy -db -f <config>",
        config=_HAPROXY_CONFIG,
        version=_program("haproxy", "-v"),
    ),
    Proxy(
        "caddy",
        command="caddy run --adapter caddyfile --config <config>",
        config=_CADDY_CONFIG,
        version=_program("caddy", "version"),
        log="{name}-access.log",
        env={"GOMAXPROCS": "1", "XDG_DATA_HOME": "<directory>", "XDG_CONFIG_HOME": "<directory>"},
    ),
    Proxy(
        "aiohttp",
        command="<python> <here>/aiohttp_proxy.py <port> <upstream> <upstreams> <idle>",
        version=_modules("aiohttp", optional=("uvloop",)),
    ),
    Proxy(
        "bare-h11",
        command="<python> <here>/bare_h11.py <port> <upstream>",
        version=_modules("h11", "trio"),
        has_features=False,
    ),
)
