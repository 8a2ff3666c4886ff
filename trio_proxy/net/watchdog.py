"""One cancel scope an exchange, and one a try, with a deadline that is moved before each wait.

A scope costs more than moving the deadline of a live one, and only a wait needs a deadline at
all: an operation that finds its bytes ready never touches the clock. `Watchdog.arm` also keeps
the name of the budget that is running, so that the error can name it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from trio_proxy.errors import TIMEOUT_REASONS, ProxyError, Source
from trio_proxy.lifecycle import Exchange
from trio_proxy.net.streams import Stream
from trio_proxy.policy.deadlines import Deadlines

#: Operations in a row that found their bytes ready before a task lets the others run.
TURNS_WITHOUT_CHECKPOINT = 16

#: Whose fault it is when time runs out in a wait; the upstream's where nothing is said.
_BLAME = {
    "head": Source.CLIENT,
    "body": Source.CLIENT,
    "client_write": Source.CLIENT,
    "queue": Source.PROXY,
    "": Source.PROXY,
}


T = TypeVar("T")


class Watchdog:
    """The cancel scope of one task's share of an exchange, and why it was cancelled.

    Use ``with watchdog.scope:`` and ask `failure` afterwards if the scope caught a cancellation.
    Inside it, `within_try` runs what may fail without ending the exchange.
    """

    __slots__ = (
        "_aborted",
        "_budget",
        "_current",
        "_failed_try",
        "_turns",
        "_wait",
        "deadlines",
        "scope",
    )

    def __init__(self, deadlines: Deadlines) -> None:
        self.deadlines = deadlines
        self.scope = self._current = trio.CancelScope()
        self._budget = self._wait = ""
        self._aborted: ProxyError | None = None
        self._failed_try: ProxyError | None = None
        self._turns = 0

    def arm(self, wait: str) -> None:
        """Start the budget of one wait; call right before awaiting."""
        scope = self._current
        if not scope.cancel_called:  # else the budget that ran out keeps its name
            self._wait = wait
            in_try = scope is not self.scope
            nearest = self.deadlines.nearest_in_try if in_try else self.deadlines.nearest
            scope.deadline, self._budget = nearest(wait, trio.current_time())

    def abort(self, error: ProxyError) -> None:
        """Cancel from outside (the client left, the upload failed). The first reason stays."""
        if self._aborted is None:
            self._aborted = error
            self.scope.cancel(reason=str(error))

    async def within_try(self, exchange: Exchange, work: Callable[[], Awaitable[T]]) -> T:
        """Await one try at an upstream. Raises ProxyError if a budget of it runs out meanwhile.

        What ends the whole exchange, as its total budget does, goes through as a cancellation.
        """
        if self.scope.cancel_called:
            await trio.lowlevel.checkpoint()  # nothing may be sent any more
        self._failed_try = None
        self.scope.deadline = self.deadlines.total_at
        self.deadlines.start_try(trio.current_time())
        self._current = trio.CancelScope()
        with self._current:
            try:
                return await work()
            except trio.Cancelled:
                if trio.current_time() >= self.deadlines.total_at:
                    self._budget = "total"
                raise
            finally:
                self._current = self.scope
                self.deadlines.stop_try()
        raise self._failed_try or self._out_of_time(exchange)

    def fail_try(self, error: ProxyError) -> None:
        """End the try under way from outside; beyond the response head, the exchange."""
        if self._current is self.scope:
            self.abort(error)
        elif self._failed_try is None:
            self._failed_try = error
            self._current.cancel(reason=str(error))

    @property
    def is_over(self) -> bool:
        """Whether the exchange was cancelled, for whatever reason."""
        return self.scope.cancel_called

    @property
    def wait(self) -> str:
        """The name of the wait that was armed last."""
        return self._wait

    def failure(self, exchange: Exchange) -> ProxyError:
        """Why the scope was cancelled, as the error to report."""
        return self._aborted or self._out_of_time(exchange)

    def _out_of_time(self, exchange: Exchange) -> ProxyError:
        source = _BLAME.get(self._wait, Source.UPSTREAM)
        reason = TIMEOUT_REASONS[self._budget]
        seconds = self.deadlines.length(self._budget)
        detail = f"{self._budget} deadline of {seconds * 1000:.0f} ms passed"
        return ProxyError(source, exchange.phase, reason, detail=detail)

    async def breathe(self, wait: str) -> None:
        """Let other tasks run now and then; cheap otherwise. Call it where no wait was needed."""
        self._turns += 1
        if self._turns >= TURNS_WITHOUT_CHECKPOINT:
            self._turns = 0
            self.arm(wait)
            await trio.lowlevel.checkpoint()


async def receive(stream: Stream, limit: int, watchdog: Watchdog, wait: str) -> bytes:
    """Bytes from the stream, ``b""`` at its end, within the budget named ``wait``.

    Raises OSError if the transport failed. A cancellation never loses what was read.
    """
    await watchdog.breathe(wait)
    data = stream.receive_nowait(limit)
    if data is not None:
        return data
    return await receive_later(stream, limit, watchdog, wait)


async def receive_later(stream: Stream, limit: int, watchdog: Watchdog, wait: str) -> bytes:
    """`receive` for when nothing can have come yet: saves the system call that would say so."""
    while True:
        watchdog.arm(wait)
        await stream.wait_readable()
        data = stream.receive_nowait(limit)
        if data is not None:
            return data


async def send_all(
    stream: Stream, data: bytes | bytearray | memoryview, watchdog: Watchdog, wait: str
) -> None:
    """Send everything; each wait for the peer to take bytes is within the budget ``wait``.

    Raises OSError if the transport failed. After a cancellation an unknown part was sent.
    """
    sent = stream.send_nowait(data)
    if sent == len(data):
        await watchdog.breathe(wait)
        return
    with memoryview(data) as view:
        while sent < len(view):
            watchdog.arm(wait)
            await stream.wait_writable()
            sent += stream.send_nowait(view[sent:])


async def send_borrowed(stream: Stream, view: memoryview, watchdog: Watchdog, wait: str) -> None:
    """`send_all` for bytes in a buffer that others use as soon as this task waits.

    What the transport does not take at once is copied; it is at most the size of that buffer.
    """
    sent = stream.send_nowait(view)
    if sent == len(view):
        await watchdog.breathe(wait)
    else:
        await send_all(stream, bytes(view[sent:]), watchdog, wait)
