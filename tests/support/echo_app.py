"""An ASGI application to stand behind the proxy in tests and by hand.

    uvicorn tests.support.echo_app:app --port 9001

``/stream?n=&delay_ms=&size=`` chunks, ``/sse?n=&delay_ms=`` events, ``/slow?ms=`` answers late,
``/big?bytes=`` has a known length, ``/upload`` counts and hashes what it is sent, ``/status/NNN``
answers with that status and reads no body, ``/cut`` ends a response before its declared length,
``/ws`` echoes WebSocket messages; other WebSockets are refused. Any other path echoes the request
as JSON. The standard library is all it needs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handler = Callable[[Message, dict[str, str], Receive, Send], Awaitable[None]]

#: ``/big`` is this block over and over; its parts differ, so that a swapped or lost one shows.
BLOCK = b"".join(b"%07d\n" % number for number in range(8192))

TEXT = b"text/plain; charset=utf-8"


def big_body(size: int) -> bytes:
    """What ``/big?bytes=SIZE`` sends."""
    return (BLOCK * (size // len(BLOCK) + 1))[:size]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """The application: ASGI 3, HTTP and WebSocket and lifespan."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "websocket":
        await _websocket(scope, receive, send)
    else:
        query = dict(parse_qsl(scope["query_string"].decode()))
        first = scope["path"].split("/")[1]
        await HANDLERS.get(first, _echo)(scope, query, receive, send)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def _websocket(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    if scope["path"] != "/ws":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        data = {key: message[key] for key in ("text", "bytes") if message.get(key) is not None}
        await send({"type": "websocket.send", **data})


async def _echo(scope: Message, query: dict[str, str], receive: Receive, send: Send) -> None:
    body = b"".join([piece async for piece in _pieces(receive)])
    facts = {
        "method": scope["method"],
        "path": scope["raw_path"].decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "headers": [[_text(name), _text(value)] for name, value in scope["headers"]],
        "body": _text(body),
    }
    await _answer(send, 200, json.dumps(facts).encode(), b"application/json")


async def _stream(scope: Message, query: dict[str, str], receive: Receive, send: Send) -> None:
    size = int(query.get("size", "0"))
    await _start(send, 200, TEXT)
    for number in range(int(query.get("n", "3"))):
        line = b"piece %d\n" % number
        await _more(send, line + b"x" * max(0, size - len(line)))
        await _delay(query)
    await _more(send, b"", last=True)


async def _sse(scope: Message, query: dict[str, str], receive: Receive, send: Send) -> None:
    await _start(send, 200, b"text/event-stream")
    for number in range(int(query.get("n", "3"))):
        await _more(send, b"data: event %d\n\n" % number)
        await _delay(query)
    await _more(send, b"", last=True)


async def _slow(scope: Message, query: dict[str, str], receive: Receive, send: Send) -> None:
    await asyncio.sleep(int(query.get("ms", "100")) / 1000)
    await _answer(send, 200, b"slow\n")


async def _big(scope: Message, query: dict[str, str], receive: Receive, send: Send) -> None:
    left = int(query.get("bytes", "1048576"))
    await _start(send, 200, b"application/octet-stream", length=left)
    while left:
        piece = BLOCK[:left]
        left -= len(piece)
        await _more(send, piece)
    await _more(send, b"", last=True)


async def _upload(scope: Message, query: dict[str, str], receive: Receive, send: Send) -> None:
    digest, count = hashlib.sha256(), 0
    async for piece in _pieces(receive):
        digest.update(piece)
        count += len(piece)
    facts = {"bytes": count, "sha256": digest.hexdigest()}
    await _answer(send, 200, json.dumps(facts).encode(), b"application/json")


async def _status(scope: Message, query: dict[str, str], receive: Receive, send: Send) -> None:
    status = int(scope["path"].split("/")[2])
    await _answer(send, status, b"" if status in (204, 304) else b"status %d\n" % status)


async def _cut(scope: Message, query: dict[str, str], receive: Receive, send: Send) -> None:
    """Promise 1000 bytes and end after 10: the server then closes the connection."""
    await _start(send, 200, TEXT, length=1000)
    await _more(send, b"0123456789")


HANDLERS: dict[str, Handler] = {
    "stream": _stream,
    "sse": _sse,
    "slow": _slow,
    "big": _big,
    "upload": _upload,
    "status": _status,
    "cut": _cut,
}


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


async def _delay(query: dict[str, str]) -> None:
    await asyncio.sleep(int(query.get("delay_ms", "0")) / 1000)


async def _answer(send: Send, status: int, body: bytes, kind: bytes = TEXT) -> None:
    await _start(send, status, kind, length=len(body) if status not in (204, 304) else None)
    await _more(send, body, last=True)


async def _start(send: Send, status: int, kind: bytes, length: int | None = None) -> None:
    headers = [(b"content-type", kind)]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _more(send: Send, body: bytes, *, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": not last})


def _text(data: bytes) -> str:
    return data.decode("latin-1")
