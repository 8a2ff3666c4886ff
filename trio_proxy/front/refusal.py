"""The answers that the proxy makes itself: one status table, one short body, RFC 9209's field."""

from __future__ import annotations

import json
import math
import re

from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.dates import http_date
from trio_proxy.http.errors import ProxyError
from trio_proxy.http.headers import Headers
from trio_proxy.http.messages import (
    NO_BODY,
    Body,
    Field,
    Fields,
    Framing,
    Request,
    ResponseHead,
    list_members,
)
from trio_proxy.http.phrases import phrase_of
from trio_proxy.policy.forwarding import PROXY_NAME, HeaderRules

#: What a client is told to wait at least before it comes again after a 429 or 503, in seconds.
RETRY_AFTER_SECONDS = 1


def refusal(
    error: ProxyError,
    exchange: Exchange,
    request: Request | None,
    rules: HeaderRules,
    now: float,
) -> tuple[ResponseHead, bytes]:
    """The response for a failure: it names the phase and no internals.

    ``now`` is in seconds since the Unix epoch.
    """
    verdict = error.reason
    phrase = phrase_of(verdict.status)
    accept = request.fields.get(b"accept") if request is not None else None
    if accept is not None and _prefers_json(accept):
        kind = b"application/json"
        body = _json_body(verdict.status, phrase, verdict.text, error, exchange)
    else:
        kind = b"text/plain; charset=utf-8"
        body = f"{verdict.status} {phrase}: {verdict.text} (phase: {error.phase})\n".encode()
    fields: list[Field] = [
        (b"Date", http_date(now)),
        (b"Content-Type", kind),
        (b"Via", b"1.1 " + PROXY_NAME),
        (b"Proxy-Status", _proxy_status(verdict.error_type, exchange, rules)),
    ]
    if exchange.trace_id:
        fields.append((b"X-Trace-ID", exchange.trace_id.encode()))
    if verdict.status in (429, 503):
        seconds = max(RETRY_AFTER_SECONDS, math.ceil(error.retry_after))
        fields.append((b"Retry-After", b"%d" % seconds))
    if exchange.refusal_fields:
        fields += exchange.refusal_fields
    is_head = request is not None and request.method == b"HEAD"
    head = ResponseHead(
        status=verdict.status,
        reason=phrase.encode(),
        fields=_with(fields, error.fields) if error.fields else fields,
        body=NO_BODY if is_head else Body(Framing.LENGTH, len(body)),
        declared_length=len(body),
    )
    return head, body


def _with(fields: list[Field], others: Fields) -> Headers:
    """Both, the others in place of those of their names."""
    headers = Headers(fields)
    for name, _ in others:
        headers.remove(name)
    headers.extend(others)
    return headers


def _prefers_json(accept: bytes) -> bool:
    """Whether JSON is asked for by name, and text by no higher quality (RFC 9110 §12.5.1)."""
    quality = {b"json": 0.0, b"text": 0.0}
    for member in list_members(accept):
        media, *parameters = (part.strip() for part in member.split(b";"))
        weight = next((each[2:] for each in parameters if each.startswith(b"q=")), b"1")
        kind = b"json" if media.endswith((b"/json", b"+json")) else media.partition(b"/")[0]
        if kind in quality and _WEIGHT.fullmatch(weight):
            quality[kind] = max(quality[kind], float(weight))
    return 0 < quality[b"json"] >= quality[b"text"]


#: qvalue (RFC 9110 §12.4.2).
_WEIGHT = re.compile(rb"[01](?:\.[0-9]{0,3})?")


def _json_body(status: int, phrase: str, text: str, error: ProxyError, exchange: Exchange) -> bytes:
    facts = {
        "status": status,
        "title": phrase,
        "detail": text,
        "phase": str(error.phase),
        "trace_id": exchange.trace_id,
    }
    return json.dumps(facts).encode() + b"\n"


def _proxy_status(error_type: str, exchange: Exchange, rules: HeaderRules) -> bytes:
    value = b"%s; error=%s" % (PROXY_NAME, error_type.encode())
    if rules.expose_upstream and exchange.upstream:
        value += b'; next-hop="%s"' % exchange.upstream.encode()
    return value
