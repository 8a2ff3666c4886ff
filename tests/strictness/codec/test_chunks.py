"""Chunked bodies: what is decoded, what is refused, and where they end."""

from __future__ import annotations

import pytest

from support.wire_conversation import (
    MORE_REQUESTS,
    Message,
    head,
    hear_requests,
    hear_response,
    split,
)
from trio_proxy.codec.h1.chunks import MAX_CHUNK_LINE
from trio_proxy.codec.h1.requests import HeadLimits
from trio_proxy.http.errors import Reason

HEAD = head(b"Transfer-Encoding: chunked", method=b"POST")
SMALL = HeadLimits(head_bytes=256, fields=5, target_bytes=64)


def decoded(body: bytes, way: str, limits: HeadLimits = SMALL) -> Message:
    """The message with that body, which must be accepted and complete."""
    heard = hear_requests(split(HEAD + body, way, MORE_REQUESTS), limits)
    assert heard.error is None
    assert heard.messages[0].complete
    assert len(heard.messages) == (2 if way == "more_behind" else 1)
    return heard.messages[0]


def refusal(body: bytes, way: str, limits: HeadLimits = SMALL) -> Reason:
    """Why the body was refused; in any way it must be before its end."""
    heard = hear_requests(split(HEAD + body, way, MORE_REQUESTS), limits)
    assert [message.complete for message in heard.messages] == [False]
    assert heard.error is not None
    return heard.error.reason


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc"),
        (b"A\r\n0123456789\r\n00\r\n\r\n", b"0123456789"),
        (b"a\r\n0123456789\r\n000000000000000\r\n\r\n", b"0123456789"),
        (b"000000000000005\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
        (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
        (b"5;a\r\nhello\r\n0;b=c\r\n\r\n", b"hello"),
        (b'5;a=b;c="d;\\" e";f\r\nhello\r\n0\r\n\r\n', b"hello"),
    ],
)
def test_a_well_formed_body_is_decoded(body: bytes, content: bytes, way: str) -> None:
    """Sizes in either letter case and with leading zeros; extensions are dropped."""
    assert decoded(body, way).body == content


@pytest.mark.parametrize(
    "line",
    [
        b"5 \r\n",
        b" 5\r\n",
        b"5\t\r\n",
        b"0x5\r\n",
        b"-1\r\n",
        b"+5\r\n",
        b"\r\n",
        b"g\r\n",
        b"5g\r\n",
        b"5_0\r\n",
        b"5,5\r\n",
        b"5.0\r\n",
        b"1000000000000000\r\n",
        b"ffffffffffffffff5\r\n",
        b"0000000000000005\r\n",
        b"5;\r\n",
        b"5;=b\r\n",
        b"5;a=\r\n",
        b"5;;a\r\n",
        b'5;a="unterminated\r\n',
        b'5;a="b"c\r\n',
        b'5;a="b\x00"\r\n',
        b"5;a=b\rc\r\n",
        b"5;a=b\r\r\n",
        b"5;a\x00\r\n",
        b"5;b@d\r\n",
        b"5;a=b c\r\n",
        b"5 ;a=b\r\n",
        b"5\n",
        b"5\r",
        b"5;a=b\n",
        b"5\r\r\n",
        b"\xb2\r\n",
    ],
)
def test_a_malformed_chunk_line_is_refused(line: bytes, way: str) -> None:
    """Signs, bases, blanks, overflow, broken extensions and any line end but CRLF."""
    refusal(line + b"hello\r\n0\r\n\r\n", way)


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"5\r\nhello\n\r0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\r\nhello, world\r\n0\r\n\r\n",
        b"5\r\nhell\r\n0\r\n\r\n",
        b"5\r\nhello\r\n\r\n0\r\n\r\n",
    ],
)
def test_chunk_data_must_be_followed_by_exactly_crlf(body: bytes, way: str) -> None:
    """Older releases of h11 dropped any two bytes there (CVE-2025-43859)."""
    assert refusal(body, way) is Reason.AMBIGUOUS_FRAMING


def test_a_chunk_line_is_bounded(way: str) -> None:
    """Exactly the limit passes, one byte more does not, and an endless one stops early."""
    room = MAX_CHUNK_LINE - len(b"0;\r\n")
    assert decoded(b"0;" + b"a" * room + b"\r\n\r\n", way).body == b""
    refusal(b"0;" + b"a" * (room + 1) + b"\r\n\r\n", way)
    refusal(b"0;" + b"a" * 5000, "whole")


def test_trailers_are_read_with_their_order_and_letter_case(way: str) -> None:
    """They follow the last chunk up to an empty line."""
    message = decoded(b"1\r\na\r\n0\r\nX-B: 1\r\nx-a:  2 \r\nX-B:\r\n\r\n", way)
    assert list(message.trailers) == [(b"X-B", b"1"), (b"x-a", b"2"), (b"X-B", b"")]


@pytest.mark.parametrize(
    "trailers",
    [
        b"no colon\r\n\r\n",
        b"X : 1\r\n\r\n",
        b" X: 1\r\n\r\n",
        b"X: 1\r\n folded\r\n\r\n",
        b"X: a\x00b\r\n\r\n",
        b"X: a\rb\r\n\r\n",
        b": 1\r\n\r\n",
        b"caf\xe9: 1\r\n\r\n",
        b" \r\n\r\n",
        b"\n",
        b"\n\r\n",
        b"X: 1\n\n",
        b"X: 1\r\n\n",
        b"X: 1\n\r\n",
        b"\r\r\n\r\n",
    ],
)
def test_malformed_trailers_are_refused(trailers: bytes, way: str) -> None:
    """As strictly as header fields: a bare LF ends neither a line nor the section."""
    refusal(b"1\r\na\r\n0\r\n" + trailers, way)


@pytest.mark.parametrize("name", [b"Transfer-Encoding", b"transfer-encoding"])
def test_a_coding_behind_the_body_is_refused(name: bytes, way: str) -> None:
    """It says nothing of this body, and another reader may take it for the next one's."""
    refusal(b"1\r\na\r\n0\r\n" + name + b": chunked\r\n\r\n", way)


def test_a_bare_lf_does_not_end_a_body_in_front_of_a_hidden_request() -> None:
    """What another reader takes for trailers must not be read as a request here."""
    pieces = [HEAD + b"0\r\nX: 1\n\n", b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"]
    heard = hear_requests(pieces)
    assert len(heard.messages) == 1
    assert heard.error is not None


def test_too_many_trailers_are_refused_with_431(way: str) -> None:
    """As many as a head may have fields pass."""
    assert len(decoded(b"0\r\n" + b"X: 1\r\n" * 5 + b"\r\n", way).trailers) == 5
    assert refusal(b"0\r\n" + b"X: 1\r\n" * 6 + b"\r\n", way) is Reason.HEAD_TOO_LARGE


def trailer_section(size: int) -> bytes:
    """A section of ``size`` bytes, the empty line included."""
    return b"X: " + b"a" * (size - 7) + b"\r\n\r\n"


def test_a_trailer_section_over_the_limit_is_refused_with_431(way: str) -> None:
    """The same bound as for a head, however the bytes arrive."""
    assert decoded(b"0\r\n" + trailer_section(200), way).trailers
    assert refusal(b"0\r\n" + trailer_section(300), way) is Reason.HEAD_TOO_LARGE


def test_the_bound_on_trailers_does_not_grow_with_the_number_of_reads() -> None:
    """A section of one and a half times the limit in two reads."""
    section = trailer_section(380)
    heard = hear_requests([HEAD + b"0\r\n" + section[:200], section[200:]], SMALL)
    assert heard.error is not None
    assert heard.error.reason is Reason.HEAD_TOO_LARGE


def test_a_trailer_section_within_the_limit_is_read_however_it_arrives() -> None:
    """h11's own bound on what is incomplete, 16 KiB, must not cut it short."""
    section = trailer_section(20_000)
    for pieces in ([section], [section[:18_000], section[18_000:]]):
        heard = hear_requests([HEAD, b"0\r\n", *pieces])
        assert heard.error is None
        assert heard.messages[0].complete


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"5",
        b"5\r\n",
        b"5\r\nhel",
        b"5\r\nhello",
        b"5\r\nhello\r\n",
        b"0\r\n",
        b"0\r\nX: 1\r\n",
    ],
)
def test_a_body_that_is_cut_off_is_never_taken_for_complete(body: bytes) -> None:
    """Wherever the cut is, also right behind the last chunk."""
    request = hear_requests([HEAD + body])
    assert (request.error, request.messages[0].complete) == (None, False)
    response_head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    response = hear_response([response_head + body], eof=True)
    assert response.error is not None
    assert response.error.reason is Reason.BODY_TRUNCATED
    assert not response.messages[0].complete


def test_not_a_byte_behind_the_body_is_taken() -> None:
    """The next request is found where this one ends."""
    heard = hear_requests([HEAD + b"5\r\nhello\r\n0\r\n\r\n" + b"GET /ne"])
    assert [message.body for message in heard.messages] == [b"hello"]
    assert heard.leftover == b"GET /ne"
