"""What a handler is given and what it must do: the contract between `front` and `handlers`.

A handler pushes: it reads the request's body from `RequestBody`, and pushes an interim, a final
head, body and end into the `Sink`. It returns nothing that owns a connection, so deadlines and
leases nest lexically in it.
"""

from __future__ import annotations

from typing import Protocol

import trio

from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import PIECE_BYTES, Stream
from trio_proxy.exchange.watchdog import Watchdog
from trio_proxy.http.messages import Chunk, Field, Fields, Request, ResponseHead
from trio_proxy.policy.forwarding import Origin


class RequestBody(Protocol):
    """The body of the request, read at the handler's pace: what is not read stays with the client.

    Its methods raise `ProxyError` if the client breaks framing, leaves, or sends too much.
    """

    @property
    def complete(self) -> bool:
        """Whether the whole body has been taken."""
        ...

    @property
    def trailers(self) -> Fields:
        """Trailer fields, once complete."""
        ...

    def take_nowait(self) -> bytes:
        """What has been read off the connection already, decoded; possibly nothing."""
        ...

    def receive_nowait(self, most: int) -> Chunk | None:
        """The next piece if it is there, None if it is not; otherwise like `receive`."""
        ...

    async def receive(self, watchdog: Watchdog, wait: str, most: int = PIECE_BYTES) -> Chunk:
        """The next piece, within the budget named ``wait``; empty if none came before the end.

        ``most`` bounds what is read of a body of known length, in bytes. A memoryview is of a
        shared buffer and only valid until the next await.
        """
        ...


class Sink(Protocol):
    """Where the response goes, and what this exchange may use.

    Methods that wait raise `ProxyError` when the client has left.
    """

    #: The scope of the exchange's main task and its budgets.
    watchdog: Watchdog
    #: The connection's nursery, for a second direction of the same exchange. What runs there must
    #: be finished or cancelled when the handler returns; `hold_until` has the connection wait.
    nursery: trio.Nursery
    #: Fields that are added to the final head, whoever makes it.
    extra_fields: list[Field]

    @property
    def body(self) -> RequestBody:
        """The request's body."""
        ...

    @property
    def relay_buffer(self) -> memoryview:
        """A scratch buffer, as large as the pieces that the client takes.

        Anybody may overwrite it at the next await.
        """
        ...

    async def inform(self, head: ResponseHead) -> None:
        """Send a 1xx response at once (RFC 9110 §15.2); not to a client that speaks HTTP/1.0."""
        ...

    def start(self, head: ResponseHead) -> None:
        """Begin the final response; ``head.fields`` are end-to-end fields without framing."""
        ...

    def write(self, data: bytes) -> None:
        """Add a piece of body to what the next `flush` sends. Follow with `flush` or `end`."""
        ...

    async def flush(self) -> None:
        """Send all that was started and written; waits for as long as the client takes nothing."""
        ...

    async def send_through(self, view: memoryview) -> None:
        """Send a piece of body of known length from a borrowed buffer."""
        ...

    async def end(self, trailers: Fields = ()) -> None:
        """End the response and flush it."""
        ...

    async def switch_protocols(self, head: ResponseHead) -> tuple[Stream, bytes]:
        """Send a 101 and hand over the client's stream with the bytes already read from it."""
        ...

    def hold_until(self, done: trio.Event) -> None:
        """Have the connection wait for ``done`` before it goes on after this exchange."""
        ...


class Handler(Protocol):
    """Answers one request."""

    async def handle(
        self, exchange: Exchange, request: Request, origin: Origin, sink: Sink
    ) -> None:
        """Push one final response into the sink. Raises `ProxyError` for a failure to be told."""
        ...
