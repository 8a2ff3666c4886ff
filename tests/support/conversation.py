"""Both ends of a conversation: whole messages read, and an upstream that follows a script."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from attrs import field, frozen

from trio_proxy.testing import Peer, SimListener


@frozen
class Message:
    """A request or response as it was read. ``raw`` is the head, byte for byte."""

    start: bytes
    fields: list[tuple[bytes, bytes]]
    raw: bytes
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(factory=list)

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a field, in order."""
        return [value for other, value in self.fields if other.lower() == name.lower()]

    def __getitem__(self, name: bytes) -> bytes:
        """The value of a field that must be there exactly once."""
        values = self.all(name)
        assert len(values) == 1, f"expected one {name!r}, got {values} in {self.raw!r}"
        return values[0]

    def __contains__(self, name: bytes) -> bool:
        return bool(self.all(name))


class Speaker(Peer):
    """A `Peer` that can read whole messages; used at both ends."""

    async def read_head(self) -> Message:
        """The next head, without its body."""
        raw = await self.receive_until(b"\r\n\r\n")
        start, *lines = raw[:-4].split(b"\r\n")
        return Message(start, [_field(line) for line in lines], raw)

    async def read_request(self) -> Message:
        """A whole request."""
        head = await self.read_head()
        return await self.with_body(head, until_close=False)

    async def read_response(self, method: bytes = b"GET") -> Message:
        """A whole response to a request of that method; one without framing ends the stream."""
        head = await self.read_head()
        if method == b"HEAD" or head.status < 200 or head.status in (204, 304):
            return head
        return await self.with_body(head, until_close=True)

    async def with_body(self, head: Message, *, until_close: bool) -> Message:
        """The message of this head; without framing it has no body, or ends the stream."""
        lengths, codings = head.all(b"content-length"), head.all(b"transfer-encoding")
        assert len(lengths) + len(codings) <= 1, f"more than one framing field: {head.raw!r}"
        if lengths:
            body, trailers = await self.receive_exactly(int(lengths[0])), []
        elif codings:
            assert codings == [b"chunked"]
            body, trailers = await self.read_chunked()
        else:
            body, trailers = await self.receive_all() if until_close else b"", []
        return Message(head.start, head.fields, head.raw, body, trailers)

    async def read_chunked(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """A chunked body and its trailers."""
        body = bytearray()
        while chunk := await self.read_chunk():
            body += chunk
        trailers = []
        while (line := await self.receive_until(b"\r\n")) != b"\r\n":
            trailers.append(_field(line[:-2]))
        return bytes(body), trailers

    async def read_chunk(self) -> bytes:
        """The data of the next chunk; empty for the last one, whose trailers follow."""
        size = int(await self.receive_until(b"\r\n"), 16)
        data = await self.receive_exactly(size)
        assert not size or await self.receive_exactly(2) == b"\r\n"
        return data

    async def ask(self, request: bytes) -> Message:
        """Send a request and read the response to it."""
        await self.send(request)
        return await self.read_response(request.split(b" ", 1)[0])

    async def respond(self, body: bytes = b"ok", *, status: int = 200, fields: bytes = b"") -> None:
        """Send a response of known length; ``fields`` are further field lines with their CRLF."""
        head = b"HTTP/1.1 %d Whatever\r\nContent-Length: %d\r\n" % (status, len(body))
        await self.send(head + fields + b"\r\n" + body)


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value.strip(b" \t")


class ScriptedUpstream:
    """An upstream that does what the test says, or what a handler does for each connection."""

    def __init__(self, listener: SimListener, helpers: trio.Nursery) -> None:
        self.listener = listener
        self.peers: list[Speaker] = []
        #: The requests that `serve` has read.
        self.requests: list[Message] = []
        self._helpers = helpers

    @property
    def name(self) -> str:
        return str(self.listener.address)

    async def accept(self) -> Speaker:
        """The proxy's next connection; waits for it."""
        await self.listener.wait_readable()
        stream = self.listener.accept_nowait()
        assert stream is not None, "only one task may accept"
        self.peers.append(Speaker(stream))
        return self.peers[-1]

    def run(self, handler: Callable[[Speaker], Awaitable[object]]) -> None:
        """From now on run ``handler`` for each connection, then close it."""
        self._helpers.start_soon(self._accept_all, handler)

    async def _accept_all(self, handler: Callable[[Speaker], Awaitable[object]]) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._handle, await self.accept(), handler)

    async def _handle(self, peer: Speaker, handler: Callable[[Speaker], Awaitable[object]]) -> None:
        async with peer:
            try:
                await handler(peer)
            except (OSError, EOFError):
                return  # the proxy has closed the connection, as it may

    def serve(self, body: bytes = b"ok", *, delay: float = 0.0) -> None:
        """From now on be healthy: answer every request with 200, and keep the connection."""

        async def answer(peer: Speaker) -> None:
            while True:
                self.requests.append(await peer.read_request())
                await trio.sleep(delay)
                is_head = self.requests[-1].start.startswith(b"HEAD ")
                length = b"Content-Length: %d\r\n\r\n" % len(body)
                await peer.send(b"HTTP/1.1 200 OK\r\n" + length + (b"" if is_head else body))

        self.run(answer)

    def close(self) -> None:
        self.listener.close()
        for peer in self.peers:
            peer.close()
