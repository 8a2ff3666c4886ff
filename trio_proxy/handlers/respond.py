"""Whole responses for handlers that have theirs in hand."""

from __future__ import annotations

import http
import time

from trio_proxy.exchange.contract import Sink
from trio_proxy.http.dates import http_date
from trio_proxy.http.messages import NO_BODY, Body, Fields, Framing, Request, ResponseHead


async def respond(
    sink: Sink, request: Request, status: int, content_type: str, body: bytes, more: Fields = ()
) -> None:
    """Send one response of known length; its body stays behind if the request was HEAD."""
    fields = [(b"Date", http_date(time.time())), (b"Content-Type", content_type.encode())]
    is_head = request.method == b"HEAD"
    head = ResponseHead(
        status=status,
        reason=http.HTTPStatus(status).phrase.encode(),
        fields=[*fields, *more],
        body=NO_BODY if is_head else Body(Framing.LENGTH, len(body)),
        declared_length=len(body),
    )
    sink.start(head)
    if body and not is_head:
        sink.write(body)
    await sink.end()
