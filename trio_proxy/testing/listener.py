"""A simulated listening socket and its bounded backlog."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable

import trio

from trio_proxy.http.addresses import Address
from trio_proxy.testing.conditions import Faults
from trio_proxy.testing.pipe import Gate
from trio_proxy.testing.stream import SimStream


class SimListener:
    """A `Listener` of a `SimNet`."""

    def __init__(
        self,
        address: Address,
        *,
        backlog: int,
        faults: Callable[[], Faults],
        forget: Callable[[SimListener], None],
    ) -> None:
        self.address = address
        self.closed = False
        self._backlog = backlog
        self._faults = faults
        self._forget = forget
        self._gate = Gate()
        #: Connections that wait to be accepted, with the time from which they can be.
        self._waiting: deque[tuple[float, SimStream]] = deque()
        #: Places held for dials whose handshake is under way.
        self._claimed = 0
        self._room = trio.lowlevel.ParkingLot()

    @property
    def waiting(self) -> int:
        """Connections in the backlog, those in their handshake included."""
        return len(self._waiting) + self._claimed

    async def wait_readable(self) -> None:
        """Wait until a connection is ready to be accepted. One waiter at a time.

        Raises `trio.ClosedResourceError` when the listener is closed, `trio.BusyResourceError`.
        """

        def is_ready() -> bool:
            if self.closed:
                raise trio.ClosedResourceError("this listener was closed")
            return self._ready_at() <= trio.current_time()

        await self._gate.wait(is_ready, self._ready_at)

    def accept_nowait(self) -> SimStream | None:
        """Take one connection; None if there is none.

        Raises OSError as told by `SimNet.fail_accept` (the connection stays in the backlog, as it
        does on Linux), and `trio.ClosedResourceError` after `close`.
        """
        if self.closed:
            raise trio.ClosedResourceError("this listener was closed")
        if self._ready_at() > trio.current_time():
            return None
        faults = self._faults()
        if faults.accept_failures > 0:
            faults.accept_failures -= 1
            raise OSError(faults.accept_errno, os.strerror(faults.accept_errno))
        _, stream = self._waiting.popleft()
        self._room.unpark()
        return stream

    def close(self) -> None:
        """Stop listening at once. Connections in the backlog are reset. Idempotent."""
        if not self.closed:
            self.closed = True
            self._forget(self)
            for _, stream in self._waiting:
                stream.abort()
            self._waiting.clear()
            self._room.unpark_all()
            self._gate.wake()

    async def claim_place(self) -> bool:
        """Wait for a place in the backlog and hold it; False if the listener was closed."""
        while not self.closed and self.waiting >= self._backlog:
            await self._room.park()
        self._claimed += not self.closed
        return not self.closed

    def give_back_place(self) -> None:
        """The handshake has ended, well or not."""
        self._claimed -= 1
        if self.waiting < self._backlog:
            self._room.unpark()

    def push(self, stream: SimStream, ready_at: float) -> None:
        """Put a connection into the backlog."""
        self._waiting.append((ready_at, stream))
        self._gate.wake()

    def _ready_at(self) -> float:
        return self._waiting[0][0] if self._waiting else math.inf

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.waiting} of {self._backlog} waiting"
        return f"<SimListener {self.address}: {state}>"
