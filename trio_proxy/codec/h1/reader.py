"""The half of an HTTP/1.1 connection that both roles share: heads found, bodies counted or decoded.

See `trio_proxy.codec.h1.wire` for who does what.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from trio_proxy.codec.h1.chunks import ChunkGuard
from trio_proxy.codec.h1.machine import h11
from trio_proxy.codec.h1.requests import HeadLimits
from trio_proxy.http.errors import ProtocolError, Reason
from trio_proxy.http.messages import NO_BODY, Body, Chunk, Fields, Framing

#: What h11 may hold of an incomplete event. All is bounded before it is fed; this only has to lie
#: above the largest trailer section that can be configured.
MAX_H11_BUFFER = 2 * 1024 * 1024

#: The end of a message without trailers; events are immutable.
PLAIN_END = h11.EndOfMessage()


class Wire:
    """The half that reads: heads, bodies, and what is left over behind them."""

    def __init__(self, role: type[h11.CLIENT] | type[h11.SERVER], limits: HeadLimits) -> None:
        self._limits = limits
        self._h11 = h11.Connection(role, MAX_H11_BUFFER)
        self._buffer = b""
        self._searched = 0
        self._guard: ChunkGuard | None = None
        #: Bytes of a body of known length that have not been read yet.
        self.remaining = 0
        self.body = NO_BODY
        self.body_complete = True
        self.trailers: Fields = ()
        self._sends_chunked = False

    def feed(self, data: bytes) -> None:
        """Take bytes that were read from the peer."""
        self._buffer = self._buffer + data if self._buffer else data

    @property
    def leftover(self) -> bytes:
        """Bytes that were read and belong to nothing read so far."""
        return self._buffer

    def take_leftover(self) -> bytes:
        """Hand over the leftover, as when the connection becomes a tunnel."""
        data, self._buffer = self._buffer, b""
        return data

    def _next_head(self) -> bytes | None:
        """The bytes of the next head with its empty line, or None until it is complete."""
        end = self._buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            return None
        head, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
        self._searched = 0
        return head

    def _searched_before(self) -> int:
        """How much of the buffer earlier calls have looked at; all of it is from now on."""
        before, self._searched = self._searched, len(self._buffer)
        return before

    def _expect_body(self, body: Body) -> None:
        if body is self.body is NO_BODY:
            return  # as it is
        self.body = body
        self.body_complete = body.is_empty
        self.remaining = body.length
        self.trailers = ()
        self._guard = None
        if body.framing is Framing.CHUNKED:
            self._guard = ChunkGuard(self._limits.head_bytes, self._limits.fields)

    def take_body(self) -> bytes:
        """The decoded body bytes that have been fed, possibly none; sets `body_complete`.

        Raises ProtocolError for broken chunked framing.
        """
        if self.body_complete or not self._buffer:
            return b""
        if self.body.framing is Framing.CHUNKED:
            return self._take_chunked()
        if self.body.framing is Framing.CLOSE:
            return self.take_leftover()
        data = self._buffer[: self.remaining]
        self._buffer = self._buffer[len(data) :]
        self.count_bypassed(len(data))
        return data

    @property
    def has_more_body(self) -> bool:
        """Whether another `take_body` has something to return without another read."""
        waiting = bool(self._buffer) and not self.body_complete
        return waiting and self._guard is not None and self._guard.paused

    def _take_chunked(self) -> bytes:
        assert self._guard is not None
        size = self._guard.scan(self._buffer)
        if size == 0:
            return b""  # to h11 an empty piece would be the end of the connection
        self._h11.receive_data(self._buffer[:size])
        self._buffer = self._buffer[size:]
        pieces: list[Any] = []  # h11 says bytes, and gives bytearrays
        while True:
            event = self._next_event()
            if isinstance(event, h11.Data):
                pieces.append(cast("Any", event).data)
            elif isinstance(event, h11.EndOfMessage):
                self.trailers = cast("Fields", event.headers.raw_items())
                self.body_complete = True
                break
            else:
                break
        return b"".join(pieces)

    def count_bypassed(self, size: int) -> None:
        """Note that ``size`` bytes of a body of known length went from socket to socket."""
        self.remaining -= size
        if self.remaining == 0:
            self.body_complete = True

    def feed_eof(self) -> None:
        """Note that the peer has ended its side.

        Raises ProtocolError if that cuts off a body.
        """
        if self.body_complete:
            return
        if self.body.framing is not Framing.CLOSE:
            raise ProtocolError(Reason.BODY_TRUNCATED, "connection ended inside the body")
        self.body_complete = True

    def _next_event(self) -> object:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as exc:
            raise ProtocolError(Reason.MALFORMED_REQUEST, str(exc)) from exc

    def encode_data(self, data: Chunk) -> Sequence[Chunk]:
        """What to send for a piece of body: the same object, in chunk framing if needed."""
        event: Any = h11.Data(data=data)  # type: ignore[arg-type] # it takes any sized object
        return cast("Sequence[Chunk]", self._h11.send_with_data_passthrough(event))

    def encode_end(self, trailers: Fields = ()) -> bytes:
        """What to send at the end of a message; trailers leave only with chunked framing."""
        if trailers and self._sends_chunked:
            return self._h11.send(h11.EndOfMessage(headers=list(trailers))) or b""
        return self._h11.send(PLAIN_END) or b""
