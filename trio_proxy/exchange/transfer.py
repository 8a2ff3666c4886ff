"""Bytes in and out of a stream, each wait within a budget of a `Watchdog`."""

from __future__ import annotations

from trio_proxy.exchange.streams import Stream, note_piece
from trio_proxy.exchange.watchdog import Watchdog


async def receive_later(stream: Stream, limit: int, watchdog: Watchdog, wait: str) -> bytes:
    """Bytes from the stream, ``b""`` at its end, within the budget named ``wait``.

    For when nothing can have come yet: saves the system call that would say so. Raises OSError if
    the transport failed. A cancellation never loses what was read.
    """
    while True:
        await watchdog.wait_readable(stream, wait)
        data = stream.receive_nowait(limit)
        if data is not None:
            return data


async def send_all(
    stream: Stream, data: bytes | bytearray | memoryview, watchdog: Watchdog, wait: str
) -> None:
    """Send everything; each wait for the peer to take bytes is within the budget ``wait``.

    Raises OSError if the transport failed. After a cancellation an unknown part was sent.
    """
    began = watchdog.timers.now()
    sent = stream.send_nowait(data)
    if sent == len(data):
        await let_others_run(began, sent, watchdog, wait)
    else:
        await send_rest(stream, data, sent, watchdog, wait)


async def send_rest(
    stream: Stream, data: bytes | bytearray | memoryview, sent: int, watchdog: Watchdog, wait: str
) -> None:
    """`send_all` of what is left behind the first ``sent`` bytes, which the transport has taken."""
    with memoryview(data) as view:
        while sent < len(view):
            watchdog.arm(wait)
            await stream.wait_writable()
            if watchdog.is_over or watchdog.is_too_late:
                await watchdog.too_late()
            sent += stream.send_nowait(view[sent:])


#: Bytes of a body that take as long as one turn of other work.
TURN_BYTES = 256 * 1024

#: What is worth a look at the clock, for `let_others_run`.
LARGE_BYTES = 16 * 1024


def turns_for(size: int) -> int:
    """As how many turns a piece of that size counts: in each direction one for `TURN_BYTES`."""
    return max(1, size // TURN_BYTES)


async def let_others_run(began: float, size: int, watchdog: Watchdog, wait: str) -> None:
    """So many bytes were sent since then: if it is time for it, the others are next."""
    timers = watchdog.timers
    if timers.run_queue.is_overdrawn(timers.now() - began):
        watchdog.arm("")
        await timers.run_queue.wait()
    elif watchdog.is_winded(turns_for(size)):
        await watchdog.breathe(wait)


async def send_borrowed(stream: Stream, view: memoryview, watchdog: Watchdog, wait: str) -> None:
    """`send_all` for bytes in a buffer that others use as soon as this task waits.

    What the transport does not take at once is copied: hardly more than `PIECE_BYTES`, as
    `note_piece` sees to.
    """
    size = len(view)
    began = watchdog.timers.now()
    sent = stream.send_nowait(view)
    note_piece(stream, size, sent)
    if sent == size:
        await let_others_run(began, size, watchdog, wait)
    else:
        await send_rest(stream, bytes(view[sent:]), 0, watchdog, wait)
