"""Bytes in and out of a stream on behalf of an exchange: each wait in its budget, each in turn.

This is the one place that reads and the one that sends. An operation that finds its bytes ready
costs a system call and nothing else, but for every `TURNS_WITHOUT_CHECKPOINT`-th. A failure of the
transport is an OSError, or a `trio.ClosedResourceError` if somebody has closed the stream.
"""

from __future__ import annotations

from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import READ_SIZE, Stream, note_piece
from trio_proxy.exchange.waits import Wait
from trio_proxy.http.messages import Chunk


async def receive_later(stream: Stream, exchange: Exchange, wait: Wait) -> bytes:
    """Bytes from the stream, ``b""`` at its end.

    For when nothing can have come yet: saves the system call that would say so. A cancellation
    never loses what was read.
    """
    data = None
    while data is None:
        with exchange.deadlines.wait(wait) as block:
            await stream.wait_readable()
            if block.is_late:
                await block.too_late()
        data = stream.receive_nowait(READ_SIZE)
    return data


async def send_all(stream: Stream, data: Chunk, exchange: Exchange, wait: Wait) -> None:
    """Send everything. After a cancellation an unknown part was sent."""
    began = exchange.deadlines.timers.now()
    sent = stream.send_nowait(data)
    if sent < len(data):
        await send_rest(stream, data, sent, exchange, wait)
    else:
        await let_others_run(began, sent, exchange)


async def send_rest(stream: Stream, data: Chunk, sent: int, exchange: Exchange, wait: Wait) -> None:
    """`send_all` of what is left behind the first ``sent`` bytes, which the transport has taken."""
    with memoryview(data) as view:
        while sent < len(view):
            with exchange.deadlines.wait(wait) as block:
                await stream.wait_writable()
                if block.is_late:
                    await block.too_late()
            sent += stream.send_nowait(view[sent:])


#: Bytes of a body that take as long as one turn of other work.
TURN_BYTES = 256 * 1024

#: What is worth a look at the clock, for `let_others_run`.
LARGE_BYTES = 16 * 1024


def turns_for(size: int) -> int:
    """As how many turns a piece of that size counts: in each direction one for `TURN_BYTES`."""
    return max(1, size // TURN_BYTES)


async def let_others_run(began: float, size: int, exchange: Exchange) -> None:
    """So many bytes were sent since then: if it is time for it, the others are next."""
    timers = exchange.deadlines.timers
    if timers.run_queue.is_overdrawn(timers.now() - began):
        await timers.run_queue.wait()
    elif exchange.turns.take(turns_for(size)):
        await exchange.turns.pass_on()


async def send_borrowed(stream: Stream, view: memoryview, exchange: Exchange, wait: Wait) -> None:
    """`send_all` for bytes in a buffer that others use as soon as this task waits.

    What the transport does not take at once is copied: hardly more than `PIECE_BYTES`, as
    `note_piece` sees to.
    """
    size = len(view)
    began = exchange.deadlines.timers.now()
    sent = stream.send_nowait(view)
    note_piece(stream, size, sent)
    if sent < size:
        await send_rest(stream, bytes(view[sent:]), 0, exchange, wait)
    else:
        await let_others_run(began, size, exchange)
