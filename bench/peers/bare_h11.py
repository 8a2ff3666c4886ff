"""The floor: what a relay on Trio and h11 costs with no feature at all.

Usage: bare_h11.py PORT UPSTREAM_PORT

No log, no deadlines, no limits, no header rules, no checks, no upload and download at once. Nobody
should use it; it only shows how much of trio-proxy's time is Trio's and h11's own.
"""

from __future__ import annotations

import sys

import h11
import trio

READ_SIZE = 65536


class Peer:
    """A stream and its h11 state machine."""

    def __init__(
        self, stream: trio.SocketStream, role: type[h11.CLIENT] | type[h11.SERVER]
    ) -> None:
        self.stream = stream
        self.http = h11.Connection(role)

    async def next_event(self) -> h11.Event | type[h11.PAUSED]:
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(await self.stream.receive_some(READ_SIZE))
        return event

    async def send(self, *events: h11.Event) -> None:
        data = b"".join(filter(None, map(self.http.send, events)))
        if data:
            await self.stream.send_all(data)


class Relay:
    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._idle: list[Peer] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        client = Peer(stream, h11.SERVER)
        try:
            while await self._exchange(client):
                pass
        except (OSError, trio.BrokenResourceError, h11.ProtocolError):
            pass
        await stream.aclose()

    async def _exchange(self, client: Peer) -> bool:
        request = await client.next_event()
        if not isinstance(request, h11.Request):
            return False
        upstream = self._idle.pop() if self._idle else await self._dial()
        await self._copy(request, client, upstream)
        response = await upstream.next_event()
        assert isinstance(response, h11.Response)
        await self._copy(response, upstream, client)
        upstream.http.start_next_cycle()
        self._idle.append(upstream)
        client.http.start_next_cycle()
        return True

    async def _dial(self) -> Peer:
        stream = await trio.open_tcp_stream("127.0.0.1", self._upstream_port)
        return Peer(stream, h11.CLIENT)

    async def _copy(self, head: h11.Request | h11.Response, source: Peer, target: Peer) -> None:
        """A message from one side to the other; the head leaves together with what follows it."""
        pending: list[h11.Event] = [head]
        while True:
            event = await source.next_event()
            assert isinstance(event, h11.Data | h11.EndOfMessage)
            await target.send(*pending, event)
            pending.clear()
            if isinstance(event, h11.EndOfMessage):
                return


async def main(port: int, upstream_port: int) -> None:
    relay = Relay(upstream_port)
    await trio.serve_tcp(relay.serve, port, host="127.0.0.1", backlog=4096)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
