"""One direction of a simulated connection.

A pipe does nothing on its own: whatever is sent gets the time at which it arrives, and whoever
looks later compares that with the clock. So there are no background tasks to leak, and a pipe
that nobody looks at costs nothing. A waiter sleeps until the earliest arrival or until the other
side changes something (`Gate`).

Bytes count against ``buffer`` from the moment they are sent until they are read. Real TCP has two
buffers and learns of free room one latency later; one bound is enough to show backpressure.
"""

from __future__ import annotations

import errno
import math
import os
import random
from collections import deque
from collections.abc import Callable

import trio
from attrs import field, frozen, validators

#: Payload of an Ethernet-sized segment; a slow link delivers in pieces of at most this size.
MAX_SEGMENT = 1460
#: A slow link delivers a piece about this often, so that bytes trickle instead of coming in lumps.
SECONDS_A_SEGMENT = 0.1


@frozen(kw_only=True)
class Link:
    """What a connection is like. Both directions are alike.

    ``latency``: seconds one way. ``bandwidth``: bytes per second. ``buffer``: the most bytes that
    one direction holds, in flight and unread together. ``jitter``: at most so many seconds are
    added to the latency of each piece, by chance (order is kept). ``fragment``: each read and each
    send moves only a piece of random size.
    """

    latency: float = field(default=0.0, validator=validators.ge(0))
    bandwidth: float = field(default=math.inf, validator=validators.gt(0))
    buffer: int = field(default=65536, validator=validators.ge(1))
    jitter: float = field(default=0.0, validator=validators.ge(0))
    fragment: bool = False

    def segment_size(self) -> int:
        """Bytes that arrive together."""
        if math.isinf(self.bandwidth):
            return self.buffer
        return max(1, min(MAX_SEGMENT, int(self.bandwidth * SECONDS_A_SEGMENT)))


class Gate:
    """Where one task sleeps until a condition holds."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: trio.Event | None = None

    def wake(self) -> None:
        """Let the waiter, if any, look at its condition again."""
        if self._event is not None:
            self._event.set()

    async def wait(self, is_ready: Callable[[], bool], due_at: Callable[[], float]) -> None:
        """Return once ``is_ready()``, looking again when woken and at the time ``due_at()``.

        Raises `trio.BusyResourceError` if another task waits here.
        """
        if self._event is not None:
            raise trio.BusyResourceError("another task is waiting for this already")
        self._event = trio.Event()
        try:
            await trio.lowlevel.checkpoint()
            while not is_ready():
                self._event = trio.Event()
                with trio.move_on_at(due_at()):
                    await self._event.wait()
        finally:
            self._event = None


class Pipe:
    """Bytes, then perhaps a FIN or an RST, on their way from one stream to another.

    Times are on trio's clock; ``math.inf`` stands for never.
    """

    def __init__(self, link: Link, seed: str) -> None:
        self.link = link
        self.readable = Gate()
        self.writable = Gate()
        self.stalled = False
        #: The sender has said that nothing follows.
        self.finished = False
        #: When the FIN and the RST reach the receiver.
        self.fin_at = math.inf
        self.reset_at = math.inf
        self._reset_keeps_data = False
        self._in_flight: deque[tuple[float, bytes]] = deque()
        self._unread = bytearray()
        self._size = 0
        self._line_free_at = -math.inf
        self._last_arrival = -math.inf
        self._bytes_until_cut = math.inf
        self._cut_resets = False
        # Sender and receiver draw from sequences of their own, so that neither depends on which
        # of two tasks trio happens to run first.
        self._send_rng = random.Random(f"{seed}/send")
        self._read_rng = random.Random(f"{seed}/read")

    # The sender's side

    @property
    def size(self) -> int:
        """Bytes sent and not read yet."""
        return self._size

    @property
    def room(self) -> int:
        return self.link.buffer - self._size

    def send(self, data: memoryview) -> int:
        """Take what there is room for; the number of bytes."""
        count = min(len(data), self.room)
        if count > 0 and self.link.fragment:
            count = _piece(self._send_rng, count)
        self._size += count
        # Beyond a cut bytes are taken, for the sender cannot know, but they arrive nowhere.
        delivered = int(min(count, self._bytes_until_cut))
        step = self.link.segment_size()
        for start in range(0, delivered, step):
            self._launch(bytes(data[start : min(start + step, delivered)]))
        self._bytes_until_cut -= delivered
        self.readable.wake()
        return count

    def _launch(self, segment: bytes) -> None:
        now = trio.current_time()
        self._line_free_at = max(now, self._line_free_at) + len(segment) / self.link.bandwidth
        arrives_at = self._line_free_at + self.link.latency
        if self.link.jitter:
            arrives_at += self._send_rng.uniform(0, self.link.jitter)
        self._last_arrival = max(arrives_at, self._last_arrival)
        self._in_flight.append((self._last_arrival, segment))

    def finish(self) -> None:
        """Send a FIN behind the bytes that are on their way."""
        if not self.finished:
            self.finished = True
            if not self.is_cut():
                self.fin_at = max(trio.current_time() + self.link.latency, self._last_arrival)
            self.readable.wake()

    def reset(self, arrives_at: float, *, keep_data: bool = False) -> None:
        """Send an RST, which makes the receiver drop what it has not read unless ``keep_data``."""
        if not self.is_cut() or keep_data:
            if arrives_at < self.reset_at:
                self.reset_at = arrives_at
                self._reset_keeps_data = keep_data
            self.readable.wake()

    def limit(self, count: int, *, reset: bool) -> None:
        """Deliver ``count`` more bytes; `is_cut` afterwards."""
        if not self.is_cut():
            self._bytes_until_cut = count
            self._cut_resets = reset

    def is_cut(self) -> bool:
        return self._bytes_until_cut <= 0

    def cut(self) -> float:
        """End the stream behind what was delivered; when the receiver learns of it."""
        at = max(trio.current_time(), self._last_arrival)
        if self._cut_resets:
            self.reset(at, keep_data=True)
        else:
            self.fin_at = min(at, self.fin_at)
            self.readable.wake()
        return at

    # Faults on the way

    def stall(self) -> None:
        """Let nothing arrive: no bytes, no FIN, no RST."""
        self._collect()
        # What has arrived has arrived.
        if self.has_arrived(self.fin_at):
            self.fin_at = -math.inf
        if self.has_arrived(self.reset_at):
            self.reset_at = -math.inf
        self.stalled = True

    def resume(self) -> None:
        """Undo `stall`. What would have arrived meanwhile arrives now."""
        self.stalled = False
        now = trio.current_time()
        self._in_flight = deque((max(at, now), segment) for at, segment in self._in_flight)
        self._last_arrival = max(self._last_arrival, now)
        if self.fin_at > -math.inf:
            self.fin_at = max(self.fin_at, now)
        if self.reset_at > -math.inf:
            self.reset_at = max(self.reset_at, now)
        self.readable.wake()

    # The receiver's side

    def has_arrived(self, at: float) -> bool:
        """Whether something that was due at ``at`` is there."""
        return at == -math.inf or (not self.stalled and at <= trio.current_time())

    def next_arrival(self) -> float:
        """When the next bytes that are still in flight arrive."""
        return self._in_flight[0][0] if self._in_flight and not self.stalled else math.inf

    def due_at(self) -> float:
        """When the receiver next has something to look at, if nothing changes until then."""
        if self.stalled:
            return math.inf
        return min(self.next_arrival(), self.fin_at, self.reset_at)

    def reset_due_at(self) -> float:
        return math.inf if self.stalled else self.reset_at

    def unread(self) -> int:
        """Bytes that have arrived and can be read."""
        self._collect()
        return 0 if self._was_dropped() else len(self._unread)

    def is_readable(self) -> bool:
        return self.has_arrived(self.reset_at) or self.unread() > 0 or self.has_arrived(self.fin_at)

    def read(self, limit: int) -> bytes | None:
        """Up to ``limit`` bytes, ``b""`` at the end, None if there is nothing yet.

        Raises ConnectionResetError.
        """
        self._collect()
        if self._was_dropped() or (self.has_arrived(self.reset_at) and not self._unread):
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        if not self._unread:
            return b"" if self.has_arrived(self.fin_at) else None
        count = min(limit, len(self._unread))
        if self.link.fragment:
            count = _piece(self._read_rng, count)
        data = bytes(memoryview(self._unread)[:count])
        del self._unread[:count]
        self._size -= count
        self.writable.wake()
        return data

    def _was_dropped(self) -> bool:
        return self.has_arrived(self.reset_at) and not self._reset_keeps_data

    def _collect(self) -> None:
        while self._in_flight and self.has_arrived(self._in_flight[0][0]):
            self._unread += self._in_flight.popleft()[1]


def _piece(rng: random.Random, most: int) -> int:
    """A random size from 1 to ``most``: often tiny, so that every split point is met soon."""
    return min(most, rng.choice((1, rng.randint(1, 8), rng.randint(1, 256), most)))
