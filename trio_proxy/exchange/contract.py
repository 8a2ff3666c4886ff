"""What handlers, middlewares and sinks are to each other: the public contract.

A handler pushes: it reads the request's body from ``request.content``, and pushes interim heads, a
final head, body and end into the `Sink`. It returns nothing that owns a connection, so deadlines
and slots nest lexically in it. A middleware does something before, after or instead of what comes
next.

Both run in the task of the exchange, within its total budget: one that waits for ever is cancelled
and told as 504. What they raise costs that exchange, and nobody else anything: `ProxyError` is
answered by its row of the status table, any other exception is logged and answered with 500, and so
is one that returns without a whole answer. Once a head has left, the connection is cut instead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import Stream
from trio_proxy.http.messages import Fields, Request, ResponseHead


class Sink(Protocol):
    """Where the response goes. The session makes it, and middlewares may wrap it.

    Methods that wait raise `ProxyError` when the client has left.
    """

    async def inform(self, head: ResponseHead) -> None:
        """Send a 1xx response at once (RFC 9110 §15.2); not to a client that speaks HTTP/1.0."""
        ...

    def start(self, head: ResponseHead) -> None:
        """Begin the final response; ``head.fields`` are end-to-end fields without framing.

        The framing follows ``head.declared_length``: exactly so many bytes have to come, or any
        number if it is None. May come again, with another head, as long as nothing of the first has
        been flushed; raises RuntimeError later.
        """
        ...

    def write(self, data: bytes) -> None:
        """Add a piece of body to what the next `flush` sends. Follow with `flush` or `end`.

        A response to HEAD, a 204 and a 304 have no body.
        """
        ...

    async def send_through(self, view: memoryview) -> None:
        """Send a piece of body from a borrowed buffer, which others use after the next await."""
        ...

    async def flush(self) -> None:
        """Send all that was started and written; waits for as long as the client takes nothing."""
        ...

    async def end(self, trailers: Fields = ()) -> None:
        """End the response and flush it."""
        ...

    async def switch(self, head: ResponseHead) -> tuple[Stream, bytes]:
        """Send a 101 and hand over the client's stream with the bytes already read from it."""
        ...


class SinkFilter:
    """A sink that passes all seven methods on to another: override those that are to change.

    Who changes heads overrides `start`, and `inform` and `switch` if it is about those, too. A body
    goes through either `write` or `send_through`, so whoever changes it overrides both, and calls
    ``head.forget_length()`` in `start`: its length is another then. What is held back has to be
    written in `end`.

    An answer that the proxy makes itself, because what comes next has failed, does not come through
    here.
    """

    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.sink!r}>"

    async def inform(self, head: ResponseHead) -> None:
        await self.sink.inform(head)

    def start(self, head: ResponseHead) -> None:
        self.sink.start(head)

    def write(self, data: bytes) -> None:
        self.sink.write(data)

    async def send_through(self, view: memoryview) -> None:
        await self.sink.send_through(view)

    async def flush(self) -> None:
        await self.sink.flush()

    async def end(self, trailers: Fields = ()) -> None:
        await self.sink.end(trailers)

    async def switch(self, head: ResponseHead) -> tuple[Stream, bytes]:
        return await self.sink.switch(head)


class Handler(Protocol):
    """Answers one request."""

    async def handle(self, exchange: Exchange, request: Request, sink: Sink) -> None:
        """Push one final response into the sink. Raises `ProxyError` for a failure to be told."""
        ...


#: What a middleware hands a request on to: `Handler.handle`, of whatever comes next.
Next: TypeAlias = Callable[[Exchange, Request, Sink], Awaitable[None]]


class Middleware(Protocol):
    """Does something before, after or instead of what comes next."""

    async def handle(self, exchange: Exchange, request: Request, sink: Sink, next: Next) -> None:
        """Call ``await next(exchange, request, sink)`` once, or answer, or raise `ProxyError`.

        The request and the sink that are handed on may be others: a changed request, a `SinkFilter`
        around the sink.
        """
        ...
