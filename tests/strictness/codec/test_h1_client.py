"""The proxy's side of an upstream connection: what is written and what is read back."""

from __future__ import annotations

import time

import pytest

from support.wire_conversation import (
    LIMITS,
    MORE_RESPONSES,
    asked,
    head,
    hear_response,
    joined,
    parsed,
    split,
)
from trio_proxy.codec.h1.wire import ClientWire
from trio_proxy.http.errors import ProtocolError, Reason
from trio_proxy.http.headers import Headers

HOST_FIELD = (b"Host", b"example.com")
OK = b"HTTP/1.1 200 OK\r\n"


def sending(request_head: bytes, *fields: tuple[bytes, bytes]) -> tuple[ClientWire, bytes]:
    """A wire that has written that request with those fields, and what it wrote."""
    wire = ClientWire(LIMITS)
    return wire, wire.encode_head(parsed(request_head), Headers([HOST_FIELD, *fields]), LIMITS)


@pytest.mark.parametrize(
    ("request_head", "framing"),
    [
        (head(), b""),
        (head(b"Content-Length: 5"), b"Content-Length: 5\r\n"),
        (head(b"Content-Length: 005"), b"Content-Length: 5\r\n"),
        (head(b"Content-Length: 0"), b"Content-Length: 0\r\n"),
        (head(b"Transfer-Encoding: CHUNKED"), b"Transfer-Encoding: chunked\r\n"),
    ],
)
def test_a_request_leaves_with_exactly_one_framing_field(
    request_head: bytes, framing: bytes
) -> None:
    """Written anew from what was understood; none where there is no body."""
    _, sent = sending(request_head, (b"X-A", b"1"))
    assert sent == b"GET / HTTP/1.1\r\nHost: example.com\r\nX-A: 1\r\n" + framing + b"\r\n"


def test_an_http_1_0_request_goes_on_as_http_1_1() -> None:
    """The version is that of the hop (RFC 9110 §2.5)."""
    _, sent = sending(b"GET /x HTTP/1.0\r\n\r\n")
    assert sent == b"GET /x HTTP/1.1\r\nHost: example.com\r\n\r\n"


def test_letter_case_and_order_of_fields_are_written_as_given() -> None:
    """h11 keeps the case of names."""
    _, sent = sending(head(), (b"x-B", b"1"), (b"X-a", b""), (b"X-b", b"2"))
    assert sent.split(b"\r\n")[2:5] == [b"x-B: 1", b"X-a: ", b"X-b: 2"]


def test_a_chunked_body_leaves_in_chunks_with_its_trailers() -> None:
    """Trailers go on behind the last chunk."""
    wire, _ = sending(head(b"Transfer-Encoding: chunked"))
    assert joined(wire.encode_data(b"hello")) == b"5\r\nhello\r\n"
    assert wire.encode_end([(b"X-Sum", b"1")]) == b"0\r\nX-Sum: 1\r\n\r\n"


def test_a_body_of_known_length_leaves_as_it_is_and_without_trailers() -> None:
    """h11 counts it, and would raise for the trailers."""
    wire, _ = sending(head(b"Content-Length: 5"))
    piece = memoryview(b"hello")
    assert joined(wire.encode_data(piece)) == b"hello"
    assert wire.encode_end([(b"X-Sum", b"1")]) == b""


@pytest.mark.parametrize(
    ("data", "body", "trailers"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", b"hello", []),
        (OK + b"Content-Length: 0\r\n\r\n", b"", []),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello", []),
        (
            OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n",
            b"a",
            [(b"X-Sum", b"1")],
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", []),
    ],
)
def test_a_body_is_read_to_its_end_and_not_beyond(
    data: bytes, body: bytes, trailers: list[object], way: str
) -> None:
    """What lies behind it is left over, which makes the connection unfit for another request."""
    heard = hear_response(split(data, way, MORE_RESPONSES))
    message = heard.messages[0]
    assert (message.body, list(message.trailers), message.complete) == (body, trailers, True)
    assert heard.leftover == (MORE_RESPONSES if way == "more_behind" else b"")


def test_a_body_without_framing_ends_with_the_connection(way: str) -> None:
    """All that comes is body, also what looks like another response."""
    data = OK + b"\r\nhello"
    heard = hear_response(split(data, way, MORE_RESPONSES))
    assert not heard.messages[0].complete
    heard = hear_response(split(data, way, MORE_RESPONSES), eof=True)
    assert heard.messages[0].complete
    assert heard.messages[0].body == b"hello" + (MORE_RESPONSES if way == "more_behind" else b"")


@pytest.mark.parametrize(
    "data",
    [
        OK + b"Content-Length: 5\r\n\r\n",
        OK + b"Content-Length: 5\r\n\r\nhell",
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhell",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
)
def test_a_body_that_is_cut_off_never_ends(data: bytes) -> None:
    """The client must see the truncation, so nothing may say that this was all."""
    heard = hear_response([data], eof=True)
    assert heard.error is not None
    assert heard.error.reason is Reason.BODY_TRUNCATED
    assert not heard.messages[0].complete


def test_h11_refuses_to_end_a_request_whose_body_is_short() -> None:
    """A message that was cut off cannot be completed by mistake."""
    wire, _ = sending(head(b"Content-Length: 5"))
    wire.encode_data(b"hell")
    with pytest.raises(Exception, match="Too little data"):
        wire.encode_end()


def test_early_hints_and_continue_come_before_the_final_response(way: str) -> None:
    """Interim responses are read one by one, in order."""
    data = (
        b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi"
    )
    heard = hear_response(split(data, way, MORE_RESPONSES))
    assert [message.head.status for message in heard.messages] == [103, 100, 200]
    assert list(heard.messages[0].head.fields) == [(b"Link", b"<a>")]
    assert heard.messages[-1].body == b"hi"


def test_bytes_behind_a_101_are_kept_for_the_tunnel(way: str) -> None:
    """They are the first of the other protocol and may look like anything."""
    data = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    heard = hear_response(split(data, way, b"\x00\r\n\r\ntunnel"), upgrade=b"x")
    assert heard.error is None
    assert heard.messages[0].head.upgrade == b"x"
    assert heard.leftover == (b"\x00\r\n\r\ntunnel" if way == "more_behind" else b"")


@pytest.mark.parametrize(
    ("wished", "chosen", "expected"),
    [
        (b"websocket", (b"Upgrade: WebSocket",), True),
        (b"a/1, b", (b"Upgrade: b",), True),
        (b"a, b", (b"Upgrade: b", b"Upgrade: a"), True),
        (b"a, b", (b"Upgrade: a, h2c",), False),
        (b"websocket", (b"Upgrade: h2c",), False),
        (b"websocket", (b"Upgrade: ",), False),
        (b"websocket", (), False),
        (b"", (b"Upgrade: websocket",), False),
    ],
)
def test_a_switch_is_accepted_only_to_what_was_asked_for(
    wished: bytes, chosen: tuple[bytes, ...], expected: bool, way: str
) -> None:
    """RFC 9110 §7.8; the rest is refused before a tunnel is opened."""
    lines = b"".join(line + b"\r\n" for line in (b"HTTP/1.1 101 Switching", *chosen))
    heard = hear_response(split(lines + b"\r\n", way, b"\x00"), upgrade=wished)
    assert [message.head.status for message in heard.messages] == [101] * expected
    if not expected:
        assert heard.error is not None
        assert heard.error.reason is Reason.UPGRADE_FAILED


def test_a_final_response_may_come_in_place_of_a_101() -> None:
    """The upstream may decline; then it is an ordinary exchange."""
    heard = hear_response([OK + b"Content-Length: 2\r\n\r\nhi"], upgrade=b"x")
    assert (heard.messages[0].body, heard.messages[0].complete) == (b"hi", True)


def test_an_early_answer_is_read_while_the_request_is_still_being_sent() -> None:
    """Sending can go on behind it."""
    wire, _ = sending(head(b"Content-Length: 5"))
    wire.encode_data(b"he")
    wire.feed(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    assert wire.next_response().status == 413
    assert (wire.take_body(), wire.body_complete) == (b"no", True)
    assert joined(wire.encode_data(b"llo")) == b"llo"
    assert wire.encode_end() == b""


def test_a_connection_takes_one_request_after_another() -> None:
    """Nothing of an exchange leaks into the next, not even the Upgrade that it asked for."""
    wire = asked(b"HEAD", upgrade=b"x")
    wire.feed(OK + b"Content-Length: 5\r\n\r\n")
    assert wire.next_response().status == 200
    assert wire.take_body() == b""
    wire.encode_head(parsed(head()), Headers([HOST_FIELD]), LIMITS)
    wire.encode_end()
    wire.feed(OK + b"Content-Length: 5\r\n\r\nhello")
    assert wire.next_response().status == 200
    assert (wire.take_body(), wire.body_complete) == (b"hello", True)


def test_a_request_after_an_early_answer_starts_afresh() -> None:
    """The h11 of the unfinished exchange could not start a next cycle."""
    wire, _ = sending(head(b"Content-Length: 5"))
    wire.feed(OK + b"Content-Length: 0\r\n\r\n")
    wire.next_response()
    sent = wire.encode_head(parsed(head()), Headers([HOST_FIELD]), LIMITS)
    assert sent == b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"


def test_a_response_head_of_32_kib_one_byte_at_a_time_costs_no_more_than_its_length() -> None:
    """What was looked at is not looked at again."""
    data = OK + b"X: " + b"a" * 32_000 + b"\r\n\r\n"
    started = time.process_time()
    assert len(hear_response(split(data, "byte_by_byte", b"")).messages) == 1
    assert time.process_time() - started < 1.5


def test_a_broken_chunk_in_a_response_is_an_error_where_it_breaks() -> None:
    """Never an end of the message."""
    wire = asked()
    wire.feed(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    wire.next_response()
    assert wire.take_body() == b"hello"
    wire.feed(b"oops\r\n")
    with pytest.raises(ProtocolError):
        wire.take_body()
    assert not wire.body_complete
