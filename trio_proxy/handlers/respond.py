"""Whole responses for handlers and middlewares that have theirs in hand."""

from __future__ import annotations

import time
from collections.abc import Iterable

from trio_proxy.exchange.contract import Sink
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.dates import http_date
from trio_proxy.http.headers import Headers
from trio_proxy.http.messages import NO_BODY, Body, Framing, ResponseHead
from trio_proxy.http.names import HOP_BY_HOP
from trio_proxy.http.phrases import phrase_of


async def respond(
    exchange: Exchange,
    sink: Sink,
    status: int,
    body: bytes | bytearray | memoryview | str = b"",
    *,
    content_type: str = "text/plain; charset=utf-8",
    fields: Iterable[tuple[bytes | str, bytes | str]] = (),
) -> None:
    """Send one whole response; its body stays behind if the request was HEAD.

        await respond(exchange, sink, 200, "hello\\n", fields=[("Cache-Control", "no-store")])

    A text is sent as UTF-8. ``fields`` come in addition to Date and Content-Type, or in place of
    them; the framing is the proxy's to write. Where there is no body (204, 304, or an empty one of
    a redirect) there is no Content-Type. Raises ValueError for a status that does not end an
    exchange, for a body where there can be none, and for fields that are none or frame the message;
    `ProxyError` when the client has left.
    """
    data = body.encode() if isinstance(body, str) else bytes(body)
    if not 200 <= status <= 599:
        raise ValueError(f"a response has a status from 200 to 599, not {status}")
    can_have_body = status not in (204, 304)
    if data and not can_have_body:
        raise ValueError(f"a response with status {status} has no body")
    given = Headers(fields)
    if given.kinds & HOP_BY_HOP:
        raise ValueError(f"what frames a message or belongs to the connection: {given!r}")
    own = Headers()
    if "Date" not in given:
        own.add("Date", http_date(time.time()))
    if data and "Content-Type" not in given:
        own.add("Content-Type", content_type)
    own.extend(given)
    is_sent = can_have_body and exchange.method != "HEAD"
    head = ResponseHead(
        status=status,
        reason=phrase_of(status).encode(),
        fields=own,
        body=Body(Framing.LENGTH, len(data)) if is_sent else NO_BODY,
        declared_length=len(data) if can_have_body else None,
    )
    sink.start(head)
    if data and is_sent:
        sink.write(data)
    await sink.end()
