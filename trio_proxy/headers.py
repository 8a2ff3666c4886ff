"""Which header fields go on to the next hop, and which ones the proxy writes itself.

Hop-by-hop fields end here (RFC 9110 §7.6.1), and so does every forwarding field that a client
without our trust sent: a field that an upstream may believe is either from a trusted proxy or
from us. Names are compared with ``_`` read as ``-``, because CGI, WSGI and many frameworks cannot
tell ``X_Real_IP`` from ``X-Real-IP`` either.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache

from trio_proxy.forwarding import PROXY_NAME, HeaderRules, Origin, forwarded_element, grpc_timeout
from trio_proxy.messages import Field, Fields, Request, ResponseHead, first_value

#: Ends at this hop in both directions.
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    )
)

#: Written anew by the proxy: framing is decided here, Host comes first.
_REWRITTEN = frozenset(
    (
        b"content-length",
        b"host",
        b"expect",
        b"x-trace-id",
        b"x-real-ip",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
    )
)
_NEVER_IN_TRAILERS = HOP_BY_HOP | frozenset(
    (
        b"content-length",
        b"host",
        b"authorization",
        b"cookie",
        b"set-cookie",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"trailer",
        b"cache-control",
        b"expect",
        b"max-forwards",
        b"range",
        b"x-trace-id",
        b"via",
    )
)


def upstream_fields(
    request: Request,
    origin: Origin,
    rules: HeaderRules,
    *,
    upstream_host: bytes,
    remaining_seconds: float,
) -> list[Field]:
    """The fields of the request that goes to the upstream, without the framing field."""
    host = request.host if rules.preserve_host and request.host else upstream_host
    fields: list[Field] = [(b"Host", host)]
    dropped = _declared_hop_by_hop(request.options)
    for field in request.fields:
        name = field[0].lower().replace(b"_", b"-")
        if name in HOP_BY_HOP or name in _REWRITTEN or name in dropped:
            continue
        if name == b"grpc-timeout":
            # It is told anew: the upstream may believe us, so a stranger must not speak through us.
            if not math.isinf(remaining_seconds):
                fields.append((field[0], grpc_timeout(remaining_seconds)))
                continue
            if not origin.trusted:
                continue
        if name == rules.deadline_key or (
            not origin.trusted and (name.startswith(b"x-forwarded-") or name == b"forwarded")
        ):
            continue
        fields.append(field)
    fields += (
        (b"X-Forwarded-For", origin.forwarded_for),
        (b"X-Forwarded-Proto", origin.proto),
    )
    if origin.host:
        fields.append((b"X-Forwarded-Host", origin.host))
    fields += (
        (b"X-Real-IP", origin.client_ip.encode()),
        (b"X-Trace-ID", origin.trace_id.encode()),
        (b"Via", request.version + b" " + PROXY_NAME),
    )
    if rules.forwarded:
        fields.append((b"Forwarded", forwarded_element(origin)))
    if rules.deadline_header and not math.isinf(remaining_seconds):
        milliseconds = max(0, int(remaining_seconds * 1000))
        fields.append((rules.deadline_header, b"%d" % milliseconds))
    if request.expects_continue:
        fields.append((b"Expect", b"100-continue"))
    if request.upgrade:
        fields += ((b"Connection", b"upgrade"), (b"Upgrade", request.upgrade))
    return fields


def _declared_hop_by_hop(options: Sequence[bytes]) -> frozenset[bytes]:
    """The fields that Connection names besides its own two options (RFC 9110 §7.6.1)."""
    if not options or options in ([b"keep-alive"], [b"close"]):
        return _NOTHING
    return frozenset(name.replace(b"_", b"-") for name in options)


_NOTHING: frozenset[bytes] = frozenset()


def client_fields(head: ResponseHead, trace_id: str) -> list[Field]:
    """The fields of a response that goes to the client, without the framing field."""
    dropped = _declared_hop_by_hop(head.options)
    fields = [
        field
        for field in head.fields
        if (name := field[0].lower().replace(b"_", b"-")) not in HOP_BY_HOP
        and name != b"content-length"
        and name != b"x-trace-id"
        and name not in dropped
    ]
    if head.status >= 200 and first_value(fields, b"date") is None:
        fields.append((b"Date", http_date()))  # RFC 9110 §6.6.1
    fields.append((b"Via", head.version + b" " + PROXY_NAME))
    fields.append((b"X-Trace-ID", trace_id.encode()))
    return fields


def http_date() -> bytes:
    """The time of day for Date (RFC 9110 §5.6.7)."""
    return _http_date_of(int(time.time()))


@lru_cache(maxsize=1)
def _http_date_of(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


def interim_fields(head: ResponseHead, trace_id: str) -> list[Field]:
    """The fields of a 1xx response; a 101 keeps the two that make it one."""
    fields = client_fields(head, trace_id) if head.status == 101 else _end_to_end(head)
    if head.status == 101:
        fields += ((b"Connection", b"upgrade"), (b"Upgrade", head.upgrade))
    return fields


def _end_to_end(head: ResponseHead) -> list[Field]:
    dropped = _declared_hop_by_hop(head.options)
    return [
        field
        for field in head.fields
        if (name := field[0].lower().replace(b"_", b"-")) not in HOP_BY_HOP
        and name != b"content-length"
        and name not in dropped
    ]


def trailer_fields(
    trailers: Fields, options: Sequence[bytes], deadline_header: bytes = b""
) -> list[Field]:
    """The trailers that may be relayed: none that frame, route, authorise or modify a message.

    ``options`` are those of the head's Connection, which names trailers too. Source: RFC 9110
    §6.5.1 and §7.6.1.
    """
    if not trailers:
        return []
    dropped = _declared_hop_by_hop(options)
    return [
        field
        for field in trailers
        if (name := field[0].lower().replace(b"_", b"-")) not in _NEVER_IN_TRAILERS
        and name not in dropped
        and name != deadline_header
        and not name.startswith(b"x-forwarded-")
        and name not in _REWRITTEN
        and name != b"forwarded"
    ]
