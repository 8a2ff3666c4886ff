"""Two streams tied together, for a connection that was switched to another protocol."""

from __future__ import annotations

from collections.abc import Callable

import trio

from trio_proxy.exchange.streams import READ_SIZE, Stream
from trio_proxy.exchange.timers import Timed, Timers
from trio_proxy.exchange.turns import Turns


class Tunnel:
    """Relays both ways until both sides have ended, one fails, or nothing moves for too long.

    The end of one side is passed on as a half-close, and the other direction goes on. ``turns`` are
    those of the client's connection, for both directions together.
    """

    def __init__(
        self, left: Stream, right: Stream, turns: Turns, idle_seconds: float, timers: Timers
    ) -> None:
        self._left = left
        self._right = right
        self._turns = turns
        self._idle_seconds = idle_seconds
        self._scope = trio.CancelScope()
        self._idle = _Idle(timers, self._scope)
        self._failure: OSError | None = None
        #: The stream that failed, if one did.
        self.failed: Stream | None = None

    async def run(
        self,
        *,
        from_left: bytes,
        from_right: bytes,
        count_rightwards: Callable[[int], None],
        count_leftwards: Callable[[int], None],
    ) -> bool:
        """Relay; ``from_left`` and ``from_right`` were read before the switch and go first.

        The counters are told how many bytes moved. Returns False if the idle deadline ended it.
        Raises OSError from the stream that failed.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(
                        self._direction, self._left, self._right, from_left, count_rightwards
                    )
                    await self._direction(self._right, self._left, from_right, count_leftwards)
        finally:
            self._idle.timers.forget(self._idle)
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # its traceback holds this frame
        return not self._scope.cancelled_caught

    async def _direction(
        self, source: Stream, target: Stream, data: bytes, count: Callable[[int], None]
    ) -> None:
        try:
            await self._send(target, data, count)
            while data := await self._receive(source, at_once=len(data) == READ_SIZE):
                await self._send(target, data, count)
                if self._turns.take():
                    self._put_off_idle_deadline()
                    await self._turns.pass_on()
            self._send_eof(target)
        except OSError:
            self._scope.cancel(reason="one side of the tunnel failed")

    async def _receive(self, source: Stream, *, at_once: bool) -> bytes:
        """The next bytes; ``at_once`` says that there may be some already."""
        try:
            data = source.receive_nowait(READ_SIZE) if at_once else None
            while data is None:
                self._put_off_idle_deadline()
                await source.wait_readable()
                if self._idle.is_too_late:
                    self._idle.expire()
                    await trio.lowlevel.checkpoint()
                data = source.receive_nowait(READ_SIZE)
        except OSError as exc:
            self._note_failure(source, exc)
            raise
        return data

    def _note_failure(self, stream: Stream, exc: OSError) -> None:
        if self.failed is None:
            # A copy without a traceback, whose frames would hold the tunnel in turn.
            self._failure, self.failed = type(exc)(*exc.args), stream

    async def _send(self, target: Stream, data: bytes, count: Callable[[int], None]) -> None:
        try:
            sent = moved = target.send_nowait(data) if data else 0
            count(sent)
            while sent < len(data):
                if moved:
                    self._put_off_idle_deadline()
                await target.wait_writable()
                moved = target.send_nowait(memoryview(data)[sent:])
                count(moved)
                sent += moved
        except OSError as exc:
            self._note_failure(target, exc)
            raise

    def _send_eof(self, target: Stream) -> None:
        try:
            target.send_eof()
        except OSError as exc:
            self._note_failure(target, exc)
            raise

    def _put_off_idle_deadline(self) -> None:
        """Both directions share it: bytes either way keep the tunnel open."""
        self._idle.put_off(self._idle.timers.now() + self._idle_seconds)


class _Idle(Timed):
    """Nothing has moved for too long."""

    __slots__ = ("_scope",)

    def __init__(self, timers: Timers, scope: trio.CancelScope) -> None:
        super().__init__(timers)
        self._scope = scope

    def expire(self) -> None:
        self._scope.cancel(reason="tunnel_idle deadline")

    def end(self) -> None:
        self._scope.cancel(reason="internal error")
