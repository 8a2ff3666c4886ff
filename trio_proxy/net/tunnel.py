"""Two streams tied together, for a connection that was switched to another protocol."""

from __future__ import annotations

from collections.abc import Callable

import trio

from trio_proxy.net.streams import READ_SIZE, Stream

#: Moves in a row that found their bytes ready before a direction lets the others run.
TURNS_WITHOUT_CHECKPOINT = 16


class Tunnel:
    """Relays both ways until both sides have ended, one fails, or nothing moves for too long.

    The end of one side is passed on as a half-close, and the other direction goes on.
    """

    def __init__(self, left: Stream, right: Stream, idle_seconds: float) -> None:
        self._left = left
        self._right = right
        self._idle_seconds = idle_seconds
        self._scope = trio.CancelScope()
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
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    self._direction, self._left, self._right, from_left, count_rightwards
                )
                await self._direction(self._right, self._left, from_right, count_leftwards)
        if self._failure is not None:
            raise self._failure
        return not self._scope.cancelled_caught

    async def _direction(
        self, source: Stream, target: Stream, data: bytes, count: Callable[[int], None]
    ) -> None:
        try:
            await self._send(target, data, count)
            turns = 0
            while data := await self._receive(source):
                await self._send(target, data, count)
                turns += 1
                if turns % TURNS_WITHOUT_CHECKPOINT == 0:
                    await trio.lowlevel.checkpoint()
            target.send_eof()
        except OSError:
            self._scope.cancel(reason="one side of the tunnel failed")

    async def _receive(self, source: Stream) -> bytes:
        try:
            while (data := source.receive_nowait(READ_SIZE)) is None:
                self._put_off_idle_deadline()
                await source.wait_readable()
        except OSError as exc:
            self._note_failure(source, exc)
            raise
        return data

    def _note_failure(self, stream: Stream, exc: OSError) -> None:
        if self._failure is None:
            self._failure, self.failed = exc, stream

    async def _send(self, target: Stream, data: bytes, count: Callable[[int], None]) -> None:
        view = memoryview(data)
        while view:
            try:
                sent = target.send_nowait(view)
            except OSError as exc:
                self._note_failure(target, exc)
                raise
            view = view[sent:]
            count(sent)
            if view:
                if sent:
                    self._put_off_idle_deadline()
                await target.wait_writable()

    def _put_off_idle_deadline(self) -> None:
        """Both directions share the scope: bytes either way keep the tunnel open."""
        self._scope.deadline = trio.current_time() + self._idle_seconds
