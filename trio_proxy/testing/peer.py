"""The test's own end of a conversation: scripted clients and upstreams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType

import trio

from trio_proxy.exchange.streams import READ_SIZE
from trio_proxy.http.addresses import Address
from trio_proxy.testing.listener import SimListener
from trio_proxy.testing.stream import SimStream

#: What an upstream does with each connection.
Handler = Callable[["Peer"], Awaitable[object]]


class Peer:
    """A stream with the awaits that a script wants. Close it, or use it as a context manager.

    Reads and sends raise OSError if the connection was reset. There are no timeouts: wrap a step
    in ``trio.fail_after``.
    """

    def __init__(self, stream: SimStream) -> None:
        #: The stream underneath, for its faults: ``peer.stream.stall()``, ``.cut_after(10)``.
        self.stream = stream
        self._buffer = bytearray()

    async def send(self, data: bytes) -> None:
        """Send everything, waiting as long as the other side takes nothing."""
        with memoryview(data) as view:
            sent = self.stream.send_nowait(view)
            while sent < len(view):
                await self.stream.wait_writable()
                sent += self.stream.send_nowait(view[sent:])

    async def receive_some(self, limit: int = READ_SIZE) -> bytes:
        """At least one byte, at most ``limit``; ``b""`` at the end of the stream."""
        if not self._buffer:
            return await self._receive(limit)
        return self._take(min(limit, len(self._buffer)))

    async def receive_exactly(self, count: int) -> bytes:
        """``count`` bytes. Raises EOFError if the stream ends before."""
        while len(self._buffer) < count:
            await self._fill(f"{count} bytes")
        return self._take(count)

    async def receive_until(self, mark: bytes) -> bytes:
        """Everything up to and with ``mark``. Raises EOFError if the stream ends before."""
        while (start := self._buffer.find(mark)) < 0:
            await self._fill(repr(mark))
        return self._take(start + len(mark))

    async def receive_all(self) -> bytes:
        """Everything up to the end of the stream."""
        while data := await self._receive(READ_SIZE):
            self._buffer += data
        return self._take(len(self._buffer))

    def send_eof(self) -> None:
        """Half-close: nothing more will be sent."""
        self.stream.send_eof()

    def close(self) -> None:
        """Close at once; a reset if bytes lie unread in the stream."""
        self.stream.close()

    def abort(self) -> None:
        """Close with a reset."""
        self.stream.abort()

    async def _receive(self, limit: int) -> bytes:
        while (data := self.stream.receive_nowait(limit)) is None:
            await self.stream.wait_readable()
        return data

    async def _fill(self, expected: str) -> None:
        data = await self._receive(READ_SIZE)
        if not data:
            raise EOFError(f"expected {expected}, the stream ended after {bytes(self._buffer)!r}")
        self._buffer += data

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def __aenter__(self) -> Peer:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Peer {bytes(self._buffer[:40])!r} of {self.stream!r}>"


class Upstream:
    """A listener whose connections a script accepts one by one."""

    def __init__(self, listener: SimListener) -> None:
        self.listener = listener
        #: Every connection accepted so far.
        self.peers: list[Peer] = []

    @property
    def address(self) -> Address:
        return self.listener.address

    async def accept(self) -> Peer:
        """The next connection; waits for it. Raises OSError as told by `SimNet.fail_accept`."""
        await self.listener.wait_readable()
        stream = self.listener.accept_nowait()
        assert stream is not None, "only one task may accept"
        peer = Peer(stream)
        self.peers.append(peer)
        return peer

    def close(self) -> None:
        """Stop listening and close what was accepted."""
        self.listener.close()
        for peer in self.peers:
            peer.close()


async def serve_peers(listener: SimListener, handler: Handler) -> None:
    """Run ``handler(peer)`` for every connection until cancelled, then stop listening."""
    try:
        async with trio.open_nursery() as nursery:
            while True:
                await listener.wait_readable()
                stream = listener.accept_nowait()
                if stream is not None:
                    nursery.start_soon(_serve_peer, Peer(stream), handler)
    finally:
        listener.close()


async def _serve_peer(peer: Peer, handler: Handler) -> None:
    # The other side going away ends a conversation; anything else fails the test.
    async with peer:
        with suppress(ConnectionResetError, BrokenPipeError, EOFError):
            await handler(peer)
