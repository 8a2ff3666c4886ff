"""One HTTP/1.1 connection to an upstream: a stream, and the state machine of its client side."""

from __future__ import annotations

import math

from trio_proxy.codec.h1.requests import HeadLimits
from trio_proxy.codec.h1.wire import ClientWire
from trio_proxy.exchange.streams import Stream
from trio_proxy.upstream.session import Owner


class UpstreamSession:
    """`Session` with one slot. It is also the borrower of its limiter token, dialled or not."""

    __slots__ = ("_is_leased", "idle_until", "is_dead", "stream", "upstream", "wire")

    #: Made with the stream, and as old as it.
    wire: ClientWire

    def __init__(self, upstream: Owner) -> None:
        self.upstream = upstream
        self.stream: Stream | None = None
        self.idle_until = math.inf
        #: The peer has hung up, so no further request may be sent.
        self.is_dead = False
        self._is_leased = False

    def __repr__(self) -> str:
        return f"<UpstreamSession {self.upstream.name} {self.stream!r}>"

    @property
    def is_closed(self) -> bool:
        return self.is_dead or self.stream is None

    @property
    def is_available(self) -> bool:
        stream = self.stream
        if self._is_leased or stream is None:
            return False
        # Bytes nobody asked for poison the connection, and an end or error kills it.
        return not stream.is_readable()

    @property
    def is_idle(self) -> bool:
        return not self._is_leased

    def has_expired(self, now: float) -> bool:
        return now >= self.idle_until

    def take_slot(self) -> None:
        self._is_leased = True

    def free_slot(self) -> None:
        self._is_leased = False

    def opened(self, stream: Stream) -> None:
        """A fresh stream was dialled for it."""
        self.stream = stream
        self.is_dead = False
        self.wire = ClientWire(HeadLimits())
        stream.on_hangup = self._on_hangup

    def close(self) -> None:
        if self.stream is not None:
            self.stream.close()
            self.stream = None

    def _on_hangup(self, reset: bool) -> None:
        self.is_dead = True
        self.upstream.drop_if_idle(self)
