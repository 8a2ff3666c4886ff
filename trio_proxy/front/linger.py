"""Closing a connection whose client may still be sending, so that it gets its answer.

Closing a socket with unread input sends a reset, and a reset can destroy an answer that is on its
way. So our side is ended first, and what still comes is read and dropped for a bounded while
(nginx: lingering_close).
"""

from __future__ import annotations

import trio

from trio_proxy.exchange.streams import Stream

LINGER_SECONDS = 2.0
LINGER_BYTES = 16 * 1024 * 1024


async def linger(stream: Stream, buffer: memoryview) -> None:
    """End our side and drop what comes, until the client ends its side or a bound is reached."""
    left = LINGER_BYTES
    with trio.move_on_after(LINGER_SECONDS):
        try:
            stream.send_eof()
            while left > 0:
                size = stream.receive_into_nowait(buffer)
                if size == 0:
                    return
                left -= size or 0
                if size is None:
                    await stream.wait_readable()
                else:
                    await trio.lowlevel.checkpoint()
        except (OSError, trio.ClosedResourceError):
            return
