"""Whom the proxy believes, and what it says about where a request came from.

Forwarding fields (X-Forwarded-*, Forwarded, X-Real-IP, X-Trace-ID, the deadline header) are
believed only if the peer is a trusted proxy.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from typing import TypeAlias

from trio_proxy.http.client import Client
from trio_proxy.http.messages import Request

IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

#: The pseudonym in Via and Proxy-Status (RFC 9110 §7.6.3).
PROXY_NAME = b"trio-proxy"

_TRACE_ID = re.compile(rb"[A-Za-z0-9._\-]{1,128}")
_MILLISECONDS = re.compile(rb"[0-9]{1,12}")
#: gRPC over HTTP/2, "Requests": at most eight digits and a unit.
_GRPC_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_GRPC_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MAX_GRPC_NUMBER = 99_999_999


class HeaderRules:
    """The ``[headers]`` table in the shape that the hot path wants; it is never changed.

    ``trusted`` are the networks whose forwarding fields are believed; ``trusts_unix`` the same for
    clients on unix sockets. ``deadline_header`` is a field name, empty for none.
    """

    __slots__ = (
        "deadline_header",
        "deadline_key",
        "expose_upstream",
        "forwarded",
        "preserve_host",
        "trusted",
        "trusts_unix",
    )

    def __init__(
        self,
        *,
        trusted: Sequence[IPNetwork] = (),
        trusts_unix: bool = False,
        forwarded: bool = False,
        preserve_host: bool = True,
        deadline_header: bytes = b"",
        expose_upstream: bool = False,
    ) -> None:
        self.trusted = trusted
        self.trusts_unix = trusts_unix
        self.forwarded = forwarded
        self.preserve_host = preserve_host
        self.deadline_header = deadline_header
        self.expose_upstream = expose_upstream
        #: The deadline header's name as names are compared.
        self.deadline_key = deadline_header.lower()

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


#: The variant's digit of a UUID (RFC 9562 §4.1) for a random one.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def new_trace_id() -> str:
    """A random UUID (version 4, RFC 9562); cheaper than `uuid.uuid4` by the object it builds."""
    text = os.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:]}"


def client_of(request: Request, peer: str, rules: HeaderRules, *, trusted: bool) -> Client:
    """Who sent this, believing forwarding fields only if the peer is ``trusted``."""
    here = peer.encode()
    if not trusted:
        return Client(peer, here, b"http", request.host, is_trusted=False)
    chain = [
        hop.strip(b" \t")
        for value in request.fields.get_all(b"x-forwarded-for")
        for hop in value.split(b",")
        if hop.strip(b" \t")
    ]
    scheme = request.fields.get(b"x-forwarded-proto", b"").lower()
    return Client(
        _nearest_untrusted(chain, peer, rules),
        b", ".join([*chain, here]),
        scheme if scheme in (b"http", b"https") else b"http",
        request.fields.get(b"x-forwarded-host") or request.host,
        is_trusted=True,
    )


def trace_id_of(request: Request, *, trusted: bool) -> str:
    """The trace id that a ``trusted`` peer has sent, or else a new one."""
    if trusted:
        trace_id = request.fields.get(b"x-trace-id", b"")
        if _TRACE_ID.fullmatch(trace_id):
            return trace_id.decode()
    return new_trace_id()


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
    """Seconds that a trusted peer's deadline header or ``grpc-timeout`` leaves, or None."""
    grpc = _grpc_budget(request.fields.get(b"grpc-timeout"))
    value = request.fields.get(rules.deadline_key) if rules.deadline_header else None
    if value is None or _MILLISECONDS.fullmatch(value) is None:
        return grpc
    own = int(value) / 1000
    return own if grpc is None else min(own, grpc)


def _grpc_budget(value: bytes | None) -> float | None:
    found = _GRPC_TIMEOUT.fullmatch(value) if value is not None else None
    return int(found[1]) * _GRPC_UNITS[found[2]] if found else None


def grpc_timeout(seconds: float) -> bytes:
    """A number of seconds as ``grpc-timeout`` has it, in the finest unit that it fits into."""
    for unit in (b"u", b"m", b"S", b"M"):
        if seconds / _GRPC_UNITS[unit] <= _MAX_GRPC_NUMBER:
            return b"%d%s" % (seconds / _GRPC_UNITS[unit], unit)
    return b"%dH" % min(seconds / 3600, _MAX_GRPC_NUMBER)


def forwarded_element(client: Client) -> bytes:
    """One RFC 7239 element for this hop; an IPv6 address and a host with a port need quotes."""
    address = client.forwarded_for.rpartition(b" ")[2]
    node = b'"[%s]"' % address if address.count(b":") > 1 else address
    if address == b"unix:":
        node = b"unknown"
    element = b"for=%s;proto=%s" % (node, client.scheme)
    if client.host:
        host = client.host.replace(b"\\", b"").replace(b'"', b"")
        element += b';host="%s"' % host
    return element
