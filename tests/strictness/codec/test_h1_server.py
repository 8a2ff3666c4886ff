"""The proxy's side of a client connection: what is read in order and what is written."""

from __future__ import annotations

import time
from typing import Any

import pytest

from support.wire_conversation import (
    LIMITS,
    MORE_REQUESTS,
    head,
    hear_requests,
    joined,
    served,
    split,
)
from trio_proxy.codec.h1.wire import ServerWire
from trio_proxy.http.errors import ProtocolError, Reason
from trio_proxy.http.messages import NO_BODY, Body, Framing, ResponseHead

HTTP10 = b"GET / HTTP/1.0\r\n\r\n"
HTTP10_KEEP = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
HEAD_REQUEST = head(method=b"HEAD")


def length(size: int) -> ResponseHead:
    """A 200 with a body of known length."""
    return ResponseHead(200, [], b"OK", body=Body(Framing.LENGTH, size), declared_length=size)


def unknown(*fields: tuple[bytes, bytes], status: int = 200) -> ResponseHead:
    """A response with a body of unknown length."""
    return ResponseHead(status, fields, b"OK", body=Body(Framing.CHUNKED))


def test_a_body_of_known_length_is_read_to_its_end_and_not_beyond(way: str) -> None:
    """What follows is the next request."""
    data = head(b"Content-Length: 5", method=b"POST") + b"hello"
    heard = hear_requests(split(data, way, MORE_REQUESTS))
    assert heard.error is None
    assert (heard.messages[0].body, heard.messages[0].complete) == (b"hello", True)
    assert len(heard.messages) == (2 if way == "more_behind" else 1)


def test_a_body_that_stops_short_is_not_complete() -> None:
    """And its end is an error."""
    wire = served(head(b"Content-Length: 5", method=b"POST"))
    wire.feed(b"hel")
    assert (wire.take_body(), wire.body_complete, wire.remaining) == (b"hel", False, 2)
    with pytest.raises(ProtocolError) as caught:
        wire.feed_eof()
    assert caught.value.reason is Reason.BODY_TRUNCATED


def test_bytes_that_bypass_the_buffer_are_counted() -> None:
    """So that the end of the body is known all the same."""
    wire = served(head(b"Content-Length: 5", method=b"POST"))
    wire.feed(b"he")
    assert wire.take_body() == b"he"
    wire.count_bypassed(3)
    assert (wire.body_complete, wire.remaining) == (True, 0)


def test_pipelined_requests_are_read_one_after_another(way: str) -> None:
    """Each with its own body; nothing is lost and nothing is read twice."""
    data = (
        head(b"Content-Length: 2", method=b"POST", target=b"/1")
        + b"hi"
        + head(target=b"/2")
        + head(b"Transfer-Encoding: chunked", method=b"POST", target=b"/3")
        + b"1\r\na\r\n0\r\n\r\n"
    )
    heard = hear_requests(split(data, way, MORE_REQUESTS))
    assert heard.error is None
    found = [(message.head.target, message.body) for message in heard.messages]
    assert found[:3] == [(b"/1", b"hi"), (b"/2", b""), (b"/3", b"a")]


def test_pipelined_bytes_stay_with_the_wire_until_the_next_cycle() -> None:
    """A request is read only when it is asked for."""
    wire = ServerWire(LIMITS)
    wire.feed(head(target=b"/1") + head(target=b"/2"))
    assert wire.next_request().target == b"/1"
    assert wire.leftover == head(target=b"/2")
    wire.start_cycle(LIMITS)
    assert wire.next_request().target == b"/2"
    assert wire.leftover == b""


def test_a_second_request_hides_behind_no_upgrade_that_was_not_taken_up() -> None:
    """h11 pauses at every Upgrade field; here it is one request like another."""
    data = head(b"Upgrade: h2c", target=b"/1") + head(b"Upgrade: x", target=b"/2")
    heard = hear_requests([data])
    assert [message.head.target for message in heard.messages] == [b"/1", b"/2"]


def test_bytes_behind_an_upgrade_request_can_be_handed_to_the_tunnel() -> None:
    """The client may speak the other protocol at once."""
    wire = ServerWire(LIMITS)
    wire.feed(head(b"Connection: upgrade", b"Upgrade: x") + b"\x00tunnel")
    assert wire.next_request().upgrade == b"x"
    fields = [(b"Connection", b"upgrade"), (b"Upgrade", b"x")]
    sent = wire.encode_interim(ResponseHead(101, fields, b"Switching"))
    assert sent == b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    assert wire.take_leftover() == b"\x00tunnel"
    assert wire.leftover == b""


def test_a_head_of_32_kib_one_byte_at_a_time_costs_no_more_than_its_length() -> None:
    """What was looked at is not looked at again: a slow sender must not cost a core."""
    data = head(b"X: " + b"a" * 32_000)
    started = time.process_time()
    assert len(hear_requests(split(data, "byte_by_byte", b"")).messages) == 1
    assert time.process_time() - started < 1.5


@pytest.mark.parametrize(
    ("request_head", "response", "keep_alive", "framing"),
    [
        (head(), length(5), True, b"Content-Length: 5\r\n"),
        (head(), length(0), True, b"Content-Length: 0\r\n"),
        (head(), unknown(), True, b"Transfer-Encoding: chunked\r\n"),
        (head(), length(5), False, b"Content-Length: 5\r\nConnection: close\r\n"),
        (HTTP10, length(5), False, b"Content-Length: 5\r\nConnection: close\r\n"),
        (HTTP10, unknown(), False, b"Connection: close\r\n"),
        (HTTP10_KEEP, length(5), True, b"Content-Length: 5\r\nConnection: keep-alive\r\n"),
    ],
)
def test_a_response_head_leaves_with_exactly_one_framing(
    request_head: bytes, response: ResponseHead, keep_alive: bool, framing: bytes
) -> None:
    """Its length, chunks, or to an HTTP/1.0 client the end of the connection."""
    sent = served(request_head).encode_head(response, keep_alive=keep_alive)
    assert sent == b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n"


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("request_head", [head(), HTTP10_KEEP])
def test_a_response_without_a_body_leaves_without_framing(status: int, request_head: bytes) -> None:
    """RFC 9110 §8.6: a 204 has no Content-Length; a 304 only the one that it would have."""
    wire = served(request_head)
    sent = wire.encode_head(ResponseHead(status, [], body=NO_BODY), keep_alive=True)
    sent += wire.encode_end()
    assert b"content-length" not in sent.lower()
    assert b"transfer-encoding" not in sent.lower()
    assert sent.endswith(b"\r\n\r\n")


def test_a_length_declared_on_204_is_dropped_and_on_304_kept() -> None:
    """The one must not have it, the other may."""
    no_content = ResponseHead(204, [], b"", body=NO_BODY, declared_length=5)
    assert served().encode_head(no_content, keep_alive=True) == b"HTTP/1.1 204 \r\n\r\n"
    not_modified = ResponseHead(304, [], b"", body=NO_BODY, declared_length=5)
    sent = served().encode_head(not_modified, keep_alive=True)
    assert sent == b"HTTP/1.1 304 \r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize("declared", [None, 5])
def test_an_answer_to_head_leaves_with_one_framing_field_and_no_body(declared: int | None) -> None:
    """The declared length, or the chunked that h11 adds where there is none."""
    wire = served(HEAD_REQUEST)
    response = ResponseHead(200, [], b"OK", body=NO_BODY, declared_length=declared)
    sent = wire.encode_head(response, keep_alive=True) + wire.encode_end()
    field = b"Transfer-Encoding: chunked" if declared is None else b"Content-Length: 5"
    assert sent == b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\n"


def test_a_chunked_response_leaves_in_chunks_with_its_trailers() -> None:
    """Each piece is one chunk, and the body of it is not copied."""
    wire = served()
    wire.encode_head(unknown(), keep_alive=True)
    piece = bytearray(b"hello")
    pieces = wire.encode_data(piece)
    assert any(part is piece for part in pieces)
    assert joined(pieces) == b"5\r\nhello\r\n"
    assert wire.encode_end([(b"X-Sum", b"1")]) == b"0\r\nX-Sum: 1\r\n\r\n"


@pytest.mark.parametrize(
    ("request_head", "response", "body"),
    [
        (HTTP10, unknown(), b"hello"),
        (HTTP10_KEEP, unknown(), b"hello"),
        (head(), length(5), b"hello"),
        (HTTP10, length(5), b"hello"),
        (HEAD_REQUEST, unknown(), b""),
    ],
)
def test_trailers_are_dropped_where_there_are_no_chunks_to_carry_them(
    request_head: bytes, response: ResponseHead, body: bytes
) -> None:
    """h11 raises for them beside a length and for HTTP/1.0; the message ends well without."""
    wire = served(request_head)
    wire.encode_head(response, keep_alive=False)
    if body:
        assert joined(wire.encode_data(body)) == body
    assert wire.encode_end([(b"X-Sum", b"1")]) == b""


def test_early_hints_do_not_make_a_client_stop_waiting_for_100() -> None:
    """A 103 and then a 100 leave as they came, and the final response still follows."""
    wire = served(head(b"Content-Length: 5", b"Expect: 100-continue", method=b"POST"))
    hints = wire.encode_interim(ResponseHead(103, [(b"Link", b"<a>")], b"Early Hints"))
    assert hints == b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
    assert wire.encode_interim(ResponseHead(100, [], b"Continue")) == (
        b"HTTP/1.1 100 Continue\r\n\r\n"
    )
    assert wire.encode_head(length(0), keep_alive=True).startswith(b"HTTP/1.1 200 OK\r\n")


def test_the_expectation_survives_any_interim_response_as_in_h11_it_does_not() -> None:
    """It is a fact of the request, kept there, and not a state that a 103 can clear."""
    wire = ServerWire(LIMITS)
    wire.feed(head(b"Content-Length: 5", b"Expect: 100-continue", method=b"POST"))
    request = wire.next_request()
    wire.encode_interim(ResponseHead(103, [], b"Early Hints"))
    assert request.expects_continue


def test_an_early_answer_leaves_while_the_body_is_still_coming() -> None:
    """The rest of the body can be read behind it, and then the next request."""
    wire = served(head(b"Content-Length: 5", method=b"POST"))
    wire.encode_head(length(0), keep_alive=True)
    wire.encode_end()
    wire.feed(b"hello" + head(target=b"/next"))
    assert wire.take_body() == b"hello"
    wire.start_cycle(LIMITS)
    assert wire.next_request().target == b"/next"


@pytest.mark.parametrize(
    ("request_head", "response", "expected"),
    [
        (head(), unknown(), True),
        (HTTP10_KEEP, length(5), True),
        (HTTP10_KEEP, unknown(), False),
        (HTTP10_KEEP, ResponseHead(204, []), True),
        (HTTP10_KEEP, ResponseHead(304, []), True),
    ],
)
def test_whether_a_client_can_tell_the_end_of_a_response_from_a_close(
    request_head: bytes, response: ResponseHead, expected: bool
) -> None:
    """An HTTP/1.0 client only by a length."""
    assert served(request_head).can_keep_alive(response) is expected


def refusal(wire: ServerWire, status: int, reason: bytes, body: bytes, **more: Any) -> bytes:
    """A whole answer of the proxy's own, as its bytes."""
    wire.start_response_anew()
    framing = Body(Framing.LENGTH, len(body)) if more.pop("has_body", True) else NO_BODY
    fields = more.pop("fields", [])
    head = ResponseHead(status, fields, reason, body=framing, declared_length=len(body))
    parts = [wire.encode_head(head, **more)]
    if not framing.is_empty:
        parts += wire.encode_data(body)
    return b"".join([*parts, wire.encode_end()])


@pytest.mark.parametrize(
    ("request_head", "keep_alive", "extra", "body"),
    [
        (head(), True, b"", b"no"),
        (head(), False, b"Connection: close\r\n", b"no"),
        (HTTP10_KEEP, True, b"Connection: keep-alive\r\n", b"no"),
        (HTTP10, False, b"Connection: close\r\n", b"no"),
        (HEAD_REQUEST, True, b"", b""),
    ],
)
def test_a_refusal_is_one_whole_response(
    request_head: bytes, keep_alive: bool, extra: bytes, body: bytes
) -> None:
    """With its length; an answer to HEAD only tells it."""
    wire, fields = served(request_head), [(b"X", b"1")]
    sent = refusal(
        wire, 503, b"Busy", b"no", fields=fields, has_body=bool(body), keep_alive=keep_alive
    )
    assert sent == b"HTTP/1.1 503 Busy\r\nX: 1\r\nContent-Length: 2\r\n" + extra + b"\r\n" + body


@pytest.mark.parametrize(
    "data", [b"", b"\x16\x03\x01", b"nonsense\r\n\r\n", head(b"Content-Length: x")]
)
def test_a_refusal_can_be_sent_when_no_request_was_understood(data: bytes) -> None:
    """h11 itself would be in its error state."""
    wire = ServerWire(LIMITS)
    if data:
        wire.feed(data)
        with pytest.raises(ProtocolError):
            wire.next_request()
    sent = refusal(wire, 400, b"Bad Request", b"no", keep_alive=False)
    assert sent == (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")


def test_a_refusal_can_follow_an_interim_response_and_half_a_body() -> None:
    """Nothing final has left, so the client can still be told."""
    wire = served(head(b"Transfer-Encoding: chunked", method=b"POST"))
    wire.encode_interim(ResponseHead(100, [], b"Continue"))
    wire.feed(b"5\r\nhel")
    wire.take_body()
    sent = refusal(wire, 502, b"Bad", b"", keep_alive=False)
    assert sent == b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
