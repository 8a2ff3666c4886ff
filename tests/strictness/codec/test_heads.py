"""Heads that are written: what h11 is not shown must be as safe as what it writes itself."""

from __future__ import annotations

import pytest

from support.wire_conversation import LIMITS, head, parsed, served
from trio_proxy.codec.h1.wire import ClientWire
from trio_proxy.http.headers import Headers
from trio_proxy.http.messages import Body, Field, Framing, Request, ResponseHead
from trio_proxy.http.names import HOP_BY_HOP, REWRITTEN, TRACE_ID

HOST = (b"Host", b"example.com")
SET_ASIDE = HOP_BY_HOP | REWRITTEN | TRACE_ID
#: What h11 refuses to write, in any field.
BROKEN = [
    (b"X", b"1\r\nY: 2"),
    (b"X", b"1\rY"),
    (b"X", b"1\nY"),
    (b"X", b"\n"),
    (b"X", b"a\x00b"),
    (b"X", b"a\x0bb"),
    (b"X", b"a\x0cb"),
    (b"X\r\nY", b"1"),
    (b"X Y", b"1"),
    (b"X:", b"1"),
    (b"", b"1"),
]


def request_of(*fields: Field, request: bytes = head()) -> bytes:
    """What is sent to an upstream for that request with those fields."""
    return ClientWire(LIMITS).encode_head(parsed(request), Headers(fields), LIMITS)


def response_of(*fields: Field, length: int | None = 5) -> bytes:
    """What is sent to a client for a 200 with those fields."""
    body = Body(Framing.CHUNKED) if length is None else Body(Framing.LENGTH, length)
    response = ResponseHead(200, fields, b"OK", body=body, declared_length=length)
    return served().encode_head(response, keep_alive=True)


@pytest.mark.parametrize("field", BROKEN)
@pytest.mark.parametrize("others", [(), ((b"A", b"1"),), ((b"Connection", b"close"),)])
def test_a_field_that_would_be_read_as_something_else_is_never_sent(
    field: Field, others: tuple[Field, ...]
) -> None:
    """The second line of defence: nothing like it comes from the wire."""
    with pytest.raises(Exception, match="Illegal header"):
        request_of(HOST, *others, field)
    with pytest.raises(Exception, match="Illegal header"):
        response_of(*others, field)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(b"X", b"1")],
        [HOST, (b"host", b"other")],
        [HOST, (b"Content-Length", b"5"), (b"Content-Length", b"6")],
        [HOST, (b"Transfer-Encoding", b"gzip")],
        [(b"Host", b"a\r\nX: 1")],
    ],
)
def test_what_h11_refuses_of_framing_and_host_it_is_still_asked_about(fields: list[Field]) -> None:
    """No Host, two of them, contradictory lengths, unknown codings."""
    with pytest.raises(Exception, match=r"Host|Content-Length|Transfer-Encoding|Illegal header"):
        request_of(*fields)


def test_a_host_that_is_not_in_front_is_put_there() -> None:
    """As h11 does (RFC 9110 §7.2)."""
    sent = request_of((b"X", b"1"), HOST, (b"Y", b"2"))
    assert sent == b"GET / HTTP/1.1\r\nHost: example.com\r\nX: 1\r\nY: 2\r\n\r\n"


def test_a_handler_that_writes_framing_of_its_own_is_held_to_it() -> None:
    """Never two kinds of framing in one head."""
    sent = response_of((b"A", b"1"), (b"Content-Length", b"2"), (b"B", b"2"), length=None)
    assert sent == b"HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 2\r\nB: 2\r\n\r\n"
    with pytest.raises(Exception, match="conflicting Content-Length"):
        response_of((b"content-length", b"2"), length=5)


def test_fields_stand_between_the_first_line_and_the_framing() -> None:
    """In the order in which they were given, with their letter case, empty values and all."""
    fields = ((b"x-B", b"1"), (b"X-a", b""), (b"X-b", b"Host: stand-in"), (b"y", b"caf\xe9\t;"))
    block = b"x-B: 1\r\nX-a: \r\nX-b: Host: stand-in\r\ny: caf\xe9\t;\r\n"
    sent = request_of(HOST, *fields, request=head(b"Transfer-Encoding: chunked"))
    first = b"GET / HTTP/1.1\r\nHost: example.com\r\n"
    assert sent == first + block + b"Transfer-Encoding: chunked\r\n\r\n"
    assert response_of(*fields) == b"HTTP/1.1 200 OK\r\n" + block + b"Content-Length: 5\r\n\r\n"


def relayed(request: Request) -> bytes:
    """What is sent to an upstream of what was read, with a Via behind it."""
    fields = request.fields.without(SET_ASIDE)
    fields.put_host(b"example.com")
    fields.add(b"Via", b"1.1 proxy")
    return ClientWire(LIMITS).encode_head(request, fields, LIMITS)


def test_fields_that_go_on_are_written_in_one_form() -> None:
    """A colon, one blank and the bare value, between those that the proxy says itself."""
    read = parsed(
        head(b"A:1", b"b:\t 2 \t", b"C: caf\xe9", b"D:", b"Cookie: x: y", b"TE: trailers")
    )
    sent = b"A: 1\r\nb: 2\r\nC: caf\xe9\r\nD: \r\nCookie: x: y\r\nVia: 1.1 proxy\r\n"
    assert relayed(read) == b"GET / HTTP/1.1\r\nHost: example.com\r\n" + sent + b"\r\n"


def test_what_is_not_simply_passed_on_is_not_among_the_lines() -> None:
    """With nothing to pass on there is no empty line either, which would end the head."""
    read = parsed(head(b"Connection: keep-alive", b"X-Trace-ID: 1"))
    sent = b"GET / HTTP/1.1\r\nHost: example.com\r\nVia: 1.1 proxy\r\n\r\n"
    assert relayed(read) == sent


def test_a_first_line_that_h11_would_not_write_is_refused() -> None:
    """It checks the method and the target of every request."""
    for name, value in (("method", b"G T"), ("target", b"/a b"), ("target", b"/\r\nX: 1")):
        request = parsed(head())
        setattr(request, name, value)
        with pytest.raises(Exception, match="Illegal"):
            ClientWire(LIMITS).encode_head(request, Headers([HOST, (b"A", b"1")]), LIMITS)
