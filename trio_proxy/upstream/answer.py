"""Reading an upstream's answer and passing its body on, piece by piece.

A body of known length goes from socket to socket through the shared buffer; any other is decoded
and framed anew. Nothing is read while the client takes nothing: a slow reader stops the upstream.
"""

from __future__ import annotations

import trio

from trio_proxy.codec.h1.wire import ClientWire
from trio_proxy.exchange.contract import Sink
from trio_proxy.exchange.deadlines import WaitBlock
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import READ_SIZE, Stream
from trio_proxy.exchange.waits import Wait
from trio_proxy.http.errors import ProtocolError, ProxyError, Reason, Source
from trio_proxy.http.messages import Framing
from trio_proxy.http.phases import Phase


class UpstreamReader:
    """Waits for an upstream's bytes under the read deadline.

    That deadline starts when the request has been sent, as nginx's does: while the body is on its
    way (``is_suspended``) it is not the upstream's turn. Methods raise OSError or
    `trio.ClosedResourceError` if the connection fails.
    """

    __slots__ = ("_block", "_exchange", "is_suspended")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._block: WaitBlock | None = None
        self.is_suspended = False

    def turn_changed(self, *, is_suspended: bool) -> None:
        """The upload has begun or ended: start or stop the deadline of a wait under way."""
        self.is_suspended = is_suspended
        if self._block is not None:
            if is_suspended:
                self._block.suspend()
            else:
                self._block.begin()

    async def take_turn(self) -> None:
        """Count one more operation, and let the others run if it is time to."""
        turns = self._exchange.turns
        if turns.take():
            await turns.pass_on()

    async def _wait(self, stream: Stream) -> None:
        with self._exchange.deadlines.wait(Wait.READ) as block:
            if self.is_suspended:
                block.suspend()
            self._block = block
            try:
                await stream.wait_readable()
            finally:
                self._block = None
            if block.is_late:
                await block.too_late()

    async def receive(self, stream: Stream) -> bytes:
        """The next bytes, ``b""`` at the end."""
        await self.take_turn()
        data = stream.receive_nowait(READ_SIZE)
        return await self.receive_later(stream) if data is None else data

    async def receive_later(self, stream: Stream) -> bytes:
        """`receive` for when nothing can have come yet: saves the call that would say so."""
        data = None
        while data is None:
            await self._wait(stream)
            data = stream.receive_nowait(READ_SIZE)
        return data

    async def receive_into(self, stream: Stream, most: int) -> memoryview:
        """Up to ``most`` bytes, in a buffer that others use at the next await; none at the end."""
        await self.take_turn()  # first, as others use the buffer meanwhile
        exchange = self._exchange
        buffer = exchange.scratch[: min(most, exchange.piece_bytes)]
        while (size := stream.receive_into_nowait(buffer)) is None:
            await self._wait(stream)
        return buffer[:size]


def take_whole_body(wire: ClientWire, sink: Sink) -> bool:
    """Push a body of known length into the sink if it has come with its head, as most do."""
    if wire.body_complete:
        return True
    if wire.body.framing is not Framing.LENGTH or len(wire.leftover) < wire.remaining:
        return False
    sink.write(wire.take_body())
    return True


async def relay_body(wire: ClientWire, stream: Stream, sink: Sink, reader: UpstreamReader) -> None:
    """Push the body behind the head that was read into the sink; its end is left to the caller.

    Raises ProxyError if the upstream cuts it off or breaks its framing.
    """
    try:
        if wire.body.framing is Framing.LENGTH:
            await _relay_known_length(wire, stream, sink, reader)
        else:
            await _relay_decoded(wire, stream, sink, reader)
    except (OSError, trio.ClosedResourceError) as exc:
        raise truncated(str(exc)) from exc


async def _relay_decoded(
    wire: ClientWire, stream: Stream, sink: Sink, reader: UpstreamReader
) -> None:
    """A chunked body, or one that ends with the connection, or none."""
    while True:
        try:
            data = wire.take_body()
        except ProtocolError as exc:
            raise malformed(exc, Phase.STREAM) from exc
        if data:
            sink.write(data)
        if wire.body_complete:
            return
        await sink.flush()
        if wire.has_more_body:
            await reader.take_turn()  # where nothing is read, and a sink may have sent nothing
            continue
        data = await reader.receive(stream)
        if data:
            wire.feed(data)
        else:
            _feed_eof(wire)


def _feed_eof(wire: ClientWire) -> None:
    try:
        wire.feed_eof()
    except ProtocolError as exc:
        raise truncated(exc.detail) from exc


async def _relay_known_length(
    wire: ClientWire, stream: Stream, sink: Sink, reader: UpstreamReader
) -> None:
    """What came with the head first; the rest goes from socket to socket."""
    if wire.leftover:
        sink.write(wire.take_body())  # nothing here holds it while the client may take its time
    if wire.body_complete:
        return
    await sink.flush()
    while not wire.body_complete:
        piece = await reader.receive_into(stream, wire.remaining)
        if not piece:
            raise truncated(f"{wire.remaining} bytes of the body are missing")
        wire.count_bypassed(len(piece))
        await sink.send_through(piece)


def discard_body(wire: ClientWire) -> bool:
    """Throw away what has come of a body that nobody wants; whether that was all of it."""
    try:
        wire.take_body()
    except ProtocolError:
        return False
    return wire.body_complete and not wire.leftover


def truncated(detail: str) -> ProxyError:
    """The upstream has cut off its answer."""
    return ProxyError(Source.UPSTREAM, Phase.STREAM, Reason.RESPONSE_TRUNCATED, detail=detail)


def malformed(exc: ProtocolError, phase: Phase) -> ProxyError:
    """The upstream has said something that is not HTTP, or not what was asked for."""
    upgrade = exc.reason is Reason.UPGRADE_FAILED
    reason = exc.reason if upgrade else Reason.RESPONSE_MALFORMED
    return ProxyError(Source.UPSTREAM, phase, reason, detail=exc.detail)
