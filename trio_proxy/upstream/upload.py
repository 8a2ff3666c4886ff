"""The request body on its way to the upstream, while the answer may already come back."""

from __future__ import annotations

from collections.abc import Callable

import trio

from trio_proxy.codec.h1.wire import ClientWire
from trio_proxy.exchange.contract import RequestBody
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import Stream, note_piece
from trio_proxy.exchange.transfer import send_all, send_borrowed, turns_for
from trio_proxy.exchange.watchdog import TURNS_WITHOUT_CHECKPOINT, Watchdog
from trio_proxy.http.errors import ProxyError


def _nothing_is_left() -> bytes:
    """In place of what an upload that has ended would send."""
    return b""


def _nothing_has_changed() -> None: ...


def upload_nowait(body: RequestBody, wire: ClientWire, stream: Stream) -> bytes:
    """Move what is there of a body of known length; what the upstream has not taken of it.

    A body that is here already needs no `Upload`, whose task costs more than to move a piece.
    Raises OSError if the upstream takes no more, ProxyError for a fault of the client.
    """
    turns = 0
    while turns < TURNS_WITHOUT_CHECKPOINT and not body.complete:
        piece = body.receive_nowait(stream.piece_bytes)
        if piece is None:
            break
        wire.encode_data(piece)  # of known length, so h11 counts it and adds nothing
        size = len(piece)
        sent = stream.send_nowait(piece)
        note_piece(stream, size, sent)
        if sent < size:
            return bytes(piece[sent:])
        turns += 2 * turns_for(size)  # a read and a write
    return b""


class Upload:
    """One task that moves the body, started only when there is something left to move.

    It never raises for what peers do: a fault of the client aborts the exchange's main task, an
    upstream that takes no more is left to the main task, which may find an answer waiting.
    """

    def __init__(
        self,
        exchange: Exchange,
        body: RequestBody,
        wire: ClientWire,
        stream: Stream,
        main: Watchdog,
        *,
        waits_for_continue: bool,
        encode_end: Callable[[], bytes],
        on_change: Callable[[], None],
    ) -> None:
        self._exchange = exchange
        self._body = body
        self._wire = wire
        self._stream = stream
        self._main = main
        self._watchdog = Watchdog(main.deadlines, main.timers)
        self._encode_end = encode_end
        self._on_change = on_change
        self._stopped = False
        #: While the client waits for a 100 it is not late with its body.
        self._wait = "" if waits_for_continue else "body"
        #: Set when the task has ended, however.
        self.done = trio.Event()
        #: The whole body was handed over.
        self.complete = False
        #: A response head has come: a stall must not hide it.
        self.answered = False

    async def run(self, unsent: bytes, ended: bool) -> None:
        """Send ``unsent``, and then the rest of the body unless it ``ended`` with that."""
        try:
            with self._watchdog:
                if unsent:
                    await send_all(self._stream, unsent, self._watchdog, "write")
                if not ended:
                    await self._relay()
                self.complete = True
            if self._watchdog.was_cancelled and not self._stopped:
                self._out_of_time()
        except ProxyError as exc:
            exc.__traceback__ = exc.__cause__ = None  # their frames hold this upload
            self._main.abort(exc)
        except (OSError, trio.ClosedResourceError):
            pass  # the upstream takes no more; whether it has answered is seen when reading
        finally:
            self.done.set()
            self._on_change()
            # Nobody is told any more; and what both know of each other is left to no collector.
            self._on_change = _nothing_has_changed
            self._encode_end = _nothing_is_left

    async def _relay(self) -> None:
        body, deadlines, clock = self._body, self._watchdog.deadlines, self._watchdog.timers.now
        while not body.complete:
            began = clock()
            piece = await body.receive(self._watchdog, self._wait, self._stream.piece_bytes)
            deadlines.extend_try(clock() - began)
            if not piece:
                continue
            if not self._wait:
                self._begin()
            parts = self._wire.encode_data(piece)
            if len(parts) == 1 and isinstance(piece, memoryview):
                await send_borrowed(self._stream, piece, self._watchdog, "write")
            else:
                await send_all(self._stream, b"".join(parts), self._watchdog, "write")
        if end := self._encode_end():  # an empty send would only take the socket's error away
            await send_all(self._stream, end, self._watchdog, "write")

    def _out_of_time(self) -> None:
        """Have the exchange fail, unless the upstream stalls after it has begun to answer."""
        if self._watchdog.wait == "body" or not self.answered:
            failure = self._watchdog.failure(self._exchange)
            if self._watchdog.wait == "write":
                self._main.fail_try(failure)  # whoever is to blame: another may take it
            else:
                self._main.abort(failure)

    @property
    def waits_for_continue(self) -> bool:
        """Whether the client was not told to go on, and has not done so of its own accord."""
        return not self._wait

    @property
    def is_moving(self) -> bool:
        """Whether it is the client's turn, or this task's, rather than the upstream's."""
        return bool(self._wait) and not self.done.is_set()

    def _begin(self) -> None:
        self._wait = "body"
        self._on_change()

    def continue_relayed(self) -> None:
        """The client has been told to go on, so from now on it can be late."""
        if not self._wait:
            self._begin()
            self._watchdog.arm("body")

    def stop(self) -> None:
        """Cancel the rest; `done` is set soon after. Who was out of time by then still says so."""
        if not self._watchdog.is_over:
            self._stopped = True
        self._watchdog.cancel("the exchange is over")
