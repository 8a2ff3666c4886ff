"""One end of a simulated connection.

It behaves as a TCP socket on Linux does, with two simplifications on the strict side: an RST
drops what was not read yet, and every read after it raises (Linux says so once).
"""

from __future__ import annotations

import errno
import math
import os
from typing import Literal, Protocol

import trio

from trio_proxy.exchange.streams import PIECE_BYTES, HangupCallback
from trio_proxy.testing.pipe import Link, Pipe

#: ``"send"``: what this end sends; ``"receive"``: what it is sent.
Direction = Literal["send", "receive"]


class Hub(Protocol):
    """What a stream tells its network."""

    def schedule(self, at: float, stream: SimStream) -> None:
        """Call `SimStream.report_hangups` at that time."""
        ...

    def forget(self, stream: SimStream) -> None:
        """This end was closed."""
        ...

    def hangup_failed(self, stream: SimStream) -> None:
        """Its `SimStream.on_hangup` has raised the exception that is being handled."""
        ...


class SimStream:
    """A `Stream` of a `SimNet`, with faults to inject.

    Operations but `is_readable` raise OSError(EBADF) after `close`, ConnectionResetError once a
    reset has arrived, and BrokenPipeError for a send after `send_eof` or, where a FIN came before,
    after a reset.
    """

    _other: SimStream

    #: The simulated network tells at once.
    hangup_lag = 0.0

    def __init__(self, local: str, peer: str, *, incoming: Pipe, outgoing: Pipe, hub: Hub) -> None:
        self.peer = peer
        self.piece_bytes = PIECE_BYTES
        self.local = local
        self.remote = peer
        self.closed = False
        self._in = incoming
        self._out = outgoing
        self._hub = hub
        #: Bytes sent to this end are answered with an RST.
        self._gone = False
        self._on_hangup: HangupCallback | None = None
        self._reported_eof = False
        self._reported_reset = False

    # Reading

    def receive_nowait(self, limit: int) -> bytes | None:
        if limit < 1:
            raise ValueError(f"expected a limit of at least 1 byte, got {limit}")
        self._check_open()
        return self._in.read(limit)

    def receive_into_nowait(self, buffer: memoryview) -> int | None:
        data = self.receive_nowait(len(buffer))
        if data is None:
            return None
        buffer[: len(data)] = data
        return len(data)

    async def wait_readable(self) -> None:
        def is_ready() -> bool:
            if self.closed:
                raise trio.ClosedResourceError("this stream was closed")
            return self._in.is_readable()

        await self._in.readable.wait(is_ready, self._in.due_at)

    def is_readable(self) -> bool:
        return self.closed or self._in.is_readable()

    def room_bytes(self) -> int:
        return 0 if self.closed else self._out.room

    def unread_bytes(self) -> int:
        self._check_open()
        return self._in.unread()

    # Writing

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        self._check_open()
        if self._out.finished:
            raise BrokenPipeError(errno.EPIPE, "sent after send_eof")
        if self._was_reset():
            if self._in.fin_at < math.inf:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        was_cut = self._out.is_cut()
        with memoryview(data) as view:
            count = self._out.send(view)
        if self._out.is_cut() and not was_cut:
            self._cut()
        self._other._answer_strays()
        return count

    async def wait_writable(self) -> None:
        def is_ready() -> bool:
            if self.closed:
                raise trio.ClosedResourceError("this stream was closed")
            return self._out.finished or self._was_reset() or self._out.room > 0

        await self._out.writable.wait(is_ready, self._in.reset_due_at)

    def send_eof(self) -> None:
        self._check_open()
        if not self._out.finished:
            if self._was_reset():
                raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
            self._out.finish()
            self._out.writable.wake()
            self._expect_hangup()
            self._other._expect_hangup()

    # The end

    def close(self) -> None:
        if not self.closed:
            if self._in.unread():
                self._send_reset()
            elif not self._was_reset():
                self._out.finish()
            self._leave()

    def abort(self) -> None:
        if not self.closed:
            self._send_reset()
            self._leave()

    def _send_reset(self) -> None:
        if not self._was_reset():
            self._out.reset(trio.current_time() + self._out.link.latency)

    def _leave(self) -> None:
        self.closed = self._gone = True
        self._on_hangup = None
        self._hub.forget(self)
        self._in.readable.wake()
        self._out.writable.wake()
        self._other._expect_hangup()
        self._answer_strays()

    def _answer_strays(self) -> None:
        """Send an RST for bytes that reach this end after it has gone.

        The bytes stay in the pipe, or else a sender could pour in bytes without end until then.
        """
        arrival = self._in.next_arrival()
        if self._gone and arrival < math.inf:
            answered_at = max(arrival, trio.current_time())
            # After a cut the bytes that were promised can still be read.
            self._out.reset(answered_at + self._out.link.latency, keep_data=self._out.is_cut())
            self._other._expect_hangup()

    # News of the peer

    @property
    def on_hangup(self) -> HangupCallback | None:
        """See `Stream.on_hangup`. Called by `SimNet.run`, also for what came before it was set."""
        return self._on_hangup

    @on_hangup.setter
    def on_hangup(self, callback: HangupCallback | None) -> None:
        self._on_hangup = None if self.closed else callback
        self._expect_hangup()

    def _expect_hangup(self) -> None:
        """The incoming pipe may have got an end: have it reported and noticed when it is due."""
        self._out.writable.wake()
        if self._on_hangup is not None:
            for at in (self._in.fin_at, self._in.reset_at):
                if at < math.inf:
                    self._hub.schedule(at, self)

    def report_hangups(self) -> None:
        """Tell `on_hangup` what has arrived and was not told yet."""
        eof = self._in.has_arrived(self._in.fin_at)
        if self._on_hangup is not None and eof and not self._reported_eof:
            self._reported_eof = True
            self._tell(self._on_hangup, False)
        if self._on_hangup is not None and self._was_reset() and not self._reported_reset:
            self._reported_reset = True
            self._tell(self._on_hangup, True)

    def _tell(self, callback: HangupCallback, reset: bool) -> None:
        try:
            callback(reset)
        except Exception:  # noqa: BLE001 - logged, with its traceback
            self._hub.hangup_failed(self)
            self.abort()

    # Faults

    def cut_after(self, count: int, *, reset: bool = False, direction: Direction = "send") -> None:
        """Cut the connection behind the next ``count`` bytes that are sent in one direction.

        Those bytes arrive and can be read; then the receiver sees the end of the stream, or a
        reset if ``reset``, and its own bytes find nobody. The sender sees a reset one latency
        after the last byte arrived, as if a box in between had gone.
        """
        sender = self if direction == "send" else self._other
        sender._out.limit(count, reset=reset)
        if count == 0:
            sender._cut()

    def _cut(self) -> None:
        at = self._out.cut()
        self._in.reset(at + self._in.link.latency)
        self._gone = True
        self._expect_hangup()
        self._other._expect_hangup()

    def stall(self, *, direction: Direction = "send") -> None:
        """Keep what is sent in one direction, FIN and RST too, in flight until `resume`."""
        (self._out if direction == "send" else self._in).stall()

    def resume(self, *, direction: Direction = "send") -> None:
        """Undo `stall`: what would have arrived meanwhile arrives now."""
        sender = self if direction == "send" else self._other
        sender._out.resume()
        sender._other._answer_strays()
        sender._other._expect_hangup()

    # Helpers

    def _check_open(self) -> None:
        if self.closed:
            raise OSError(errno.EBADF, "this stream was closed")

    def _was_reset(self) -> bool:
        return self._in.has_arrived(self._in.reset_at)

    def _state(self) -> str:
        if self.closed:
            return "closed"
        # No clock here: a repr is also printed when the event loop has ended.
        marks = {
            "reset": self._in.reset_at < math.inf,
            "eof sent": self._out.finished,
            "eof from peer": self._in.fin_at < math.inf,
            "stalled": self._in.stalled or self._out.stalled,
        }
        return ", ".join(name for name, holds in marks.items() if holds) or "open"

    def __repr__(self) -> str:
        return (
            f"<SimStream {self.local} -> {self.remote}: {self._state()}; "
            f"{self._in.size} bytes to receive, {self._out.size} sent and not read>"
        )


def connect_pair(
    link: Link, *, source: str, host: str, address: str, seed: str, hub: Hub
) -> tuple[SimStream, SimStream]:
    """Both ends of a new connection: the dialler's and the listener's."""
    up, down = Pipe(link, f"{seed}/up"), Pipe(link, f"{seed}/down")
    near = SimStream(source, host, incoming=down, outgoing=up, hub=hub)
    far = SimStream(address, source, incoming=up, outgoing=down, hub=hub)
    near.remote = address
    near._other, far._other = far, near
    return near, far
