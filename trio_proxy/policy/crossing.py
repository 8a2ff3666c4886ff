"""Which header fields go on to the next hop, and which ones the proxy writes itself.

Hop-by-hop fields end here (RFC 9110 §7.6.1), and so does every forwarding field that a client
without our trust sent: a field that an upstream may believe is either from a trusted proxy or
from us. What a name means, `trio_proxy.http.names` tells; heads that come from the wire are sorted
by it already (`SortedFields`), so for most of them there is nothing left to decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from trio_proxy.http.client import Client
from trio_proxy.http.dates import http_date
from trio_proxy.http.headers import RelayedFields, SortedFields
from trio_proxy.http.messages import Field, Fields, Request, ResponseHead, first_value
from trio_proxy.http.names import (
    DATE,
    FORWARDING,
    GRPC_TIMEOUT,
    HOP_BY_HOP,
    REWRITTEN,
    TRACE_ID,
    key_of,
    kinds_of,
)
from trio_proxy.policy.forwarding import (
    PROXY_NAME,
    HeaderRules,
    forwarded_element,
    grpc_timeout,
)

_NOT_IN_TRAILERS = HOP_BY_HOP | TRACE_ID | REWRITTEN | FORWARDING

#: Frames, routes, authorises or modifies a message, so it must come before the body.
_NEVER_IN_TRAILERS = frozenset(
    (
        b"authorization",
        b"cookie",
        b"set-cookie",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"trailer",
        b"cache-control",
        b"max-forwards",
        b"range",
        b"via",
    )
)


def upstream_fields(
    request: Request,
    client: Client,
    rules: HeaderRules,
    *,
    trace_id: str,
    upstream_host: bytes,
    remaining_seconds: float,
) -> Fields:
    """The fields of the request that goes to the upstream, without the framing field."""
    host = request.host if rules.preserve_host and request.host else upstream_host
    own: list[Field] = [
        (b"Host", host),
        (b"X-Forwarded-For", client.forwarded_for),
        (b"X-Forwarded-Proto", client.scheme),
    ]
    if client.host:
        own.append((b"X-Forwarded-Host", client.host))
    own += (
        (b"X-Real-IP", client.address.encode()),
        (b"X-Trace-ID", trace_id.encode()),
        _via(request.version),
    )
    if rules.forwarded:
        own.append((b"Forwarded", forwarded_element(client)))
    if rules.deadline_header and not math.isinf(remaining_seconds):
        milliseconds = max(0, int(remaining_seconds * 1000))
        own.append((rules.deadline_header, b"%d" % milliseconds))
    if request.expects_continue:
        own.append((b"Expect", b"100-continue"))
    if request.upgrade:
        own += ((b"Connection", b"upgrade"), (b"Upgrade", request.upgrade))
    read = request.fields
    unusual = GRPC_TIMEOUT | FORWARDING if client.is_trusted else GRPC_TIMEOUT
    if isinstance(read, SortedFields) and not (
        read.kinds & unusual or rules.deadline_key or _declared_hop_by_hop(request.options)
    ):
        return RelayedFields(read, own, 1)
    crossing = _crossing(request, client, rules, remaining_seconds)
    return [own[0], *crossing, *own[1:]]


def _crossing(
    request: Request, client: Client, rules: HeaderRules, remaining_seconds: float
) -> list[Field]:
    """The client's own fields that go on to the upstream."""
    dropped = _declared_hop_by_hop(request.options)
    crossing = []
    for field in request.fields:
        kinds, name = kinds_of(field[0]), key_of(field[0])
        if kinds & (HOP_BY_HOP | TRACE_ID | REWRITTEN) or name in dropped:
            continue
        if kinds & GRPC_TIMEOUT:
            # It is told anew: the upstream may believe us, so a stranger must not speak through us.
            if not math.isinf(remaining_seconds):
                crossing.append((field[0], grpc_timeout(remaining_seconds)))
                continue
            if not client.is_trusted:
                continue
        if name == rules.deadline_key or (kinds & FORWARDING and not client.is_trusted):
            continue
        crossing.append(field)
    return crossing


def _declared_hop_by_hop(options: Sequence[bytes]) -> frozenset[bytes]:
    """The fields that Connection names besides its own two options (RFC 9110 §7.6.1)."""
    if not options or options in ([b"keep-alive"], [b"close"]):
        return _NOTHING
    return frozenset(name.replace(b"_", b"-") for name in options)


_NOTHING: frozenset[bytes] = frozenset()


@lru_cache(maxsize=8)
def _via(version: bytes) -> Field:
    return (b"Via", version + b" " + PROXY_NAME)


def client_fields(head: ResponseHead, trace_id: str, now: float) -> Fields:
    """The fields of a response that goes to the client, without the framing field.

    ``now`` is in seconds since the Unix epoch, for a Date that the upstream has not sent.
    """
    own = [_via(head.version), (b"X-Trace-ID", trace_id.encode())]
    read = head.fields
    if isinstance(read, SortedFields) and not _declared_hop_by_hop(head.options):
        if head.status >= 200 and not read.kinds & DATE:
            own.insert(0, (b"Date", http_date(now)))  # RFC 9110 §6.6.1
        return RelayedFields(read, own, 0)
    fields = _without(head, HOP_BY_HOP | TRACE_ID)
    if head.status >= 200 and first_value(fields, b"date") is None:
        fields.append((b"Date", http_date(now)))
    return fields + own


def _without(head: ResponseHead, ending: int) -> list[Field]:
    """The fields of a response but for those of the kinds ``ending`` and those Connection names."""
    dropped = _declared_hop_by_hop(head.options)
    return [
        field
        for field in head.fields
        if not kinds_of(field[0]) & ending and key_of(field[0]) not in dropped
    ]


def interim_fields(head: ResponseHead, trace_id: str, now: float) -> Fields:
    """The fields of a 1xx response; a 101 keeps the two that make it one."""
    if head.status != 101:
        return _without(head, HOP_BY_HOP)
    switch = ((b"Connection", b"upgrade"), (b"Upgrade", head.upgrade))
    return [*client_fields(head, trace_id, now), *switch]


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
        if not kinds_of(field[0]) & _NOT_IN_TRAILERS
        and (name := key_of(field[0])) not in _NEVER_IN_TRAILERS
        and name not in dropped
        and name != deadline_header
    ]
