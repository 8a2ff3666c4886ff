"""The proxies under test and their configurations, equal as far as they can be.

Each has one worker, process and thread; keep-alive on both sides with the same idle time and no
limit of requests; the same caps on client and upstream connections; it adds to X-Forwarded-For,
writes an access log into a file and passes upgrades on. HAProxy has no files for logs, so its
standard output is one. Everything else is left as it comes.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from configs import CADDY, HAPROXY, NGINX, TRIO_PROXY
from machine import tool_version
from upstream import user_line

HERE = Path(__file__).parent

PLAIN = "trio-proxy"
SPEED = "trio-proxy[speed]"
OURS = (PLAIN, SPEED)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What one start of a proxy is for. ``upstreams`` are ``HOST:PORT``."""

    upstreams: Sequence[str]
    #: How many connections it accepts, and opens to each upstream.
    clients: int = 4000
    upstream_conns: int = 512
    workers: int = 1
    #: How long a connection may be idle, on both sides.
    idle_seconds: int = 75


@dataclass(frozen=True, kw_only=True, eq=False)
class Proxy:
    """One proxy: how to see that it is there and how to start it.

    ``server`` is the line of the configuration for one upstream, with ``<host>``, ``<port>`` and
    ``<number>``. ``lacks`` is what it cannot do.
    """

    name: str
    command: str
    version: Callable[[], str | None]
    config: str = ""
    server: str = "<host>:<port>"
    log: str = "access.log"
    env: Mapping[str, str] = field(default_factory=dict)
    lacks: frozenset[str] = frozenset()

    def prepare(self, directory: Path, port: int, setup: Setup) -> tuple[list[str], dict[str, str]]:
        """Write the configuration; returns the command and its environment."""
        pool = max(setup.upstream_conns, 2 * len(setup.upstreams))
        facts: dict[str, object] = {
            "directory": directory,
            "config": directory / "proxy.conf",
            "here": HERE / "peers",
            "python": sys.executable,
            "port": port,
            "servers": _servers(self.server, setup),
            "upstream": setup.upstreams[0].rpartition(":")[2],
            "workers": f"workers = {setup.workers}" if setup.workers > 1 else "",
            "clients": setup.clients,
            "upstreams": setup.upstream_conns,
            "pool": pool,
            "files": setup.clients + pool + 100,
            "idle": setup.idle_seconds,
            "user": user_line(),
        }
        (directory / "proxy.conf").write_text(_fill(self.config, facts))
        environment = {key: _fill(value, facts) for key, value in self.env.items()}
        return [_fill(word, facts) for word in self.command.split()], environment


def _servers(template: str, setup: Setup) -> str:
    lines = []
    for number, upstream in enumerate(setup.upstreams):
        host, _, port = upstream.rpartition(":")
        facts = {"host": host, "port": port, "number": number, "upstreams": setup.upstream_conns}
        lines.append(_fill(template, facts))
    return "\n".join(lines)


def _fill(template: str, facts: Mapping[str, object]) -> str:
    """Replace ``<key>``; braces mean something in most of these configurations."""
    return re.sub(r"<(\w+)>", lambda match: str(facts[match[1]]), template)


def _program(name: str, *arguments: str) -> Callable[[], str | None]:
    return functools.partial(tool_version, name, *arguments)


def _modules(*names: str, optional: tuple[str, ...] = ()) -> Callable[[], str | None]:
    """A version of all modules; None if one that is not optional is missing."""

    def look() -> str | None:
        there = [name for name in names + optional if importlib.util.find_spec(name) is not None]
        if not set(names) <= set(there):
            return None
        return ", ".join(
            version(name) if name == names[0] else f"{name} {version(name)}" for name in there
        )

    return look


def _speed() -> str | None:
    """The compiled h11, and whether trio-proxy's own hot path is compiled, too."""
    found = _modules("trio_proxy", "h11_mypyc")()
    hot = importlib.util.find_spec("trio_proxy.front.h1_session")
    is_compiled = hot is not None and not (hot.origin or "").endswith(".py")
    return f"{found}, own modules compiled" if found and is_compiled else found


ALL = (
    Proxy(
        name=PLAIN,
        command="<python> -m trio_proxy run <config>",
        config=TRIO_PROXY,
        server='[[upstreams]]\nhost = "<host>"\nport = <port>',
        version=_modules("trio_proxy", "h11"),
        log="out",
        # What is installed may be compiled; this tree is not.
        env={"TRIO_PROXY_H11": "h11", "PYTHONPATH": str(HERE.parent)},
    ),
    Proxy(
        name=SPEED,
        command="<python> -m trio_proxy run <config>",
        config=TRIO_PROXY,
        server='[[upstreams]]\nhost = "<host>"\nport = <port>',
        version=_speed,
        log="out",
    ),
    Proxy(
        name="nginx",
        command="nginx -e stderr -p <directory> -c <config>",
        config=NGINX,
        server="        server <host>:<port> max_conns=<upstreams>;",
        version=_program("nginx", "-v"),
    ),
    Proxy(
        name="haproxy",
        command="haproxy -db -f <config>",
        config=HAPROXY,
        server="    server s<number> <host>:<port> maxconn <upstreams> pool-max-conn <upstreams>",
        version=_program("haproxy", "-v"),
        log="out",
    ),
    Proxy(
        name="caddy",
        command="caddy run --adapter caddyfile --config <config>",
        config=CADDY,
        version=_program("caddy", "version"),
        env={"GOMAXPROCS": "1", "XDG_DATA_HOME": "<directory>", "XDG_CONFIG_HOME": "<directory>"},
    ),
    Proxy(
        name="aiohttp",
        command="<python> <here>/aiohttp_proxy.py <port> <upstream> <upstreams> <idle>",
        version=_modules("aiohttp", optional=("uvloop",)),
        log="out",
    ),
    Proxy(
        name="bare-h11",
        command="<python> <here>/bare_h11.py <port> <upstream>",
        version=_modules("h11", "trio"),
        log="out",
        lacks=frozenset({"features", "tunnel"}),
    ),
)
