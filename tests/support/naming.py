"""Words that the tests of DNS share: names, who is behind them, and when they were looked up.

net = NamedNet(A_IP, B_IP)
async with named_world(net) as w:
    serve(w)
    assert await ask(w, 4) == b"abab"
    net.name(HOST, B_IP, C_IP)
    await until_ms(30_001)
    assert await ask(w, 4) == b"bcbc"
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from support.pools import A, B, C
from support.scenario import now_ms, only
from support.world import World, settings_for, world
from trio_proxy.settings import Settings, UpstreamSettings
from trio_proxy.testing import SimNet

#: The name by which most of these tests know their upstreams; with the port of `pools.NAMES`.
HOST, APP = "app.test", "app.test:9000"
#: Another one.
OTHER_HOST, OTHER = "other.test", "other.test:9000"
#: A name for SRV records.
SERVICE = "_http._tcp.app.test"

#: The hosts of the first of `pools.NAMES`.
A_IP, B_IP, C_IP = (f"10.1.0.{number}" for number in range(1, 4))

Upstreams = Sequence[str | UpstreamSettings]


class NamedNet(SimNet):
    """A `SimNet` on which `HOST` has some addresses, or without any does not exist."""

    lookups: Lookups

    def __init__(self, *addresses: str, **options: Any) -> None:
        super().__init__(**options)
        self.lookups = Lookups()
        if addresses:
            self.name(HOST, *addresses)
        else:
            self.unname(HOST)

    def asked_at(self, name: str = HOST) -> list[float]:
        """When a name was looked up, in milliseconds."""
        pairs = zip(self.lookups, self.lookups.times, strict=True)
        return [at for one, at in pairs if one == name]


class Lookups(list[str]):
    """Names, and when each was looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def append(self, name: str) -> None:
        super().append(name)
        self.times.append(now_ms())


def named_world(
    network: SimNet,
    upstreams: Upstreams = (APP,),
    *,
    servers: Sequence[str] = (A, B, C),
    **tables: Any,
) -> AbstractAsyncContextManager[World]:
    """A `world` whose upstreams have names, and the servers that may be behind them."""
    tables.setdefault("timeouts", only())
    return world(upstreams=upstreams, servers=servers, network=network, **tables)


def named_settings(upstreams: Upstreams = (APP,), **tables: Any) -> Settings:
    """The settings that `named_world` would use; for reloads."""
    tables.setdefault("timeouts", only())
    return settings_for(upstreams, **tables)


def service(**rules: Any) -> UpstreamSettings:
    """The ``[[upstreams]]`` table of `SERVICE`, with further keys of it."""
    return UpstreamSettings(srv=SERVICE, **rules)


def shown(w: World) -> list[str]:
    """The upstreams that the metrics show, in order."""
    return sorted(name for _, name in w.proxy.stats.upstreams)


def fails(name: str, why: str) -> str:
    """What the log says, once, of a name that was known and cannot be looked up."""
    return f"dns: cannot resolve {why}; what was known of {name} before is kept"


def servfail(name: str) -> str:
    """The same, if it was SERVFAIL."""
    return fails(name, f"{name.removesuffix(':9000')}: SERVFAIL")


def unknown(host: str) -> str:
    """What it says of a host that was never known."""
    return f"dns: cannot resolve {host}: there is no such name"


def hangs(name: str) -> str:
    """What it says when a start or a reload does not wait for a name any longer."""
    return f"dns: no answer within 1 s for {name}"


def found(name: str) -> str:
    """What it says of a name that is known for the first time."""
    return f"dns: {name} is found"


def found_again(name: str) -> str:
    """And of one that was known before."""
    return f"dns: {name} is found again"


def told_of_dns(w: World) -> list[str]:
    """What the log says of look-ups."""
    return [line for line in w.messages() if line.startswith("dns: ")]
