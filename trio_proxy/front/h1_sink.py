"""The response on its way to an HTTP/1.1 client.

What is started and written is held until `flush`, so that a head and the body that came with it
leave in one send; a handler flushes before each wait, so nothing is held back that could go.
"""

from __future__ import annotations

import trio

from trio_proxy.codec.h1.wire import ServerWire
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import Stream
from trio_proxy.exchange.transfer import (
    LARGE_BYTES,
    let_others_run,
    send_borrowed,
    send_rest,
    turns_for,
)
from trio_proxy.exchange.waits import Wait
from trio_proxy.front.h1_content import H1Content
from trio_proxy.front.service import Service
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.messages import Chunk, Fields, Request, ResponseHead


class H1Sink:
    """`Sink` on one connection, for one exchange.

    ``request`` is set when its head was understood.
    """

    __slots__ = (
        "_exchange",
        "_pending",
        "_sent",
        "_service",
        "_started",
        "_stream",
        "_wire",
        "content",
        "ends_by_close",
        "keep_alive",
        "request",
        "switched",
    )

    def __init__(
        self, service: Service, stream: Stream, wire: ServerWire, exchange: Exchange
    ) -> None:
        self.request: Request | None = None
        #: What is read of the request's body, if it has one.
        self.content: H1Content | None = None
        #: The client was told that it may send another request.
        self.keep_alive = False
        #: The stream carries another protocol now.
        self.switched = False
        #: The client takes the end of the connection for the end of the body (HTTP/1.0).
        self.ends_by_close = False
        self._service = service
        self._stream = stream
        self._wire = wire
        self._exchange = exchange
        self._pending: list[Chunk] = []
        self._started = False
        #: How much of what was sent last the transport has taken.
        self._sent = 0

    async def inform(self, head: ResponseHead) -> None:
        data = self._wire.encode_interim(head)
        # If this is cancelled half-way, nothing else may follow what has gone out.
        self._exchange.head_sent = True
        await self._send(data)
        if self._exchange.turns.take():
            await self._exchange.turns.pass_on()
        self._exchange.head_sent = False
        if head.status == 100 and self.content is not None:
            self.content.continue_sent()

    def start(self, head: ResponseHead) -> None:
        wire = self._wire
        if self._started or self.request is None:
            if self._exchange.head_sent:
                # Whoever answers twice must not put an answer there that no request belongs to.
                raise RuntimeError("a response has begun to leave, and cannot be started anew")
            self._pending.clear()
            wire.start_response_anew()
        # An answer that comes before the request has ended may be the last that the upstream wants
        # of it. What will be closed then has to be announced now (RFC 9112 §9.6).
        self.keep_alive = (
            self.request is not None
            and self.request.keep_alive
            and wire.body_complete
            and not self._service.draining
            and wire.can_keep_alive(head)
        )
        self.ends_by_close = not wire.can_keep_alive(head)
        self._started = True
        self._exchange.status = head.status
        self._pending.append(wire.encode_head(head, keep_alive=self.keep_alive))

    def write(self, data: bytes) -> None:
        if not self._started:
            raise RuntimeError("a body comes after the head: start has not been called")
        self._pending.extend(self._wire.encode_data(data))
        self._exchange.body_bytes_sent += len(data)

    async def flush(self) -> None:
        if self._pending:
            await self._send(self._take_pending())
            if self._exchange.turns.take():
                await self._exchange.turns.pass_on()

    def _take_pending(self) -> Chunk:
        pending = self._pending
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        pending.clear()
        self._exchange.head_sent = self._started
        return data

    async def _send(self, data: Chunk) -> None:
        """Send a head, or what is large."""
        exchange, size = self._exchange, len(data)
        began = exchange.deadlines.timers.now()
        if not self._send_at_once(data):
            await self._send_rest(data)
        elif size >= LARGE_BYTES:
            data = b""  # nothing holds it while others have their turn
            await let_others_run(began, size, exchange)

    def _send_at_once(self, data: Chunk) -> bool:
        """Whether the transport has taken all of it; what it has taken is noted otherwise."""
        self._exchange.bytes_sent += len(data)
        try:
            self._sent = self._stream.send_nowait(data)
        except OSError as exc:
            raise self._gone(exc) from exc
        return self._sent == len(data)

    async def _send_rest(self, data: Chunk) -> None:
        try:
            await send_rest(self._stream, data, self._sent, self._exchange, Wait.CLIENT_WRITE)
        except (OSError, trio.ClosedResourceError) as exc:
            raise self._gone(exc) from exc

    async def send_through(self, view: memoryview) -> None:
        await self.flush()
        exchange = self._exchange
        pieces = self._wire.encode_data(view)  # of known length, so h11 counts it and adds nothing
        exchange.body_bytes_sent += len(view)
        if len(pieces) > 1:  # unless a filter has taken the length away
            await self._send(b"".join(pieces))
            return
        exchange.bytes_sent += len(view)
        try:
            await send_borrowed(self._stream, view, exchange, Wait.CLIENT_WRITE)
        except (OSError, trio.ClosedResourceError) as exc:
            raise self._gone(exc) from exc
        exchange.piece_bytes = self._stream.piece_bytes

    async def end(self, trailers: Fields = ()) -> None:
        if self.switched:
            return
        if not self._started:
            raise RuntimeError("there is nothing to end: start has not been called")
        if end := self._wire.encode_end(trailers):
            self._pending.append(end)
        if self._pending:
            data = self._take_pending()
            if not self._send_at_once(data):
                await self._send_rest(data)
            # The session passes on, when all of this is done.
            self._exchange.turns.take(turns_for(len(data)))
        self._exchange.is_complete = True

    async def switch(self, head: ResponseHead) -> tuple[Stream, bytes]:
        exchange = self._exchange
        exchange.status = head.status
        exchange.head_sent = True
        self.switched = True
        await self._send(self._wire.encode_interim(head))
        exchange.is_complete = True
        exchange.deadlines.stop_total()
        leftover = self._wire.take_leftover()
        exchange.bytes_received -= len(leftover)  # the tunnel counts what it carries
        return self._stream, leftover

    def _gone(self, exc: Exception) -> ProxyError:
        phase = self._exchange.phase
        return ProxyError(Source.CLIENT, phase, Reason.CLIENT_GONE, detail=str(exc))
