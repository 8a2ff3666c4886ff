"""Which header fields go on to the next hop, and which ones the proxy writes itself.

Hop-by-hop fields end here (RFC 9110 §7.6.1), and so does every forwarding field that a client
without our trust sent: a field that an upstream may believe is either from a trusted proxy or
from us. The rules are about the kinds that `trio_proxy.http.names` knows of a name; `Headers` knows
which of its fields have kinds, so at the others nobody has to look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from trio_proxy.http.client import Client
from trio_proxy.http.dates import http_date
from trio_proxy.http.headers import Field, Fields, Headers
from trio_proxy.http.messages import Request, ResponseHead
from trio_proxy.http.names import (
    CONNECTION,
    DATE,
    EXPECT,
    FORWARDING,
    GRPC_TIMEOUT,
    HOP_BY_HOP,
    REWRITTEN,
    TRACE_ID,
    UPGRADE,
    VIA,
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
) -> Headers:
    """The fields of the request that goes to the upstream, without the framing field."""
    host = request.host if rules.preserve_host and request.host else upstream_host
    own = [
        b"X-Forwarded-For: " + client.forwarded_for,
        b"X-Forwarded-Proto: " + client.scheme,
        b"X-Real-IP: " + client.address.encode(),
        b"X-Trace-ID: " + trace_id.encode(),
        _via(request.version),
    ]
    if client.host:
        own.insert(2, b"X-Forwarded-Host: " + client.host)
    kinds = REWRITTEN | TRACE_ID | VIA
    if rules.forwarded:
        own.append(b"Forwarded: " + forwarded_element(client))
        kinds |= FORWARDING
    is_bounded = not math.isinf(remaining_seconds)
    if rules.deadline_header and is_bounded:
        milliseconds = max(0, int(remaining_seconds * 1000))
        own.append(b"%b: %d" % (rules.deadline_header, milliseconds))
        kinds |= kinds_of(rules.deadline_header)
    if request.expects_continue:
        own.append(b"Expect: 100-continue")
        kinds |= EXPECT
    if request.upgrade:
        own += (b"Connection: upgrade", b"Upgrade: " + request.upgrade)
        kinds |= CONNECTION | UPGRADE

    ending = HOP_BY_HOP | TRACE_ID | REWRITTEN
    if not client.is_trusted:
        # `grpc-timeout` is told anew if there is a budget: the upstream may believe us, so a
        # stranger must not speak through us.
        ending |= FORWARDING if is_bounded else FORWARDING | GRPC_TIMEOUT
    dropped = _declared_hop_by_hop(request.options)
    if rules.deadline_key:
        dropped |= {rules.deadline_key}
    fields = request.fields.without(ending, dropped)
    if is_bounded and fields.kinds & GRPC_TIMEOUT:
        fields.rewrite(GRPC_TIMEOUT, grpc_timeout(remaining_seconds))
    fields.put_host(host)
    fields.extend_lines(own, kinds)
    return fields


def _declared_hop_by_hop(options: Sequence[bytes]) -> frozenset[bytes]:
    """The fields that Connection names besides its own two options (RFC 9110 §7.6.1)."""
    if not options or options in ([b"keep-alive"], [b"close"]):
        return _NOTHING
    return frozenset(name.replace(b"_", b"-") for name in options)


_NOTHING: frozenset[bytes] = frozenset()


@lru_cache(maxsize=8)
def _via(version: bytes) -> bytes:
    return b"Via: %b %b" % (version, PROXY_NAME)


def client_fields(head: ResponseHead, trace_id: str, now: float) -> Headers:
    """The fields of a response that goes to the client, without the framing field.

    ``now`` is in seconds since the Unix epoch, for a Date that the upstream has not sent.
    """
    fields = head.fields.without(HOP_BY_HOP | TRACE_ID, _declared_hop_by_hop(head.options))
    own, kinds = [_via(head.version), b"X-Trace-ID: " + trace_id.encode()], VIA | TRACE_ID
    if head.status >= 200 and not fields.kinds & DATE:
        own.insert(0, b"Date: " + http_date(now))  # RFC 9110 §6.6.1
        kinds |= DATE
    fields.extend_lines(own, kinds)
    return fields


def interim_fields(head: ResponseHead, trace_id: str, now: float) -> Headers:
    """The fields of a 1xx response; a 101 keeps the two that make it one."""
    if head.status != 101:
        return head.fields.without(HOP_BY_HOP, _declared_hop_by_hop(head.options))
    fields = client_fields(head, trace_id, now)
    switch = [b"Connection: upgrade", b"Upgrade: " + head.upgrade]
    fields.extend_lines(switch, CONNECTION | UPGRADE)
    return fields


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
