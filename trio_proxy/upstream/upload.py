"""The request body on its way to the upstream, while the answer may already come back."""

from __future__ import annotations

from typing import Protocol

import trio

from trio_proxy.codec.h1.wire import ClientWire
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import Stream, note_piece
from trio_proxy.exchange.transfer import send_all, send_borrowed, turns_for
from trio_proxy.exchange.turns import Turns
from trio_proxy.exchange.waits import Wait
from trio_proxy.http.errors import ProxyError
from trio_proxy.http.messages import Content


async def upload_at_once(content: Content, wire: ClientWire, stream: Stream, turns: Turns) -> bytes:
    """Move what is there of a body of known length; what the upstream has not taken of it.

    A body that is here already needs no `Upload`, whose task costs more than to move a piece. An
    answer that comes before the end of the body is left to whoever reads beside an `Upload`.
    Raises OSError if the upstream takes no more, ProxyError for a fault of the client.
    """
    while not content.complete:
        piece = content.receive_nowait(stream.piece_bytes)
        if piece is None:
            break
        wire.encode_data(piece)  # of known length, so h11 counts it and adds nothing
        size = len(piece)
        sent = stream.send_nowait(piece)
        note_piece(stream, size, sent)
        if sent < size:
            return bytes(piece[sent:])
        if turns.take(2 * turns_for(size)) and not content.complete:  # a read and a write
            await turns.pass_on()
            if stream.is_readable():
                break
    return b""


class Sender(Protocol):
    """The try that the upload is part of."""

    @property
    def exchange(self) -> Exchange: ...

    @property
    def content(self) -> Content: ...

    def encode_request_end(self) -> bytes: ...

    def upload_changed(self) -> None: ...


class Upload:
    """One task that moves the body, started only when there is something left to move.

    It sends ``unsent``, and then the rest of the body unless that ``ended`` with it. It never
    raises for what peers do: a fault of the client ends the exchange, an upstream that takes no
    more is left to the try, which may find an answer waiting.
    """

    __slots__ = (
        "_attempt",
        "_ended",
        "_scope",
        "_stream",
        "_unsent",
        "_wire",
        "is_complete",
        "is_done",
    )

    def __init__(
        self, attempt: Sender, stream: Stream, wire: ClientWire, unsent: bytes, ended: bool
    ) -> None:
        self._attempt: Sender | None = attempt
        self._stream = stream
        self._wire = wire
        self._unsent = unsent
        self._ended = ended
        self._scope = trio.CancelScope()
        #: Nothing more will be sent, so that it is the upstream's turn.
        self.is_done = False
        #: The whole body was handed over.
        self.is_complete = False

    async def run(self) -> None:
        """Send everything."""
        attempt = self._attempt
        assert attempt is not None
        try:
            with self._scope:
                await self._send(attempt)
                self.is_complete = True
            self._end(attempt)
        except ProxyError as exc:
            exc.__traceback__ = exc.__cause__ = None  # their frames hold this upload
            attempt.exchange.abort(exc)
        except (OSError, trio.ClosedResourceError):
            # The upstream takes no more; whether it has answered is seen when reading.
            self._end(attempt)
        finally:
            self._attempt = None  # what both know of each other is left to no collector

    def _end(self, attempt: Sender) -> None:
        self.is_done = True
        attempt.upload_changed()

    async def _send(self, attempt: Sender) -> None:
        exchange, content, stream = attempt.exchange, attempt.content, self._stream
        if self._unsent:
            await send_all(stream, self._unsent, exchange, Wait.WRITE)
        if self._ended:
            return
        deadlines = exchange.deadlines
        while not content.complete:
            began, was_held_back = deadlines.timers.now(), content.awaits_continue
            piece = await content.receive(stream.piece_bytes)
            # That long the client kept everybody waiting for its body.
            deadlines.try_at += deadlines.timers.now() - began
            if not piece:
                continue
            if was_held_back:
                attempt.upload_changed()
            parts = self._wire.encode_data(piece)
            if len(parts) == 1 and isinstance(piece, memoryview):
                await send_borrowed(stream, piece, exchange, Wait.WRITE)
            else:
                await send_all(stream, b"".join(parts), exchange, Wait.WRITE)
        if end := attempt.encode_request_end():  # an empty send would take the socket's error away
            await send_all(stream, end, exchange, Wait.WRITE)

    def stop(self) -> None:
        """Cancel the rest."""
        self._scope.cancel(reason="the try is over")
