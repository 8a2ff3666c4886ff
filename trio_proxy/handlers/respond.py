"""Whole responses for handlers and middlewares that have theirs in hand."""

from __future__ import annotations

import http
import time

from trio_proxy.exchange.contract import Sink
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.dates import http_date
from trio_proxy.http.messages import NO_BODY, Body, Fields, Framing, ResponseHead


async def respond(
    exchange: Exchange,
    sink: Sink,
    status: int,
    body: bytes | str = b"",
    *,
    content_type: str = "text/plain; charset=utf-8",
    fields: Fields = (),
) -> None:
    """Send one response of known length; its body stays behind if the request was HEAD.

    ``fields`` come in addition to Date and Content-Type. A text is sent as UTF-8. Raises ValueError
    for a status that is unknown.
    """
    data = body.encode() if isinstance(body, str) else body
    own = [(b"Date", http_date(time.time())), (b"Content-Type", content_type.encode())]
    has_no_body = exchange.method == "HEAD" or status in (204, 304)
    head = ResponseHead(
        status=status,
        reason=http.HTTPStatus(status).phrase.encode(),
        fields=[*own, *fields],
        body=NO_BODY if has_no_body else Body(Framing.LENGTH, len(data)),
        declared_length=len(data),
    )
    sink.start(head)
    if data and not has_no_body:
        sink.write(data)
    await sink.end()
