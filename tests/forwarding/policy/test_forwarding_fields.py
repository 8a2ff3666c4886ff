"""Whom the upstream is told that a request comes from, and who is believed."""

from __future__ import annotations

import pytest

from support.crossing import CLIENT, PROXY, TRUSTING, UNTRUSTING, client, request_with, sent, values
from trio_proxy.policy.forwarding import HeaderRules


@pytest.mark.parametrize(
    "name",
    [
        b"X-Forwarded-For",
        b"X-Forwarded-Proto",
        b"X-Forwarded-Host",
        b"X-Forwarded-Port",
        b"X-Forwarded-Prefix",
        b"X-Real-IP",
        b"Forwarded",
        b"X-Trace-ID",
        b"x_forwarded_for",
        b"X_Forwarded-Host",
        b"X-Forwarded_Proto",
        b"X_REAL_IP",
        b"x_trace_id",
    ],
)
def test_an_untrusted_client_cannot_set_a_forwarding_field(name: bytes) -> None:
    """Nor by an underscore, which CGI and WSGI cannot tell from a hyphen."""
    fields = sent((name, b"forged"))
    assert b"forged" not in values(fields, name)
    assert len(values(fields, name)) <= 1


def test_a_trusted_proxy_is_believed_and_appended_to() -> None:
    """The chain goes on with the peer at its end; the rest is taken over."""
    fields = sent(
        (b"X-Forwarded-For", b"203.0.113.5, 198.51.100.1"),
        (b"x-forwarded-for", b"10.0.0.2"),
        (b"X-Forwarded-Proto", b"HTTPS"),
        (b"X-Forwarded-Host", b"shop.example"),
        (b"X-Trace-ID", b"abc-1"),
        peer=PROXY,
    )
    chain = b"203.0.113.5, 198.51.100.1, 10.0.0.2, 10.0.0.1"
    assert values(fields, b"X-Forwarded-For") == [chain]
    assert values(fields, b"X-Forwarded-Proto") == [b"https"]
    assert values(fields, b"X-Forwarded-Host") == [b"shop.example"]
    assert values(fields, b"X-Trace-ID") == [b"abc-1"]


@pytest.mark.parametrize("proto", [b"", b"ftp", b"https, http", b"https\tx", b"javascript", b"ws"])
def test_a_protocol_that_is_neither_http_nor_https_is_not_passed_on(proto: bytes) -> None:
    """Upstreams build links from it."""
    fields = sent((b"X-Forwarded-Proto", proto), peer=PROXY)
    assert values(fields, b"X-Forwarded-Proto") == [b"http"]


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        (b"", PROXY),
        (b"203.0.113.5", "203.0.113.5"),
        (b"203.0.113.5, 10.0.0.2", "203.0.113.5"),
        (b"1.2.3.4, 203.0.113.5, 10.0.0.2", "203.0.113.5"),
        (b"10.0.0.3, 10.0.0.2", "10.0.0.3"),
        (b"203.0.113.5, unknown, 10.0.0.2", "10.0.0.2"),
        (b"203.0.113.5, 1.2.3.4:5678", "1.2.3.4"),
        (b"[2001:db8::1]:443, 10.0.0.2:80", "2001:db8::1"),
        (b'::1%x" y', PROXY),
        (b"2001:DB8:0::1", "2001:db8::1"),
        (b"2001:db8::1, fd00::2", "2001:db8::1"),
        (b" , 203.0.113.5 ,, ", "203.0.113.5"),
        (b"203.0.113.5\xff", PROXY),
    ],
)
def test_the_real_address_is_the_nearest_that_is_no_trusted_proxy(
    chain: bytes, expected: str
) -> None:
    """Read from the right; what is no address ends the search (nginx: real_ip_recursive)."""
    request = request_with((b"X-Forwarded-For", chain))
    assert client(request, PROXY).address == expected
    fields = sent((b"X-Forwarded-For", chain), peer=PROXY)
    assert values(fields, b"X-Real-IP") == [expected.encode()]


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("10.255.255.255", True),
        ("11.0.0.1", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:11.0.0.1", False),
        ("fd12::1", True),
        ("fe80::1", False),
        ("unix:", False),
        ("not an address", False),
        ("", False),
    ],
)
def test_which_peers_are_trusted(peer: str, expected: bool) -> None:
    """Networks of both families; an IPv4-mapped address is its IPv4 address."""
    assert TRUSTING.trusts(peer) is expected
    assert UNTRUSTING.trusts(peer) is False


def test_a_unix_peer_is_trusted_only_if_said_so() -> None:
    """It has no address to be in a network."""
    forged = (b"X-Forwarded-For", b"203.0.113.5")
    fields = sent(forged, peer="unix:")
    assert values(fields, b"X-Forwarded-For") == [b"unix:"]
    fields = sent(forged, peer="unix:", rules=HeaderRules(trusts_unix=True))
    assert values(fields, b"X-Forwarded-For") == [b"203.0.113.5, unix:"]
    assert values(fields, b"X-Real-IP") == [b"203.0.113.5"]


def test_other_forwarded_fields_are_a_trusted_peers_alone() -> None:
    """X-Forwarded-Port and its kind pass from a trusted proxy and are dropped from anybody else."""
    fields = [(b"X-Forwarded-Port", b"8443"), (b"X_Forwarded_Prefix", b"/app")]
    assert [field for field in sent(*fields, peer=PROXY) if field in fields] == fields
    assert [field for field in sent(*fields, peer=CLIENT) if field in fields] == []


@pytest.mark.parametrize(
    ("peer", "host", "element"),
    [
        (CLIENT, b"example.com", b'for=198.51.100.9;proto=http;host="example.com"'),
        ("2001:db8::1", b"a:81", b'for="[2001:db8::1]";proto=http;host="a:81"'),
        ("unix:", b"", b"for=unknown;proto=http"),
    ],
)
def test_the_forwarded_element_of_this_hop_is_quoted_where_it_must(
    peer: str, host: bytes, element: bytes
) -> None:
    """RFC 7239 §4 and §6; it replaces what an untrusted client sent."""
    rules = HeaderRules(forwarded=True)
    fields = sent((b"Forwarded", b"for=1.2.3.4"), peer=peer, rules=rules, host=host)
    assert values(fields, b"Forwarded") == [element]


def test_a_trusted_forwarded_is_kept_and_appended_to_if_that_is_on() -> None:
    """A second field line is the continuation of the list."""
    earlier = (b"Forwarded", b"for=203.0.113.5")
    rules = HeaderRules(trusted=TRUSTING.trusted, forwarded=True)
    fields = sent(earlier, (b"X-Forwarded-For", b"203.0.113.5"), peer=PROXY, rules=rules)
    ours = b'for=10.0.0.1;proto=http;host="example.com"'
    assert values(fields, b"Forwarded") == [b"for=203.0.113.5", ours]
    assert values(sent(earlier, peer=PROXY), b"Forwarded") == [b"for=203.0.113.5"]


def test_a_forwarded_host_cannot_break_out_of_its_quotes() -> None:
    """Whatever a trusted proxy put into X-Forwarded-Host."""
    rules = HeaderRules(trusted=TRUSTING.trusted, forwarded=True)
    evil = (b"X-Forwarded-Host", b'a";for=1.2.3.4;x="\\')
    (element,) = values(sent(evil, peer=PROXY, rules=rules), b"Forwarded")
    assert element == b'for=10.0.0.1;proto=http;host="a;for=1.2.3.4;x="'
