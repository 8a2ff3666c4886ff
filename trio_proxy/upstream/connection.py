"""One connection to an upstream, and who holds it."""

from __future__ import annotations

from typing import Protocol

from trio_proxy.codec.h1.requests import HeadLimits
from trio_proxy.codec.h1.wire import ClientWire
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import Stream
from trio_proxy.exchange.watchdog import Watchdog
from trio_proxy.http.addresses import Address
from trio_proxy.upstream.pool.condition import Condition, Ticket


class Holder(Protocol):
    """Who holds a lease."""

    @property
    def exchange(self) -> Exchange: ...

    @property
    def watchdog(self) -> Watchdog: ...

    def cut(self) -> None:
        """End it: the upstream was taken away and the drain's time is up."""
        ...


class Owner(Protocol):
    """The member of a pool that a connection belongs to."""

    name: str
    address: Address
    host_field: bytes
    cookie: str
    condition: Condition

    def give_back(self, connection: UpstreamConnection, now: float | None = None) -> None: ...

    def give_back_unused(self, connection: UpstreamConnection) -> None: ...

    def discard(self, connection: UpstreamConnection) -> None: ...

    def drop_if_idle(self, connection: UpstreamConnection) -> None: ...


class UpstreamConnection:
    """One connection, or the right to open one. It is also the borrower of its limiter token."""

    __slots__ = ("dead", "idle_until", "leased_at", "stream", "ticket", "upstream", "wire")

    #: Made with the stream, and as old as it.
    wire: ClientWire
    #: What the request that holds it was let in as.
    ticket: Ticket

    def __init__(self, upstream: Owner) -> None:
        self.upstream = upstream
        self.stream: Stream | None = None
        self.leased_at = 0.0
        self.idle_until = 0.0
        #: The peer has hung up, so no further request may be sent.
        self.dead = False

    def __repr__(self) -> str:
        return f"<UpstreamConnection {self.upstream.name} {self.stream!r}>"

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
