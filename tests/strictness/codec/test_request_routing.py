"""What a request head says about where it goes and what happens to its connection."""

from __future__ import annotations

import pytest

from support.wire_conversation import LIMITS, first, head, hear_requests, parsed, refusal, split
from trio_proxy.codec.h1.requests import HeadLimits, parse_request
from trio_proxy.codec.h1.responses import parse_response
from trio_proxy.http.errors import Reason

SMALL = HeadLimits(head_bytes=512, fields=5, target_bytes=64)


def plain(*lines: bytes) -> bytes:
    """A head of exactly these lines."""
    return b"".join(line + b"\r\n" for line in lines) + b"\r\n"


@pytest.mark.parametrize(
    "hosts",
    [
        (),
        (b"Host: a", b"Host: a"),
        (b"Host: a", b"host: b"),
        (b"Host:",),
        (b"Host: a b",),
        (b"Host: user@a",),
        (b"Host: a/b",),
        (b"Host: a,b",),
        (b"Host: a:port",),
        (b"Host: a:1:2",),
        (b"Host: a:123456",),
        (b"Host: [::1",),
        (b"Host: ::1",),
        (b"Host: [::1]x",),
        (b"Host: a%zz",),
        (b"Host: http://a",),
        (b"Host: caf\xe9",),
        (b"Host: a?b",),
        (b"Host: :80",),
    ],
)
def test_a_missing_repeated_or_invalid_host_is_refused(hosts: tuple[bytes, ...], way: str) -> None:
    """RFC 9112 §3.2."""
    assert refusal(plain(b"GET / HTTP/1.1", *hosts), way) is Reason.BAD_HOST


@pytest.mark.parametrize(
    "host",
    [b"a", b"a.example:8080", b"127.0.0.1", b"[::1]:80", b"[fe80::1%25eth0]", b"a_b", b"a%20b"],
)
def test_a_valid_host_is_kept_as_it_came(host: bytes, way: str) -> None:
    """Names, IPv4, and IPv6 in brackets."""
    assert first(plain(b"GET / HTTP/1.1", b"Host: " + host), way).head.host == host


def test_http_1_0_may_come_without_host(way: str) -> None:
    """The field was not invented yet."""
    assert first(plain(b"GET / HTTP/1.0"), way).head.host == b""


@pytest.mark.parametrize(
    ("target", "rewritten"),
    [
        (b"http://example.com/a?b", b"/a?b"),
        (b"HTTP://EXAMPLE.com/a", b"/a"),
        (b"https://example.com", b"/"),
        (b"http://example.com?b", b"/?b"),
        (b"http://example.com/", b"/"),
    ],
)
def test_an_absolute_form_target_is_rewritten_to_origin_form(
    target: bytes, rewritten: bytes, way: str
) -> None:
    """RFC 9112 §3.2.2 obliges a server to take it; the upstream gets what it is used to."""
    request = first(head(target=target), way).head
    assert request.target == rewritten
    assert request.host.lower() == b"example.com"


def test_an_absolute_form_target_names_the_host_of_http_1_0(way: str) -> None:
    """Where there is no Host the target is all that says it."""
    assert first(plain(b"GET http://a:81/x HTTP/1.0"), way).head.host == b"a:81"


@pytest.mark.parametrize(
    "target",
    [
        b"http://evil.example/",
        b"http://example.com:81/",
        b"http://example.com@evil.example/",
        b"http://user@example.com/",
        b"http:///a",
        b"http://?a",
        b"http://example.com\\.evil/",
    ],
)
def test_a_target_that_contradicts_the_host_is_refused(target: bytes, way: str) -> None:
    """Two authorities are two readings, and userinfo is how one is hidden."""
    assert refusal(head(target=target), way) is Reason.BAD_HOST


@pytest.mark.parametrize(
    "target",
    [
        b"example.com:80",
        b"*",
        b"**",
        b"a/b",
        b"?a",
        b"#",
        b"/a#b",
        b"http://example.com/#b",
        b"ftp://example.com/",
        b"http:/a",
        b"://example.com/",
        b"mailto:a",
    ],
)
def test_a_target_of_no_known_form_is_refused(target: bytes, way: str) -> None:
    """Origin-form and absolute-form are all that a reverse proxy can route."""
    assert refusal(head(target=target), way) is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize("target", [b"*", b"http://example.com"])
def test_options_may_ask_for_the_whole_server(target: bytes, way: str) -> None:
    """RFC 9112 §3.2.4: also an absolute-form without a path."""
    assert first(head(method=b"OPTIONS", target=target), way).head.target == b"*"


def test_one_empty_line_before_a_request_is_ignored_though_h11_refuses_it(way: str) -> None:
    """RFC 9112 §2.2: left there by clients that end a body with CRLF."""
    assert first(b"\r\n" + head(target=b"/x"), way).head.target == b"/x"


def test_an_empty_line_behind_a_request_that_closes_is_no_error(way: str) -> None:
    """h11 raises for it; here it just waits for a request that never comes."""
    heard = hear_requests(split(head(b"Connection: close") + b"\r\n", way, b""))
    assert heard.error is None
    assert len(heard.messages) == 1


def test_a_second_empty_line_before_a_request_is_refused(way: str) -> None:
    """One is a known mistake, more are a way of keeping a connection busy."""
    assert refusal(b"\r\n\r\n" + head(), way) is Reason.MALFORMED_REQUEST


def test_a_head_over_the_limit_is_refused_also_if_it_comes_in_one_read_as_h11_does_not(
    way: str,
) -> None:
    """The limit holds for complete heads as well as for growing ones."""
    data = head(b"X: " + b"a" * 1_000_000)
    if way == "byte_by_byte":
        data = data[:40_000]
    assert refusal(data, way) is Reason.HEAD_TOO_LARGE


def test_a_head_of_exactly_the_limit_is_read_and_one_byte_more_is_not(way: str) -> None:
    """The bound counts the closing empty line."""
    room = SMALL.head_bytes - len(head(b"X: "))
    fits, bursts = head(b"X: " + b"a" * room), head(b"X: " + b"a" * (room + 1))
    assert len(hear_requests(split(fits, way, b""), SMALL).messages) == 1
    error = hear_requests(split(bursts, way, b""), SMALL).error
    assert error is not None
    assert error.reason is Reason.HEAD_TOO_LARGE


def test_fields_are_counted_as_h11_does_not(way: str) -> None:
    """As many as the limit pass, one more is refused with 431."""
    lines = [b"X: 1"] * (LIMITS.fields - 1)
    assert len(first(head(*lines), way).head.fields) == LIMITS.fields
    assert refusal(head(*lines, b"X: 1"), way) is Reason.HEAD_TOO_LARGE
    assert refusal(head(*lines * 20), way) is Reason.HEAD_TOO_LARGE


def test_a_target_over_the_limit_is_refused_with_414(way: str) -> None:
    """Exactly the limit passes."""
    fits = hear_requests(split(head(target=b"/" + b"a" * 63), way, b""), SMALL)
    assert fits.error is None
    error = hear_requests(split(head(target=b"/" + b"a" * 64), way, b""), SMALL).error
    assert error is not None
    assert error.reason is Reason.TARGET_TOO_LONG


def test_an_endless_request_line_is_refused_before_it_ends() -> None:
    """No more is kept in memory than the target may have."""
    error = hear_requests([b"GET /" + b"a" * 200], SMALL).error
    assert error is not None
    assert error.reason is Reason.TARGET_TOO_LONG


def test_what_the_first_bytes_rule_out_is_refused_at_once() -> None:
    """A TLS hello on a plain port has no line end to wait for."""
    error = hear_requests([b"\x16\x03\x01\x02\x00\x01\x00"]).error
    assert error is not None
    assert error.reason is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize(
    ("version", "fields", "expected"),
    [
        (b"HTTP/1.1", (), True),
        (b"HTTP/1.1", (b"Connection: close",), False),
        (b"HTTP/1.1", (b"Connection: x, CLOSE",), False),
        (b"HTTP/1.1", (b"Connection: keep-alive", b"Connection: close"), False),
        (b"HTTP/1.0", (), False),
        (b"HTTP/1.0", (b"Connection: Keep-Alive",), True),
        (b"HTTP/1.0", (b"Connection: keep-alive, close",), False),
    ],
)
def test_whether_a_connection_may_be_kept(
    version: bytes, fields: tuple[bytes, ...], expected: bool, way: str
) -> None:
    """HTTP/1.1 unless told otherwise, HTTP/1.0 only when asked for; close always wins."""
    assert first(head(*fields, version=version), way).head.keep_alive is expected


@pytest.mark.parametrize(
    ("fields", "upgrade"),
    [
        ((b"Connection: Upgrade", b"Upgrade: websocket"), b"websocket"),
        ((b"Connection: keep-alive, upgrade", b"Upgrade: a/1", b"Upgrade: b"), b"a/1,b"),
        ((b"Upgrade: websocket",), b""),
        ((b"Connection: upgrade",), b""),
        ((b"Connection: upgrade", b"Upgrade: h2c"), b""),
        ((b"Connection: upgrade", b"Upgrade: websocket, H2C"), b""),
        ((b"Connection: upgrade", b"Upgrade: websocket", b"Upgrade: h2/1"), b""),
        ((b"Connection: upgrade", b"Upgrade: "), b""),
        ((b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 5"), b""),
        ((b"Connection: upgrade", b"Upgrade: websocket", b"Transfer-Encoding: chunked"), b""),
        ((b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 0"), b"websocket"),
    ],
)
def test_an_upgrade_is_taken_up_only_if_it_is_asked_for_safely(
    fields: tuple[bytes, ...], upgrade: bytes
) -> None:
    """Named in Connection, without a body, and never to HTTP/2: the rest is an ordinary request."""
    assert parsed(head(*fields)).upgrade == upgrade


def test_http_1_0_cannot_upgrade() -> None:
    """RFC 9110 §7.8: a server must ignore it there."""
    fields = (b"Connection: upgrade", b"Upgrade: websocket")
    assert parsed(head(*fields, version=b"HTTP/1.0")).upgrade == b""


@pytest.mark.parametrize(
    ("fields", "version", "expected"),
    [
        ((b"Expect: 100-Continue", b"Content-Length: 5"), b"HTTP/1.1", True),
        ((b"Expect: 100-continue", b"Transfer-Encoding: chunked"), b"HTTP/1.1", True),
        ((b"Expect: 100-continue",), b"HTTP/1.1", False),
        ((b"Expect: 100-continue", b"Content-Length: 0"), b"HTTP/1.1", False),
        ((b"Expect: 100-continue", b"Content-Length: 5"), b"HTTP/1.0", False),
        ((b"Expect: something", b"Content-Length: 5"), b"HTTP/1.1", False),
    ],
)
def test_whether_a_client_waits_for_100_continue(
    fields: tuple[bytes, ...], version: bytes, expected: bool
) -> None:
    """Only with a body to wait with, and only in HTTP/1.1 (RFC 9110 §10.1.1)."""
    assert parsed(head(*fields, version=version)).expects_continue is expected


def test_the_options_of_every_connection_field_are_read() -> None:
    """In lower case, in order, from fields in any letter case."""
    head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: X-A ,close\r\nconnection: x-B\r\n\r\n"
    assert parse_request(head, HeadLimits()).options == [b"x-a", b"close", b"x-b"]
    reply = b"HTTP/1.1 200 OK\r\nConnection: X-A ,close\r\nconnection: x-B\r\n\r\n"
    assert parse_response(reply, b"GET", HeadLimits()).options == [b"x-a", b"close", b"x-b"]
