"""The byte stream that everything above `net` speaks to.

Reading and writing are synchronous and never block; the only awaits are the two waits. So a
relay that finds its bytes ready pays for one system call and nothing else: no trip through the
scheduler, no cancel scope (trio's own ``SocketStream`` makes that trip on every call). A caller
arms its deadline only when it is about to wait, and calls `trio.lowlevel.checkpoint` itself now
and then, so that a busy connection does not starve the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

#: Bytes taken from a peer in one read; also the most that one read can add to a buffer.
READ_SIZE = 65536

#: Bytes of a body that move from socket to socket in one go, at first. What a peer does not take of
#: them is held in memory for as long as it reads nothing, and that may be thousands of peers.
PIECE_BYTES = 64 * 1024

#: The same for a peer that has not taken a piece whole, or has hardly any room.
LEAST_PIECE_BYTES = 16 * 1024

#: The same for a peer that takes all of it: each piece wakes its reader, so few and large ones save
#: CPU here and there. Beyond it nothing more is saved.
MAX_PIECE_BYTES = 1024 * 1024

HangupCallback = Callable[[bool], None]


class Stream(Protocol):
    """One connected peer.

    Every method but the two waits is synchronous and returns at once. Failures of the transport
    are `OSError` (reset, broken pipe); a wait whose stream is closed under it raises
    `trio.ClosedResourceError`.
    """

    #: The peer's address without a port: an IP literal, or ``unix:``.
    peer: str

    #: By how many seconds `on_hangup` can lag behind what it reports.
    hangup_lag: float

    #: Called once when the peer has shut down its sending side (``False``) and once when it has
    #: reset the connection (``True``). It runs between task steps and must only do bookkeeping; if
    #: it raises, that is logged and the stream aborted. A FIN is reported even while unread bytes
    #: lie in front of it. After a `send_eof` of ours a reset may be left to the next read to
    #: discover.
    on_hangup: HangupCallback | None

    #: How many bytes of a body to hand over at once: `note_piece` learns what this peer takes.
    piece_bytes: int

    def receive_nowait(self, limit: int) -> bytes | None:
        """Up to ``limit`` bytes, ``b""`` at the end of the stream, None if there are none yet."""
        ...

    def receive_into_nowait(self, buffer: memoryview) -> int | None:
        """Like `receive_nowait`, into the caller's buffer; the number of bytes, 0 at the end."""
        ...

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Hand over what the transport takes now; the number of bytes, 0 if it takes none."""
        ...

    async def wait_readable(self) -> None:
        """Wait until `receive_nowait` has something to tell. One waiter at a time."""
        ...

    async def wait_writable(self) -> None:
        """Wait until `send_nowait` takes something. One waiter at a time."""
        ...

    def is_readable(self) -> bool:
        """Whether bytes, the end of the stream or an error are there to be read; True if closed."""
        ...

    def room_bytes(self) -> int:
        """How many bytes `send_nowait` would take now, about; 0 if that cannot be told."""
        ...

    def unread_bytes(self) -> int:
        """How many received bytes lie unread in the transport."""
        ...

    def send_eof(self) -> None:
        """Shut down the sending side (half-close). Nothing happens if that was done before."""
        ...

    def close(self) -> None:
        """Close at once and wake who waits. Unread input turns this into a reset. Idempotent."""
        ...

    def abort(self) -> None:
        """Close with a reset, so that the peer cannot take what it has for complete."""
        ...


def note_piece(stream: Stream, size: int, sent: int) -> None:
    """A piece of ``size`` bytes was handed over, ``sent`` of which were taken: how large the next?

    It is twice as large while they are taken whole, but never larger than there is room for. Until
    then the room only grows, but for a head and what came with it, which take `READ_SIZE` at most.
    """
    wanted = stream.piece_bytes
    if sent < size:
        stream.piece_bytes = LEAST_PIECE_BYTES
    elif size >= wanted or wanted > PIECE_BYTES:
        room = stream.room_bytes()
        if size >= wanted:
            wanted = min(2 * wanted, MAX_PIECE_BYTES)
        most = max(room - READ_SIZE, min(room, PIECE_BYTES), LEAST_PIECE_BYTES)
        stream.piece_bytes = min(wanted, most)
