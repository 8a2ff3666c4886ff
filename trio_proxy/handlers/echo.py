"""A small upstream to try the proxy with: it answers with what it was sent."""

from __future__ import annotations

import json

import trio

from trio_proxy.exchange.contract import Sink
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.handlers.respond import respond
from trio_proxy.http.messages import CHUNKED_BODY, Request, ResponseHead

#: Events on ``/events``, one per second.
EVENT_COUNT = 5


class EchoHandler:
    """Echoes the request as JSON; ``/events`` is a stream of server-sent events."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def handle(self, exchange: Exchange, request: Request, sink: Sink) -> None:
        size = 0
        if request.expects_continue:
            await sink.inform(ResponseHead(status=100, fields=()))
        while not request.content.complete:
            size += len(await request.content.receive())
        if request.target.partition(b"?")[0] == b"/events":
            await self._stream_events(sink)
            return
        facts = {
            "upstream": self._name,
            "method": request.method.decode("latin-1"),
            "target": request.target.decode("latin-1"),
            "body_bytes": size,
            "headers": [
                [name.decode("latin-1"), value.decode("latin-1")] for name, value in request.fields
            ],
        }
        body = json.dumps(facts, indent=2).encode() + b"\n"
        await respond(exchange, sink, 200, body, content_type="application/json")

    async def _stream_events(self, sink: Sink) -> None:
        fields = ((b"Content-Type", b"text/event-stream"), (b"Cache-Control", b"no-store"))
        sink.start(ResponseHead(status=200, fields=fields, body=CHUNKED_BODY))
        for number in range(EVENT_COUNT):
            sink.write(b"data: event %d from %s\n\n" % (number, self._name.encode()))
            await sink.flush()
            await trio.sleep(1)
        await sink.end()
