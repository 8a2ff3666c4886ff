"""A whole proxy on a simulated network, in virtual time, and what must be left of it: nothing.

    async def test_a_request_is_answered() -> None:
        async with world() as w:
            client = await w.client()
            await client.send(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
            upstream = await w.upstreams[0].accept()
            assert (await upstream.read_request()).start == b"GET / HTTP/1.1"
            await upstream.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
            assert (await client.read_response()).body == b"ok"

Leaving the block drains the proxy and then fails the test if anything is left behind: streams,
listeners, tokens, leases, waiters, counters, tasks, files, or an error in the log. Outside a test
function (hypothesis) use `run`. Whoever waits for something that never comes is told where.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio
from attrs import define, field
from trio.testing import MockClock

from support.conversation import ScriptedUpstream, Speaker
from trio_proxy.exchange.contract import Handler, Middleware
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.addresses import TcpAddress, UnixAddress, parse_address
from trio_proxy.http.phases import Phase
from trio_proxy.server.proxy import Proxy
from trio_proxy.server.serving import open_proxy
from trio_proxy.settings import MiddlewareSettings, Retry, Settings, UpstreamSettings
from trio_proxy.telemetry.stats import UpstreamKey, UpstreamStats
from trio_proxy.testing import SimNet, SimStream
from trio_proxy.upstream.pool.member import Member as PoolMember

PROXY = "10.0.0.1:80"
METRICS = "10.0.0.1:81"
CLIENT = "198.51.100.7"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

#: Virtual seconds after which a test hangs; beyond every deadline that one can configure.
FOREVER = 10 * 24 * 60 * 60.0


def run(main: Callable[..., Awaitable[Any]], *args: Any, clock: Any = None, **options: Any) -> Any:
    """``trio.run`` in virtual time, which `conftest` has every async test do."""
    clock = clock or MockClock(autojump_threshold=0)
    return trio.run(main, *args, clock=clock, **options)


# The world


@define(eq=False)
class World:
    """A running proxy and everything around it."""

    net: SimNet
    proxy: Proxy
    upstreams: list[ScriptedUpstream]
    #: The exchanges that have ended (with ``logging.access`` on).
    exchanges: list[Exchange]
    #: What the proxy has logged.
    log: list[logging.LogRecord]
    #: For tasks of the test; they are cancelled when the proxy has stopped.
    helpers: trio.Nursery
    _members: set[PoolMember] = field(factory=set)
    _gauges: dict[UpstreamKey, UpstreamStats] = field(factory=dict)
    _listened: set[str] = field(factory=set)
    _dialled: set[str] = field(factory=set)

    async def client(self, source: str = CLIENT, address: str | None = None) -> Speaker:
        """A client connection to the proxy's first listener."""
        self.remember()
        to = parse_address(address) if address else self.proxy.address
        return Speaker(await self.net.dial(to, source=source))

    async def add_upstream(self, address: str) -> ScriptedUpstream:
        """One more scripted upstream, for a reload to name (or for nobody)."""
        upstream = ScriptedUpstream(await self.net.listen(address), self.helpers)
        self.upstreams.append(upstream)
        return upstream

    async def reload(self, settings: Settings) -> None:
        """Reload the proxy. Use this one, so that what the old settings named is checked too."""
        await self.proxy.reload(settings)
        self.remember()

    def messages(self, level: int = logging.INFO) -> list[str]:
        """The log's lines of at least that level."""
        return [record.getMessage() for record in self.log if record.levelno >= level]

    def proxy_streams(self) -> list[SimStream]:
        """The proxy's ends of the connections that it has not closed."""
        streams = self.net.open_streams
        return [s for s in streams if s.local in self._listened or s.remote in self._dialled]

    # Nothing left behind

    def remember(self) -> None:
        """Note everything that has to be empty in the end."""
        for pool in self.proxy.pools.values():
            self._members.update(pool.members)
            self._dialled.update(member.name for member in pool.members)
        self._gauges.update(self.proxy.stats.upstreams)
        metrics = self.proxy.metrics_address
        self._listened.update(map(str, self.proxy.addresses + ([metrics] if metrics else [])))
        self._dialled.update(upstream.name for upstream in self.upstreams)

    def leftovers(self) -> list[str]:
        """What is left of the proxy after it has stopped, in words."""
        self.remember()
        proxy, stats = self.proxy, self.proxy.stats
        found = [f"open stream {stream!r}" for stream in self.proxy_streams()]
        found += [
            f"open listener {listener!r}"
            for listener in self.net.open_listeners
            if str(listener.address) in self._listened
        ]
        counts = {
            "client tokens": proxy.client_limiter.borrowed_tokens,
            "connections": len(proxy.service.connections),
            "queue waiters": sum(pool.queue_length for pool in proxy.pools.values()),
            "queue length gauge": sum(stats.queue_length.values()),
            "requests in flight": stats.requests_in_flight,
            "client connections gauge": stats.client_connections,
            "orphaned upstreams": stats.orphaned_upstreams,
        }
        for member in self._members:
            counts[f"tokens of {member.name}"] = member.limiter.borrowed_tokens
            counts[f"leases of {member.name}"] = len(member.leased)
        for name, gauges in self._gauges.items():
            counts[f"active gauge of {' '.join(name)}"] = gauges.active
            counts[f"idle gauge of {' '.join(name)}"] = gauges.idle
        found += [f"{name}: {count}" for name, count in counts.items() if count]
        return found + self._unended_exchanges()

    def _unended_exchanges(self) -> list[str]:
        started = self.proxy.stats.requests_total
        found = []
        if self.proxy.settings.logging.access and len(set(map(id, self.exchanges))) != started:
            found.append(f"{started} requests started, but {len(self.exchanges)} ended")
        if len(set(map(id, self.exchanges))) != len(self.exchanges):
            found.append("an exchange ended twice")
        bad = [e for e in self.exchanges if e.phase is not Phase.LOG or e.leases]
        return found + [f"not properly ended: {exchange}" for exchange in bad]


@asynccontextmanager
async def world(
    *,
    upstreams: int | Sequence[str | UpstreamSettings] = 1,
    servers: Sequence[str] | None = None,
    listen: Sequence[str] = (PROXY,),
    metrics_listen: str | None = None,
    network: SimNet | None = None,
    errors_in_log: bool = False,
    handlers: Mapping[str, Handler] | None = None,
    middlewares: Sequence[Middleware] | Mapping[str, Middleware] = (),
    tables_of_middlewares: Mapping[str, MiddlewareSettings] | None = None,
    **tables: Any,
) -> AsyncIterator[World]:
    """A proxy before ``upstreams``; ``tables`` are those of `Settings`.

    ``handlers`` and ``middlewares`` are what `open_proxy` is given, ``tables_of_middlewares`` are
    in the settings.

    ``upstreams`` are a number of them, or addresses, or `upstream_settings`. ``servers`` are the
    addresses where somebody listens, if not at those: of names, DNS decides who it is.

    ``network`` replaces a `SimNet` without latency; ``errors_in_log`` says that some are expected.
    """
    net = SimNet() if network is None else network
    if tables_of_middlewares is not None:
        tables["middlewares"] = tables_of_middlewares
    config = settings_for(upstreams, listen=listen, metrics_listen=metrics_listen, **tables)
    places = [each.address for each in config.upstreams] if servers is None else servers
    tasks, files = trio.lowlevel.current_statistics().tasks_living, _open_files()
    failure: Exception | None = None
    exchanges: list[Exchange] = []
    hangs_at: list[str] = []
    with _captured_log() as records, _no_hanging(hangs_at):
        async with net, trio.open_nursery() as helpers:
            scripted = [ScriptedUpstream(await net.listen(place), helpers) for place in places]
            try:
                async with open_proxy(
                    config,
                    network=net,
                    on_exchange=exchanges.append,
                    handlers=handlers,
                    middlewares=middlewares,
                ) as proxy:
                    w = World(net, proxy, scripted, exchanges, records, helpers)
                    w.remember()
                    try:
                        yield w
                    except trio.Cancelled as exc:
                        hangs_at.append(_line_of(exc))
                        raise
            except Exception as exc:  # noqa: BLE001 - raised again below, outside the nursery
                failure = exc
            helpers.cancel_scope.cancel()
        for upstream in scripted:
            upstream.close()
    if failure is not None:
        raise failure
    found = w.leftovers()
    tasks_left = trio.lowlevel.current_statistics().tasks_living - tasks
    found += [f"tasks: {tasks_left}"] if tasks_left > 0 else []
    found += [f"file: {file}" for file in _open_files() - files]
    if not errors_in_log:
        found += [f"logged error: {line}" for line in w.messages(logging.ERROR)]
    assert not found, "left behind:\n  " + "\n  ".join(found)


def settings_for(
    upstreams: int | Sequence[str | UpstreamSettings] = 1,
    *,
    listen: Sequence[str] = (PROXY,),
    metrics_listen: str | None = None,
    **tables: Any,
) -> Settings:
    """The settings that `world` would use; for reloads."""
    tables.setdefault("retry", Retry(attempts=1))
    names = upstreams
    if isinstance(names, int):
        names = [f"10.1.0.{number}:9000" for number in range(1, names + 1)]
    each = [upstream_settings(name) if isinstance(name, str) else name for name in names]
    return Settings(
        listen=tuple(map(parse_address, listen)),
        metrics_listen=parse_address(metrics_listen) if metrics_listen else None,
        upstreams=tuple(each),
        **tables,
    )


def upstream_settings(name: str, **rules: Any) -> UpstreamSettings:
    """The ``[[upstreams]]`` table of an address, with further keys of it."""
    address = parse_address(name)
    if isinstance(address, UnixAddress):
        return UpstreamSettings(unix=address.path, **rules)
    assert isinstance(address, TcpAddress)
    return UpstreamSettings(host=address.host, port=address.port, **rules)


@contextmanager
def _captured_log() -> Iterator[list[logging.LogRecord]]:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("trio_proxy")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield records
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def _no_hanging(where: list[str]) -> Iterator[None]:
    """Fail once everybody has waited forever, naming the line that `_line_of` noted."""
    with trio.move_on_after(FOREVER) as scope:
        yield
    if scope.cancelled_caught:
        raise AssertionError(f"the test hangs at {' '.join(where) or 'its end'}")


def _line_of(exc: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(exc.__traceback__) if "/test_" in f.filename]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else "?"


def _open_files() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} -> {os.readlink(f'/proc/self/fd/{number}')}")
        except OSError:
            continue  # the one that listed the directory
    return found
