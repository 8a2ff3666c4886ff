"""Which response heads are read, and how their bodies are delimited."""

from __future__ import annotations

import pytest

from support.wire_conversation import (
    LIMITS,
    MORE_RESPONSES,
    Heard,
    Message,
    asked,
    hear_response,
    split,
)
from trio_proxy.codec.h1.requests import HeadLimits
from trio_proxy.http.errors import ProtocolError
from trio_proxy.http.messages import CHUNKED_BODY, CLOSE_DELIMITED_BODY, NO_BODY, Body, Framing


def answer(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """A response head."""
    return b"".join(part + b"\r\n" for part in (line, *fields)) + b"\r\n"


def heard(data: bytes, way: str, method: bytes = b"GET") -> Heard:
    """What is understood, with another response behind it in one of the ways."""
    return hear_response(split(data, way, MORE_RESPONSES), method)


def first(data: bytes, way: str, method: bytes = b"GET") -> Message:
    """The first response, which must be accepted."""
    result = heard(data, way, method)
    assert result.error is None
    return result.messages[0]


def is_refused(data: bytes, way: str, method: bytes = b"GET") -> bool:
    """Whether nothing was understood."""
    result = heard(data, way, method)
    return result.error is not None and not result.messages


def test_an_ordinary_response_is_understood_field_by_field(way: str) -> None:
    """Status, reason, fields in order with their letter case, and the body by its length."""
    data = answer(b"X-B: 1", b"x-b:  2 ", b"Content-Length: 2") + b"hi"
    message = first(data, way)
    assert (message.head.status, message.head.reason) == (200, b"OK")
    expected = [(b"X-B", b"1"), (b"x-b", b"2"), (b"Content-Length", b"2")]
    assert list(message.head.fields) == expected
    assert (message.body, message.complete) == (b"hi", True)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"HTTP/1.1 404 Not  Found!", b"Not  Found!"),
        (b"HTTP/1.1 404 ", b""),
        (b"HTTP/1.1 404", b""),
        (b"HTTP/1.0 404 caf\xe9", b"caf\xe9"),
    ],
)
def test_a_reason_phrase_may_be_anything_or_missing(line: bytes, reason: bytes, way: str) -> None:
    """Too many servers leave it out, with or without the space in front of it."""
    head = first(answer(b"Content-Length: 0", line=line), way).head
    assert (head.status, head.reason) == (404, reason)


@pytest.mark.parametrize(
    "data",
    [
        answer(line=b"HTTP/1.2 200 OK"),
        answer(line=b"HTTP/2.0 200 OK"),
        answer(line=b"HTTP/0.9 200 OK"),
        answer(line=b"HTTP/9.9 200 OK"),
        answer(line=b"http/1.1 200 OK"),
        answer(line=b"HTTP/1.1  200 OK"),
        answer(line=b"HTTP/1.1 20 OK"),
        answer(line=b"HTTP/1.1 2000 OK"),
        answer(line=b"HTTP/1.1 099 OK"),
        answer(line=b"HTTP/1.1 -20 OK"),
        answer(line=b"HTTP/1.1 200\tOK"),
        answer(line=b"HTTP/1.1 200 O\x00K"),
        answer(line=b"HTTP/1.1 200 O\rK"),
        answer(line=b"HTTP/1.1 200OK"),
        answer(line=b" HTTP/1.1 200 OK"),
        answer(line=b"ICY 200 OK"),
        answer(line=b"GET / HTTP/1.1"),
        b"\r\n" + answer(),
        b"HTTP/1.1 200 OK\nX: 1\n\n",
        b"HTTP/1.1 200 OK\r\nX: 1\n\r\n",
        answer(b"X: a\rb"),
        answer(b"X: a\x00b"),
        answer(b"X: a\x0bb"),
        answer(b"X : 1"),
        answer(b" X: 1"),
        answer(b"X: 1", b" folded"),
        answer(b"no colon"),
        answer(b": nameless"),
        answer(b"caf\xe9: 1"),
    ],
)
def test_a_malformed_response_head_is_refused(data: bytes, way: str) -> None:
    """As strictly as a request head, though h11 is lenient about most of it."""
    assert is_refused(data, way)


@pytest.mark.parametrize(
    "fields",
    [
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Content-Length: 5", b"Content-Length: 5"),
        (b"Content-Length: 5", b"Content-Length: 6"),
        (b"Content-Length: 5, 5",),
        (b"Content-Length: +5",),
        (b"Content-Length: -1",),
        (b"Content-Length: 0x5",),
        (b"Content-Length: ",),
        (b"Content-Length: " + b"1" * 19,),
        (b"Transfer-Encoding: gzip",),
        (b"Transfer-Encoding: gzip, chunked",),
        (b"Transfer-Encoding: chunked, chunked",),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: identity",),
        (b"Transfer-Encoding: ",),
    ],
)
@pytest.mark.parametrize("line", [b"HTTP/1.1 200 OK", b"HTTP/1.1 304 Not Modified"])
def test_a_response_whose_framing_is_ambiguous_or_unknown_is_refused(
    fields: tuple[bytes, ...], line: bytes, way: str
) -> None:
    """Also where no body follows: such a peer cannot be trusted with the next one."""
    assert is_refused(answer(*fields, line=line), way)


def test_transfer_encoding_in_an_http_1_0_response_is_refused(way: str) -> None:
    """RFC 9112 §6.1."""
    assert is_refused(answer(b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK"), way)


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ((b"Content-Length: 5",), Body(Framing.LENGTH, 5)),
        ((b"Content-Length: 0",), Body(Framing.LENGTH, 0)),
        ((b"Transfer-Encoding: Chunked",), CHUNKED_BODY),
        ((), CLOSE_DELIMITED_BODY),
    ],
)
def test_how_a_body_is_delimited(fields: tuple[bytes, ...], body: Body) -> None:
    """By its length, by chunks, or by the end of the connection (RFC 9112 §6.3)."""
    assert first(answer(*fields), "whole").head.body == body


@pytest.mark.parametrize("fields", [(), (b"Content-Length: 5",), (b"Transfer-Encoding: chunked",)])
@pytest.mark.parametrize(
    ("method", "line"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK"),
        (b"HEAD", b"HTTP/1.1 404 Not Found"),
        (b"GET", b"HTTP/1.1 204 No Content"),
        (b"GET", b"HTTP/1.1 304 Not Modified"),
        (b"GET", b"HTTP/1.1 103 Early Hints"),
    ],
)
def test_some_responses_have_no_body_whatever_their_head_says(
    method: bytes, line: bytes, fields: tuple[bytes, ...], way: str
) -> None:
    """An answer to HEAD, 1xx, 204 and 304: what follows is the next response."""
    message = first(answer(*fields, line=line), way, method)
    assert message.head.body == NO_BODY
    assert (message.body, message.complete) == (b"", True)


def test_an_answer_to_head_still_tells_the_length_it_would_have() -> None:
    """For relaying, as does a 304."""
    data = answer(b"Content-Length: 5")
    assert first(data, "whole", b"HEAD").head.declared_length == 5
    not_modified = answer(b"Content-Length: 5", line=b"HTTP/1.1 304 Not Modified")
    assert first(not_modified, "whole").head.declared_length == 5


@pytest.mark.parametrize(
    ("line", "fields", "expected"),
    [
        (b"HTTP/1.1 200 OK", (), True),
        (b"HTTP/1.1 200 OK", (b"Connection: Close",), False),
        (b"HTTP/1.1 200 OK", (b"Connection: x", b"Connection: close"), False),
        (b"HTTP/1.0 200 OK", (), False),
        (b"HTTP/1.0 200 OK", (b"Connection: keep-alive",), True),
    ],
)
def test_whether_the_upstream_keeps_the_connection(
    line: bytes, fields: tuple[bytes, ...], expected: bool
) -> None:
    """The same rule as for clients."""
    data = answer(b"Content-Length: 0", *fields, line=line)
    assert first(data, "whole").head.keep_alive is expected


@pytest.mark.parametrize("in_pieces", [False, True])
def test_a_response_head_over_the_limit_is_refused(in_pieces: bool) -> None:
    """Complete in one read or still growing; exactly the limit passes."""
    limits = HeadLimits(head_bytes=256, fields=100, target_bytes=64)
    room = 256 - len(answer(b"Content-Length: 0", b"X: "))
    for extra, verdict in ((0, False), (1, True)):
        data = answer(b"Content-Length: 0", b"X: " + b"a" * (room + extra))
        pieces = split(data, "byte_by_byte" if in_pieces else "whole", b"")
        assert (hear_response(pieces, limits=limits).error is not None) is verdict


def test_too_many_response_fields_are_refused(way: str) -> None:
    """As many as the limit pass."""
    lines = [b"X: 1"] * (LIMITS.fields - 1)
    assert first(answer(b"Content-Length: 0", *lines), way).complete
    assert is_refused(answer(b"Content-Length: 0", *lines, b"X: 1"), way)


def test_switching_protocols_without_having_been_asked_to_is_refused() -> None:
    """RFC 9110 §15.2.2: nobody listens for another protocol."""
    wire = asked()
    wire.feed(answer(b"Connection: upgrade", b"Upgrade: x", line=b"HTTP/1.1 101 Switch"))
    with pytest.raises(ProtocolError):
        wire.next_response()
