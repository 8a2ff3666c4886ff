"""One upstream: its connections, idle and leased, and the cap on both together.

A connection holds one token of the upstream's `CapacityLimiter` from before it is dialled until it
is closed, so idle ones count. Everything here is synchronous bookkeeping; who waits, and in which
order, is the cluster's business.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

import trio
from attrs import define, field, frozen

from trio_proxy.addresses import Address, TcpAddress
from trio_proxy.errors import ProxyError, Reason, Source
from trio_proxy.lifecycle import Exchange
from trio_proxy.net.streams import Stream
from trio_proxy.net.watchdog import Watchdog
from trio_proxy.wire.h1 import ClientWire
from trio_proxy.wire.requests import HeadLimits

log = logging.getLogger("trio_proxy.upstream")


class Gauges(Protocol):
    """What the pool reports of itself."""

    active: int
    idle: int


@frozen(eq=False)
class Holder:
    """Who holds a lease, and the means to end it."""

    exchange: Exchange
    watchdog: Watchdog

    def cut(self) -> None:
        """End the exchange: its upstream was taken away and the drain's time is up."""
        phase, detail = self.exchange.phase, "upstream removed and drain deadline passed"
        error = ProxyError(Source.PROXY, phase, Reason.SHUTTING_DOWN, detail=detail)
        self.watchdog.abort(error)


@define(eq=False)
class UpstreamConnection:
    """One connection, or the right to open one. It is also the borrower of its limiter token."""

    upstream: Upstream
    stream: Stream | None = None
    #: Made with the stream, and as old as it.
    wire: ClientWire = field(init=False, repr=False)
    idle_until: float = 0.0
    #: The peer has hung up, so no further request may be sent.
    dead: bool = False

    def opened(self, stream: Stream) -> None:
        """A fresh stream was dialled for this connection."""
        self.stream = stream
        self.dead = False
        self.wire = ClientWire(HeadLimits())
        stream.on_hangup = self._on_hangup

    def close_stream(self) -> None:
        """Close what is open but keep the slot."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None

    def _on_hangup(self, reset: bool) -> None:
        self.dead = True
        self.upstream.drop_if_idle(self)


class Upstream:
    """The connections to one address.

    ``freed`` is called whenever a connection or a slot has become free.
    """

    def __init__(
        self, address: Address, max_conns: int, gauges: Gauges, freed: Callable[[], None]
    ) -> None:
        self.address = address
        self.name = str(address)
        self.host_field = self._host_field(address)
        self.limiter = trio.CapacityLimiter(max_conns)
        self.retired = False
        self._gauges = gauges
        self._freed = freed
        #: Oldest first; reuse takes the newest (LIFO), so that spare ones grow old and are closed.
        self._idle: deque[UpstreamConnection] = deque()
        #: Leased connections and who holds them.
        self.leased: dict[UpstreamConnection, Holder] = {}
        self._unused: trio.Event | None = None

    def __repr__(self) -> str:
        tokens = f"{self.limiter.borrowed_tokens}/{self.limiter.total_tokens}"
        return f"<Upstream {self.name} conns={tokens} idle={len(self._idle)}>"

    @staticmethod
    def _host_field(address: Address) -> bytes:
        """What Host says when the client's is not preserved; the default port goes unsaid."""
        if not isinstance(address, TcpAddress):
            return b"localhost"
        return str(address).removesuffix(":80").encode()

    def maybe_lease(self, holder: Holder) -> UpstreamConnection | None:
        """An idle connection that still looks alive, else a slot to dial in, else None."""
        connection = self._maybe_reuse() or self._maybe_open_slot()
        if connection is not None:
            self.leased[connection] = holder
            self._gauges.active += 1
        return connection

    def _maybe_reuse(self) -> UpstreamConnection | None:
        now = trio.current_time()
        while self._idle:
            connection = self._idle.pop()
            self._gauges.idle -= 1
            stream = connection.stream
            # Bytes nobody asked for poison the connection, and an end or error kills it.
            if stream is not None and now < connection.idle_until and not stream.is_readable():
                return connection
            self._close(connection)
        return None

    def _maybe_open_slot(self) -> UpstreamConnection | None:
        if self.limiter.available_tokens <= 0:
            return None
        connection = UpstreamConnection(self)
        self.limiter.acquire_on_behalf_of_nowait(connection)
        return connection

    def give_back(self, connection: UpstreamConnection, idle_seconds: float) -> None:
        """End a lease whose connection can serve another request."""
        if self.retired or connection.dead or self.limiter.available_tokens < 0:
            self.discard(connection)
            return
        self._end_lease(connection)
        connection.idle_until = trio.current_time() + idle_seconds
        self._idle.append(connection)
        self._gauges.idle += 1
        self._freed()

    def discard(self, connection: UpstreamConnection) -> None:
        """End a lease and close its connection."""
        self._end_lease(connection)
        self._close(connection)
        self._freed()

    def _end_lease(self, connection: UpstreamConnection) -> None:
        del self.leased[connection]
        self._gauges.active -= 1
        if self._unused is not None and not self.leased:
            self._unused.set()

    def _close(self, connection: UpstreamConnection) -> None:
        connection.close_stream()
        self.limiter.release_on_behalf_of(connection)

    def drop_if_idle(self, connection: UpstreamConnection) -> None:
        """Close a connection whose peer has hung up, unless an exchange is reading from it."""
        if connection in self._idle:
            self._idle.remove(connection)
            self._gauges.idle -= 1
            self._close(connection)
            self._freed()

    async def wait_until_unused(self) -> None:
        """Wait until no lease is left."""
        if self.leased:
            self._unused = trio.Event()
            await self._unused.wait()

    def expire_idle(self, now: float) -> float:
        """Close what has been idle for too long; when the next one will be, `math.inf` if none."""
        while self._idle and self._idle[0].idle_until <= now:
            log.debug("%s: upstream_idle deadline passed", self.name)
            self.drop_if_idle(self._idle[0])
        return self._idle[0].idle_until if self._idle else math.inf

    def apply(self, max_conns: int, idle_seconds: float) -> None:
        """Take on new bounds: close the oldest idle connections that no longer fit them."""
        self.limiter.total_tokens = max_conns
        while self._idle and self.limiter.available_tokens < 0:
            self.drop_if_idle(self._idle[0])
        latest = trio.current_time() + idle_seconds
        for connection in self._idle:
            connection.idle_until = min(connection.idle_until, latest)

    def close_idle(self) -> None:
        """Close every idle connection."""
        while self._idle:
            self.drop_if_idle(self._idle[-1])

    def retire(self) -> None:
        """Take no more requests; what is under way goes on."""
        self.retired = True
        self.close_idle()
