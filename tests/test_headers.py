"""Which fields cross the proxy, and what it tells each side about the other."""

from __future__ import annotations

import ipaddress
import math
import re

import pytest

from trio_proxy.forwarding import HeaderRules, Origin, inherited_budget, new_trace_id, origin_of
from trio_proxy.headers import client_fields, interim_fields, upstream_fields
from trio_proxy.messages import NO_BODY, Field, Request, ResponseHead

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
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


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


def origin(request: Request, peer: str = CLIENT, rules: HeaderRules = TRUSTING) -> Origin:
    """Where the request comes from, with the trust that the rules put in the peer."""
    return origin_of(request, peer, rules, trusted=rules.trusts(peer))


def sent(
    *fields: Field,
    peer: str = CLIENT,
    rules: HeaderRules = TRUSTING,
    remaining: float = math.inf,
    **attributes: object,
) -> list[Field]:
    """What goes to the upstream."""
    request = request_with(*fields, **attributes)
    return upstream_fields(
        request,
        origin(request, peer, rules),
        rules,
        upstream_host=b"up.example:81",
        remaining_seconds=remaining,
    )


def values(fields: list[Field], name: bytes) -> list[bytes]:
    """All values of that name, which is compared as CGI would."""
    plain = name.lower().replace(b"_", b"-")
    return [value for key, value in fields if key.lower().replace(b"_", b"-") == plain]


def test_an_ordinary_request_leaves_with_host_first_and_ours_last() -> None:
    """Every field once, in a fixed order."""
    fields = sent((b"Accept", b"*/*"), (b"X-Trace-ID", b"mine"))
    trace = values(fields, b"X-Trace-ID")[0]
    assert fields == [
        (b"Host", b"example.com"),
        (b"Accept", b"*/*"),
        (b"X-Forwarded-For", b"198.51.100.9"),
        (b"X-Forwarded-Proto", b"http"),
        (b"X-Forwarded-Host", b"example.com"),
        (b"X-Real-IP", b"198.51.100.9"),
        (b"X-Trace-ID", trace),
        (b"Via", b"1.1 trio-proxy"),
    ]


@pytest.mark.parametrize(
    ("rules", "host", "expected"),
    [
        (HeaderRules(), b"example.com", b"example.com"),
        (HeaderRules(preserve_host=False), b"example.com", b"up.example:81"),
        (HeaderRules(), b"", b"up.example:81"),
    ],
)
def test_which_host_the_upstream_sees(rules: HeaderRules, host: bytes, expected: bytes) -> None:
    """The client's unless told otherwise; HTTP/1.0 may bring none. Never two."""
    assert values(sent(rules=rules, host=host), b"Host") == [expected]


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


@pytest.mark.parametrize("proto", [b"", b"ftp", b"https, http", b"https\t", b"javascript", b"ws"])
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
    assert origin(request, PROXY).client_ip == expected
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


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"a", True),
        (b"Az09._-", True),
        (b"x" * 128, True),
        (b"x" * 129, False),
        (b"", False),
        (b"a b", False),
        (b"a,b", False),
        (b"caf\xe9", False),
    ],
)
def test_a_trace_id_is_taken_over_only_if_trusted_and_harmless(value: bytes, kept: bool) -> None:
    """It goes into log lines; otherwise a new UUID is made."""
    request = request_with((b"X-Trace-ID", value))
    assert (origin(request, PROXY).trace_id.encode() == value) is kept
    assert UUID.fullmatch(origin(request, CLIENT).trace_id)


def test_new_trace_ids_are_random_uuids() -> None:
    """Version 4, variant 1, and no two alike."""
    ids = {new_trace_id() for _ in range(200)}
    assert len(ids) == 200
    assert all(UUID.fullmatch(text) for text in ids)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_via_grows_by_this_hop_with_the_version_that_was_received(version: bytes) -> None:
    """RFC 9110 §7.6.3: those before stay in front."""
    fields = sent((b"Via", b"1.1 before"), version=version)
    assert values(fields, b"Via") == [b"1.1 before", version + b" trio-proxy"]


@pytest.mark.parametrize(
    "field",
    [
        (b"Connection", b"x"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Proxy-Connection", b"keep-alive"),
        (b"Proxy-Authorization", b"Basic x"),
        (b"Proxy-Authenticate", b"Basic"),
        (b"TE", b"trailers"),
        (b"Transfer-Encoding", b"chunked"),
        (b"transfer_encoding", b"chunked"),
        (b"Upgrade", b"h2c"),
        (b"HTTP2-Settings", b"AAAA"),
        (b"Content-Length", b"5"),
        (b"content_length", b"5"),
        (b"Expect", b"100-continue"),
    ],
)
def test_what_belongs_to_one_hop_ends_here(field: Field) -> None:
    """In both directions; framing is written anew by the wire."""
    assert values(sent(field), field[0]) == []
    if field[0] != b"Expect":
        head = ResponseHead(200, [field])
        assert values(client_fields(head, "t"), field[0]) == []


def test_fields_named_by_connection_end_here_in_both_directions() -> None:
    """In any letter case, in several Connection fields, and with either kind of dash."""
    named = [
        (b"Connection", b"close, X-A"),
        (b"x-a", b"1"),
        (b"X-B", b"2"),
        (b"X_C", b"3"),
        (b"X-D", b"4"),
        (b"connection", b"x-b , x_c"),
    ]
    options = [b"close", b"x-a", b"x-b", b"x_c"]
    final = ResponseHead(200, named, options=options)
    for fields in (sent(*named, options=options), client_fields(final, "t")):
        names = [name.lower() for name, _ in fields]
        assert b"x-d" in names
        assert not {b"x-a", b"x-b", b"x_c", b"connection"} & set(names)
    hints = interim_fields(ResponseHead(103, named, options=options), "t")
    assert hints == [(b"X-D", b"4")]


def test_connection_cannot_remove_what_the_proxy_adds() -> None:
    """Else a client could hide who it is, or leave the upstream without Host."""
    names = b"host, x-forwarded-for, x-real-ip, via, content-length, x-trace-id"
    fields = sent((b"Connection", names), options=names.split(b", "))
    for name in (b"Host", b"X-Forwarded-For", b"X-Real-IP", b"Via", b"X-Trace-ID"):
        assert len(values(fields, name)) == 1


DEADLINE = HeaderRules(trusted=TRUSTING.trusted, deadline_header=b"x-deadline-ms")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1500", 1.5),
        (b"0", 0.0),
        (b"", None),
        (b"-1", None),
        (b"1.5", None),
        (b"1e3", None),
        (b"9" * 13, None),
        (b"soon", None),
    ],
)
def test_a_deadline_that_a_client_sends_is_read_in_milliseconds(
    value: bytes, seconds: float | None
) -> None:
    """What is no plain number is no deadline."""
    request = request_with((b"X-Deadline-Ms", value))
    assert inherited_budget(request, DEADLINE) == seconds
    assert inherited_budget(request, TRUSTING) is None


def test_the_upstream_is_told_what_is_left_of_the_total_budget() -> None:
    """Whatever the client said is replaced; without a budget nothing is said."""
    said = (b"X-Deadline-Ms", b"999999")
    assert values(sent(said, rules=DEADLINE, remaining=1.2345), b"x-deadline-ms") == [b"1234"]
    assert values(sent(said, rules=DEADLINE, remaining=-1.0), b"x-deadline-ms") == [b"0"]
    assert values(sent(said, rules=DEADLINE), b"x-deadline-ms") == []


def test_expect_and_upgrade_are_written_anew_if_they_were_understood() -> None:
    """They are hop-by-hop, but this hop passes the wish on."""
    fields = sent((b"Upgrade", b"x"), upgrade=b"websocket", expects_continue=True)
    assert fields[-3:] == [
        (b"Expect", b"100-continue"),
        (b"Connection", b"upgrade"),
        (b"Upgrade", b"websocket"),
    ]


def test_other_forwarded_fields_are_a_trusted_peers_alone() -> None:
    """X-Forwarded-Port and its kind pass from a trusted proxy and are dropped from anybody else."""
    fields = [(b"X-Forwarded-Port", b"8443"), (b"X_Forwarded_Prefix", b"/app")]
    assert [field for field in sent(*fields, peer=PROXY) if field in fields] == fields
    assert [field for field in sent(*fields, peer=CLIENT) if field in fields] == []
