"""What of a request crosses the proxy, for the tests of fields."""

from __future__ import annotations

import ipaddress
import math

from trio_proxy.http.client import Client
from trio_proxy.http.messages import NO_BODY, Field, Request
from trio_proxy.policy.crossing import upstream_fields
from trio_proxy.policy.forwarding import HeaderRules, client_of, trace_id_of

UNTRUSTING = HeaderRules()
TRUSTING = HeaderRules(
    trusted=(
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("fd00::/8"),
        ipaddress.ip_network("192.0.2.7/32"),
    )
)
CLIENT = "198.51.100.9"
PROXY = "10.0.0.1"


def request_with(*fields: Field, **attributes: object) -> Request:
    """A GET for example.com with these fields behind its Host."""
    facts = {
        "method": b"GET",
        "target": b"/",
        "version": b"1.1",
        "host": b"example.com",
        "fields": [(b"Host", b"example.com"), *fields],
        "body": NO_BODY,
        "keep_alive": True,
    }
    return Request(**(facts | attributes))


def client(request: Request, peer: str = CLIENT, rules: HeaderRules = TRUSTING) -> Client:
    """Where the request comes from, with the trust that the rules put in the peer."""
    return client_of(request, peer, rules, trusted=rules.trusts(peer))


def sent(
    *fields: Field,
    peer: str = CLIENT,
    rules: HeaderRules = TRUSTING,
    remaining: float = math.inf,
    **attributes: object,
) -> list[Field]:
    """What goes to the upstream."""
    request = request_with(*fields, **attributes)
    fields = upstream_fields(
        request,
        client(request, peer, rules),
        rules,
        trace_id=trace_id_of(request, trusted=rules.trusts(peer)),
        upstream_host=b"up.example:81",
        remaining_seconds=remaining,
    )
    return list(fields)


def values(fields: list[Field], name: bytes) -> list[bytes]:
    """All values of that name, which is compared as CGI would."""
    plain = name.lower().replace(b"_", b"-")
    return [value for key, value in fields if key.lower().replace(b"_", b"-") == plain]
