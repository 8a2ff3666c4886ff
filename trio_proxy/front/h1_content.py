"""The body of a client's request, read at the pace of whoever takes it."""

from __future__ import annotations

import math

import trio

from trio_proxy.codec.h1.wire import ServerWire
from trio_proxy.exchange.deadlines import WaitBlock
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import READ_SIZE, Stream
from trio_proxy.exchange.waits import Wait
from trio_proxy.http.errors import ProtocolError, ProxyError, Reason, Source
from trio_proxy.http.messages import CONTENT_PIECE_BYTES, Chunk, Fields, Framing


class H1Content:
    """`Content` on an HTTP/1.1 connection.

    ``max_bytes`` bounds a body of unknown length as it is read; 0 stands for no limit.
    """

    __slots__ = ("_block", "_exchange", "_room", "_stream", "_wire", "awaits_continue")

    def __init__(
        self, wire: ServerWire, stream: Stream, exchange: Exchange, max_bytes: int
    ) -> None:
        self._wire = wire
        self._stream = stream
        self._exchange = exchange
        self._room = max_bytes or math.inf
        self._block: WaitBlock | None = None
        self.awaits_continue = False

    @property
    def complete(self) -> bool:
        return self._wire.body_complete

    @property
    def trailers(self) -> Fields:
        return self._wire.trailers

    def continue_sent(self) -> None:
        """The client has been told to go on, so from now on it can be late."""
        self.awaits_continue = False
        if self._block is not None:
            self._block.begin()

    def take_nowait(self) -> bytes:
        try:
            data = self._wire.take_body()
        except ProtocolError as exc:
            raise ProxyError(
                Source.CLIENT, self._exchange.phase, exc.reason, detail=exc.detail
            ) from exc
        self._count(len(data))
        return data

    def receive_nowait(self, most: int) -> Chunk | None:
        wire = self._wire
        if wire.leftover and (data := self.take_nowait()):
            return data
        if wire.body_complete:
            return b""
        try:
            if wire.body.framing is Framing.LENGTH:
                return self._receive_borrowed(most)
            received = self._stream.receive_nowait(READ_SIZE)
        except OSError as exc:
            raise self._gone(str(exc)) from exc
        if received is None:
            return None
        if not received:
            raise self._gone("the body was not complete")
        self._exchange.bytes_received += len(received)
        wire.feed(received)
        return self.take_nowait()

    async def receive(self, most: int = CONTENT_PIECE_BYTES) -> Chunk:
        turns = self._exchange.turns
        if turns.take():
            await turns.pass_on()  # first, so that a cancellation loses nothing
        while (piece := self.receive_nowait(most)) is None:
            try:
                await self._wait_readable()
            except (OSError, trio.ClosedResourceError) as exc:
                raise self._gone(str(exc)) from exc
        return piece

    async def _wait_readable(self) -> None:
        with self._exchange.deadlines.wait(Wait.BODY) as block:
            if self.awaits_continue:
                block.suspend()  # while the client waits for a 100 it is not late
            self._block = block
            try:
                await self._stream.wait_readable()
            finally:
                self._block = None
            if block.is_late:
                await block.too_late()

    def _receive_borrowed(self, most: int) -> memoryview | None:
        """Bytes of a body of known length, past the wire's buffer. Raises OSError."""
        buffer = self._exchange.scratch[: min(most, self._wire.remaining)]
        size = self._stream.receive_into_nowait(buffer)
        if size is None:
            return None
        if not size:
            raise self._gone(f"{self._wire.remaining} bytes of the body are missing")
        self._wire.count_bypassed(size)
        self._exchange.bytes_received += size
        self._count(size)
        return buffer[:size]

    def _count(self, size: int) -> None:
        if size:
            self.awaits_continue = False
            self._room -= size
        if self._room < 0:
            raise ProxyError(Source.CLIENT, self._exchange.phase, Reason.BODY_TOO_LARGE)
        if self._wire.body_complete and math.isinf(self._exchange.received_at):
            self._exchange.received_at = trio.current_time()

    def _gone(self, detail: str) -> ProxyError:
        return ProxyError(Source.CLIENT, self._exchange.phase, Reason.CLIENT_GONE, detail=detail)

    def can_still_complete(self) -> bool:
        """Whether the rest of the body lies unread in the transport, when no more can come.

        Of a chunked body only reading can tell, so it gets the benefit of the doubt while there is
        anything to read.
        """
        unread = self._stream.unread_bytes()
        if self._wire.body.framing is Framing.LENGTH:
            return unread >= self._wire.remaining - len(self._wire.leftover)
        return unread > 0 or bool(self._wire.leftover)
