"""Which fields cross the proxy, and what it says of itself to each side."""

from __future__ import annotations

import re
import time

import pytest

from support.crossing import TRUSTING, request_with, sent, values
from trio_proxy.http.messages import Field, ResponseHead
from trio_proxy.policy.crossing import client_fields, interim_fields
from trio_proxy.policy.forwarding import HeaderRules, inherited_budget, new_trace_id, trace_id_of

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


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
        assert values(client_fields(head, "t", time.time()), field[0]) == []


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
    for fields in (sent(*named, options=options), client_fields(final, "t", time.time())):
        names = [name.lower() for name, _ in fields]
        assert b"x-d" in names
        assert not {b"x-a", b"x-b", b"x_c", b"connection"} & set(names)
    hints = interim_fields(ResponseHead(103, named, options=options), "t", time.time())
    assert hints == [(b"X-D", b"4")]


def test_connection_cannot_remove_what_the_proxy_adds() -> None:
    """Else a client could hide who it is, or leave the upstream without Host."""
    names = b"host, x-forwarded-for, x-real-ip, via, content-length, x-trace-id"
    fields = sent((b"Connection", names), options=names.split(b", "))
    for name in (b"Host", b"X-Forwarded-For", b"X-Real-IP", b"Via", b"X-Trace-ID"):
        assert len(values(fields, name)) == 1


def test_expect_and_upgrade_are_written_anew_if_they_were_understood() -> None:
    """They are hop-by-hop, but this hop passes the wish on."""
    fields = sent((b"Upgrade", b"x"), upgrade=b"websocket", expects_continue=True)
    assert fields[-3:] == [
        (b"Expect", b"100-continue"),
        (b"Connection", b"upgrade"),
        (b"Upgrade", b"websocket"),
    ]


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
    assert (trace_id_of(request, trusted=True).encode() == value) is kept
    assert UUID.fullmatch(trace_id_of(request, trusted=False))


def test_new_trace_ids_are_random_uuids() -> None:
    """Version 4, variant 1, and no two alike."""
    ids = {new_trace_id() for _ in range(200)}
    assert len(ids) == 200
    assert all(UUID.fullmatch(text) for text in ids)


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
