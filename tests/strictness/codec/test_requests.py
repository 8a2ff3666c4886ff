"""Which request heads are read, and what is understood by them."""

from __future__ import annotations

import pytest

from support.wire_conversation import HOST, first, head, parsed, refusal
from trio_proxy.http.errors import Reason
from trio_proxy.http.messages import CHUNKED_BODY, NO_BODY, Body, Framing


def test_an_ordinary_request_is_understood_field_by_field(way: str) -> None:
    """Method, target, version, and the fields with their order, letter case and repeats."""
    data = b"GET /a?b=c HTTP/1.1\r\nhOsT: example.com:8080\r\nX-B:  1 \t\r\nx-a:\r\nX-B: 2\r\n\r\n"
    request = first(data, way).head
    assert (request.method, request.target, request.version) == (b"GET", b"/a?b=c", b"1.1")
    assert request.host == b"example.com:8080"
    expected = [(b"hOsT", b"example.com:8080"), (b"X-B", b"1"), (b"x-a", b""), (b"X-B", b"2")]
    assert list(request.fields) == expected
    assert (request.body, request.keep_alive) == (NO_BODY, True)


def test_values_may_hold_tabs_and_bytes_above_ascii(way: str) -> None:
    """RFC 9110 §5.5: obs-text and inner white space belong to the value."""
    request = first(head(b"X: a\t b\xff\xe9"), way).head
    assert (b"X", b"a\t b\xff\xe9") in list(request.fields)


@pytest.mark.parametrize(
    "data",
    [
        head(b"X: a\rb"),
        head(b"X: a\r"),
        b"GET / HTTP/1.1\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: example.com\n\r\n",
        b"GET / HTTP/1.1\r\nHost: example.com\n\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: a\nY: b\r\n\r\n",
        b"GET / HTTP/1.1\r\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"\n\r\n",
        b"\nGET / HTTP/1.1\r\n" + HOST + b"\r\n",
        head(target=b"/a\rb"),
    ],
)
def test_a_bare_cr_or_lf_in_a_head_is_refused(data: bytes, way: str) -> None:
    """Line ends are CRLF and nothing else."""
    assert refusal(data, way) is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize("code", [*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F])
@pytest.mark.parametrize("place", ["name", "value", "target", "method"])
def test_a_control_character_anywhere_in_a_head_is_refused(code: int, place: str) -> None:
    """NUL and every other control but tab."""
    bad = b"a%cb" % code
    data = {
        "name": head(bad + b": 1"),
        "value": head(b"X: " + bad),
        "target": head(target=b"/" + bad),
        "method": head(method=bad),
    }[place]
    for how in ("whole", "byte_by_byte", "more_behind"):
        assert refusal(data, how) is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize(
    "data",
    [
        head(b" folded"),
        head(b"X: 1", b"\tfolded: 2"),
        head(b"X : 1"),
        head(b"X\t: 1"),
        b"GET / HTTP/1.1\r\n Host: example.com\r\n\r\n",
        head(b": nameless"),
        head(b"no colon"),
        head(b"b@d: 1"),
        head(b"caf\xe9: 1"),
        head(b'"q": 1'),
    ],
)
def test_a_malformed_field_line_is_refused(data: bytes, way: str) -> None:
    """Folded lines, white space in front of the colon or the name, and names that are no tokens."""
    assert refusal(data, way) is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize(
    "line",
    [
        b"GET /",
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"G@T / HTTP/1.1",
        b"GET /caf\xe9 HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/01.1",
        b"GET / HTTP/1.01",
        b"GET / HTTP/1",
        b"GET / HTTP/1.1.1",
        b"GET / HTTP/ 1.1",
        b"GET / HTTPS/1.1",
        b"GET / HTTP/x.1",
        b"HTTP/1.1 200 OK",
    ],
)
def test_a_malformed_request_line_is_refused(line: bytes, way: str) -> None:
    """One space between the parts, an upper-case HTTP, one digit on each side of the dot."""
    assert refusal(line + b"\r\n" + HOST + b"\r\n", way) is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize("version", [b"0.9", b"1.2", b"1.9", b"2.0", b"3.0", b"9.9", b"0.0"])
def test_a_version_other_than_1_0_and_1_1_is_refused_with_505(version: bytes, way: str) -> None:
    """Also those that h11 would take, as HTTP/9.9."""
    assert refusal(head(version=b"HTTP/" + version), way) is Reason.VERSION_NOT_SUPPORTED


@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE"])
def test_connect_and_trace_are_refused_with_501(method: bytes, way: str) -> None:
    """A reverse proxy opens no tunnels and echoes no credentials."""
    assert refusal(head(method=method), way) is Reason.METHOD_NOT_SUPPORTED


def test_connect_in_authority_form_is_refused_with_501(way: str) -> None:
    """The method is judged before the form of its target."""
    data = head(method=b"CONNECT", target=b"example.com:443")
    assert refusal(data, way) is Reason.METHOD_NOT_SUPPORTED


def test_an_unknown_method_is_accepted_as_it_is(way: str) -> None:
    """Methods are case-sensitive tokens; which ones exist is the upstream's business."""
    assert first(head(method=b"purge-All!"), way).head.method == b"purge-All!"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"5, 5",
        b"5,5",
        b"+5",
        b"-1",
        b"-0",
        b"0x5",
        b"5 5",
        b"5.0",
        b"five",
        b"1_000",
        b"1" * 19,
        b"1" * 400,
        b"5;",
        b'"5"',
        b"\xb2",
    ],
)
def test_a_content_length_that_is_not_one_plain_number_is_refused(value: bytes, way: str) -> None:
    """Lists, signs, bases, blanks and lengths beyond 18 digits."""
    data = head(b"Content-Length: " + value, method=b"POST")
    assert refusal(data, way) is Reason.AMBIGUOUS_FRAMING


@pytest.mark.parametrize("second", [b"5", b"6", b"05"])
def test_a_repeated_content_length_is_refused_even_if_it_agrees(second: bytes, way: str) -> None:
    """RFC 9112 §6.3 lets equal ones be folded; refusing is the other choice that it gives."""
    data = head(b"Content-Length: 5", b"content-length: " + second)
    assert refusal(data, way) is Reason.AMBIGUOUS_FRAMING


def test_the_largest_content_length_is_understood() -> None:
    """18 digits, and leading zeros do not change the number."""
    assert parsed(head(b"Content-Length: " + b"9" * 18)).body.length == 10**18 - 1
    assert parsed(head(b"Content-Length: 005")).body == Body(Framing.LENGTH, 5)


@pytest.mark.parametrize(
    "fields",
    [
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        (b"Transfer-Encoding: chunked", b"Content-Length: 0"),
        (b"Transfer-Encoding: gzip", b"Content-Length: 5"),
        (b"transfer-ENCODING: chunked", b"content-LENGTH: 5"),
    ],
)
def test_content_length_beside_transfer_encoding_is_refused_though_h11_relays_both(
    fields: tuple[bytes, ...], way: str
) -> None:
    """Two framings in one head are how requests are smuggled."""
    assert refusal(head(*fields, method=b"POST"), way) is Reason.AMBIGUOUS_FRAMING


@pytest.mark.parametrize(
    "value", [b"gzip", b"gzip, chunked", b"deflate,chunked", b"br", b"xchunked", b"identity"]
)
def test_a_well_formed_unknown_transfer_coding_is_refused_with_501(value: bytes, way: str) -> None:
    """RFC 9112 §6.1: a coding that the server does not understand."""
    data = head(b"Transfer-Encoding: " + value, method=b"POST")
    assert refusal(data, way) is Reason.UNKNOWN_TRANSFER_CODING


@pytest.mark.parametrize(
    "fields",
    [
        (b"Transfer-Encoding: chunked, chunked",),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked;q=1",),
        (b"Transfer-Encoding: chunked, gzip",),
        (b"Transfer-Encoding: chunked,",),
        (b"Transfer-Encoding: , chunked",),
        (b"Transfer-Encoding: chunked chunked",),
        (b'Transfer-Encoding: "chunked"',),
        (b"Transfer-Encoding: ",),
        (b"Transfer-Encoding: chunked\xa0",),
    ],
)
def test_a_transfer_encoding_that_does_not_end_in_one_chunked_is_refused_with_400(
    fields: tuple[bytes, ...], way: str
) -> None:
    """The length of such a body is anybody's guess."""
    assert refusal(head(*fields, method=b"POST"), way) is Reason.AMBIGUOUS_FRAMING


def test_an_unknown_coding_in_two_fields_is_read_as_the_list_that_it_is(way: str) -> None:
    """RFC 9110 §5.3: two fields are one list, here ``gzip, chunked``."""
    data = head(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked")
    assert refusal(data, way) is Reason.UNKNOWN_TRANSFER_CODING


@pytest.mark.parametrize("value", [b"chunked", b"gzip", b"identity"])
def test_a_transfer_encoding_in_http_1_0_is_refused_though_h11_takes_it(
    value: bytes, way: str
) -> None:
    """RFC 9112 §6.1: HTTP/1.0 has none, so its framing is taken to be faulty."""
    data = head(b"Transfer-Encoding: " + value, version=b"HTTP/1.0")
    assert refusal(data, way) is Reason.AMBIGUOUS_FRAMING


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b"CHUNKED", b" \tchunked \t"])
def test_chunked_is_recognised_in_any_letter_case(value: bytes) -> None:
    """Transfer coding names are case-insensitive."""
    assert parsed(head(b"Transfer-Encoding:" + value)).body == CHUNKED_BODY
