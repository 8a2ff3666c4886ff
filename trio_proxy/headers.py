"""Which header fields go on to the next hop, and which ones the proxy writes itself.

Hop-by-hop fields end here (RFC 9110 §7.6.1), and so does every forwarding field that a client
without our trust sent: a field that an upstream may believe is either from a trusted proxy or
from us. Names are compared with ``_`` read as ``-``, because CGI, WSGI and many frameworks cannot
tell ``X_Real_IP`` from ``X-Real-IP`` either.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import time
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from typing import TypeAlias

import attrs
from attrs import Factory, frozen

from trio_proxy.messages import Field, Fields, Request, ResponseHead, first_value

IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

#: The pseudonym in Via and Proxy-Status (RFC 9110 §7.6.3).
PROXY_NAME = b"trio-proxy"

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

_TRACE_ID = re.compile(rb"[A-Za-z0-9._\-]{1,128}")
_MILLISECONDS = re.compile(rb"[0-9]{1,12}")


@frozen(kw_only=True)
class HeaderRules:
    """The ``[headers]`` table in the shape that the hot path wants.

    ``trusted`` are the networks whose forwarding fields are believed; ``trusts_unix`` the same for
    clients on unix sockets. ``deadline_header`` is a field name, empty for none.
    """

    trusted: Sequence[IPNetwork] = ()
    trusts_unix: bool = False
    forwarded: bool = False
    preserve_host: bool = True
    deadline_header: bytes = b""
    expose_upstream: bool = False
    #: The deadline header's name as names are compared.
    deadline_key: bytes = attrs.field(
        init=False, default=Factory(lambda self: self.deadline_header.lower(), takes_self=True)
    )

    def trusts(self, peer: str) -> bool:
        """Whether forwarding fields from a peer (an IP literal or ``unix:``) are believed."""
        if peer == "unix:":
            return self.trusts_unix
        if not self.trusted:
            return False
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self.trusted)


@frozen
class Origin:
    """Where a request came from, as it is told to the upstream and to the log."""

    client_ip: str
    trace_id: str
    forwarded_for: bytes
    proto: bytes
    host: bytes
    trusted: bool


def new_trace_id() -> str:
    """A random UUID (version 4, RFC 9562); cheaper than `uuid.uuid4` by the object it builds."""
    text = os.urandom(16).hex()
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


def origin_of(request: Request, peer: str, rules: HeaderRules, *, trusted: bool) -> Origin:
    """Who sent this, believing forwarding fields only if the peer is ``trusted``."""
    here = peer.encode()
    if not trusted:
        return Origin(peer, new_trace_id(), here, b"http", request.host, trusted=False)
    chain = [
        hop.strip(b" \t")
        for name, value in request.fields
        if name.lower() == b"x-forwarded-for"
        for hop in value.split(b",")
        if hop.strip(b" \t")
    ]
    trace_id = first_value(request.fields, b"x-trace-id") or b""
    proto = (first_value(request.fields, b"x-forwarded-proto") or b"").lower()
    return Origin(
        client_ip=_nearest_untrusted(chain, peer, rules),
        trace_id=trace_id.decode() if _TRACE_ID.fullmatch(trace_id) else new_trace_id(),
        forwarded_for=b", ".join([*chain, here]),
        proto=proto if proto in (b"http", b"https") else b"http",
        host=first_value(request.fields, b"x-forwarded-host") or request.host,
        trusted=True,
    )


def _nearest_untrusted(chain: list[bytes], peer: str, rules: HeaderRules) -> str:
    """The right-most hop that is not a trusted proxy: what nginx calls ``real_ip_recursive``."""
    nearest = peer
    for hop in reversed(chain):
        address = _address_of_hop(hop)
        if address is None:
            break
        nearest = address
        if not rules.trusts(nearest):
            break
    return nearest


def _address_of_hop(hop: bytes) -> str | None:
    """The IP literal of an X-Forwarded-For entry, which some proxies write with a port."""
    text = hop.decode("ascii", "replace")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    if "%" in text:
        return None  # a scope id can hold anything, and means nothing to another host
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def passes_through_us(request: Request) -> int:
    """How many times this request has come through a proxy of this name (RFC 9110 §7.6.3)."""
    return sum(value.count(PROXY_NAME) for value in request.via)


def inherited_budget(request: Request, rules: HeaderRules) -> float | None:
    """Seconds that a trusted peer's deadline header leaves, or None."""
    if not rules.deadline_header:
        return None
    value = first_value(request.fields, rules.deadline_key)
    if value is None or _MILLISECONDS.fullmatch(value) is None:
        return None
    return int(value) / 1000


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
        fields.append((b"Forwarded", _forwarded_element(origin)))
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


def _forwarded_element(origin: Origin) -> bytes:
    """One RFC 7239 element for this hop; an IPv6 address and a host with a port need quotes."""
    address = origin.forwarded_for.rpartition(b" ")[2]
    node = b'"[%s]"' % address if address.count(b":") > 1 else address
    if address == b"unix:":
        node = b"unknown"
    element = b"for=%s;proto=%s" % (node, origin.proto)
    if origin.host:
        host = origin.host.replace(b"\\", b"").replace(b'"', b"")
        element += b';host="%s"' % host
    return element


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
