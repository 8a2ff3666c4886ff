"""The body of a client's request, read at the pace of whoever takes it."""

from __future__ import annotations

import math

import trio

from trio_proxy.codec.h1.wire import ServerWire
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import PIECE_BYTES, READ_SIZE, Stream
from trio_proxy.exchange.watchdog import Watchdog
from trio_proxy.http.errors import ProtocolError, ProxyError, Reason, Source
from trio_proxy.http.messages import Chunk, Fields, Framing


class ClientBody:
    """`RequestBody` on an HTTP/1.1 connection.

    ``max_bytes`` bounds a body of unknown length as it is read; 0 stands for no limit. ``now`` is
    when the head was complete.
    """

    __slots__ = ("_buffer", "_exchange", "_room", "_stream", "_wire", "completed_at")

    def __init__(
        self,
        wire: ServerWire,
        stream: Stream,
        exchange: Exchange,
        relay_buffer: memoryview,
        max_bytes: int,
        now: float,
    ) -> None:
        self._wire = wire
        self._stream = stream
        self._exchange = exchange
        self._buffer = relay_buffer
        self._room = max_bytes or math.inf
        #: When the last byte of the request was read; infinite before.
        self.completed_at = now if wire.body_complete else math.inf

    @property
    def complete(self) -> bool:
        return self._wire.body_complete

    @property
    def trailers(self) -> Fields:
        return self._wire.trailers

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

    async def receive(self, watchdog: Watchdog, wait: str, most: int = PIECE_BYTES) -> Chunk:
        if watchdog.is_winded():
            await watchdog.breathe(wait)  # first, so that a cancellation loses nothing
        while (piece := self.receive_nowait(most)) is None:
            try:
                await watchdog.wait_readable(self._stream, wait)
            except (OSError, trio.ClosedResourceError) as exc:
                raise self._gone(str(exc)) from exc
        return piece

    def _receive_borrowed(self, most: int) -> memoryview | None:
        """Bytes of a body of known length, past the wire's buffer. Raises OSError."""
        buffer = self._buffer[: min(most, self._wire.remaining)]
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
        self._room -= size
        if self._room < 0:
            raise ProxyError(Source.CLIENT, self._exchange.phase, Reason.BODY_TOO_LARGE)
        if self._wire.body_complete and math.isinf(self.completed_at):
            self.completed_at = trio.current_time()

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
