"""What leaves is what was understood, and nothing more: requests and responses through both wires.

The bytes that leave are read by llhttp. Whatever came in, it must find exactly the messages that
our own reading side accepted, each with one framing.
"""

from __future__ import annotations

import math
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from support.llhttp_oracle import METHODS, Parsed, parse_requests, parse_responses
from support.wire_conversation import (
    LIMITS,
    Heard,
    Message,
    hear_requests,
    hear_response,
    joined,
    served,
)
from support.wire_strategies import (
    ANY_RESPONSES,
    CUTS,
    REQUEST_STREAMS,
    TOKENS,
    VALUES,
    splits,
    valid_responses,
)
from trio_proxy.codec.h1.wire import ClientWire
from trio_proxy.http.headers import Headers
from trio_proxy.http.messages import Field, Framing, Request, ResponseHead
from trio_proxy.policy.crossing import (
    client_fields,
    interim_fields,
    trailer_fields,
    upstream_fields,
)
from trio_proxy.policy.forwarding import HeaderRules, client_of

RULES = HeaderRules()
FRAMING_NAMES = (b"content-length", b"transfer-encoding")
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HTTP10 = b"GET / HTTP/1.0\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"


def forwarded(request: Request) -> Headers:
    """The fields that go to the upstream, from a client that nobody trusts."""
    client = client_of(request, "192.0.2.1", RULES, trusted=False)
    return upstream_fields(
        request,
        client,
        RULES,
        trace_id="trace",
        upstream_host=b"up.example",
        remaining_seconds=math.inf,
    )


def to_upstream(wire: ClientWire, message: Message) -> tuple[bytes, Headers]:
    """What one request leaves as, its fields without framing, and its end if that has come."""
    request = message.head
    assert isinstance(request, Request)
    fields = forwarded(request)
    data = wire.encode_head(request, fields, LIMITS)
    if message.body:
        data += joined(wire.encode_data(message.body))
    if message.complete:
        data += wire.encode_end(trailer_fields(message.trailers, request.options))
    return data, fields


def to_client(heard: Heard, request_head: bytes) -> tuple[bytes, list[Headers]]:
    """What the responses to one request leave as, and their fields without framing."""
    wire, data, expected = served(request_head), b"", []
    for message in heard.messages:
        came = message.head
        assert isinstance(came, ResponseHead)
        if came.status < 200:
            head = ResponseHead(
                came.status, interim_fields(came, "trace", time.time()), came.reason
            )
            data += wire.encode_interim(head)
        else:
            head = ResponseHead(
                came.status,
                client_fields(came, "trace", time.time()),
                came.reason,
                body=came.body,
                declared_length=came.declared_length,
            )
            data += wire.encode_head(head, keep_alive=wire.can_keep_alive(head))
            if message.body:
                data += joined(wire.encode_data(message.body))
            if message.complete:
                data += wire.encode_end(trailer_fields(message.trailers, came.options))
        expected.append(head.fields)
    return data, expected


def relayed_trailers(message: Message) -> list[Field]:
    """The trailers that must arrive: none of a message that was cut off."""
    return trailer_fields(message.trailers, message.head.options) if message.complete else []


def without_framing(parsed: Parsed) -> tuple[list[Field], list[bytes]]:
    """The fields that do not frame, and the names of those that do."""
    rest = [field for field in parsed.fields if field[0].lower() not in FRAMING_NAMES]
    framing = [name.lower() for name, _ in parsed.fields if name.lower() in FRAMING_NAMES]
    return rest, framing


FRAMED_BY = {
    Framing.NONE: [],
    Framing.LENGTH: [b"content-length"],
    Framing.CHUNKED: [b"transfer-encoding"],
}


@settings(max_examples=500, deadline=None)
@given(REQUEST_STREAMS, CUTS)
def test_no_request_is_smuggled_to_the_upstream(data: bytes, cuts: list[int]) -> None:
    """The upstream reads the requests that were accepted, with their bodies, and no other."""
    heard = hear_requests(splits(data, cuts))
    messages = [message for message in heard.messages if message.head.method in METHODS]
    sent, expected = b"", []
    wire = ClientWire(LIMITS)
    for message in messages:
        piece, fields = to_upstream(wire, message)
        sent += piece
        expected.append(fields)
        if not message.complete:
            break
    parsed = parse_requests(sent)
    assert len(parsed) == len(expected)
    for message, fields, seen in zip(messages, expected, parsed, strict=False):
        request = message.head
        assert isinstance(request, Request)
        assert (seen.start, seen.target) == (request.method, request.target)
        assert (seen.body, seen.complete) == (message.body, message.complete)
        assert without_framing(seen) == (list(fields), FRAMED_BY[request.body.framing])
        assert seen.trailers == relayed_trailers(message)


@settings(max_examples=400, deadline=None)
@given(ANY_RESPONSES, CUTS, st.sampled_from([GET, HTTP10]))
def test_no_response_is_smuggled_to_the_client(
    data: bytes, cuts: list[int], request_head: bytes
) -> None:
    """The client reads the responses that were accepted, and no end of one that was cut off."""
    heard = hear_response(splits(data, cuts), eof=True)
    if request_head is HTTP10:
        heard.messages = [message for message in heard.messages if message.head.status >= 200]
    sent, expected = to_client(heard, request_head)
    parsed = parse_responses(sent)
    assert [seen.start for seen in parsed] == [message.head.status for message in heard.messages]
    for message, fields, seen in zip(heard.messages, expected, parsed, strict=True):
        assert seen.body == message.body
        rest, framing = without_framing(seen)
        assert len(framing) <= 1
        assert [field for field in rest if field[0] != b"Connection"] == list(fields)
        if framing or message.head.body.framing is Framing.NONE:
            assert seen.complete is message.complete
        if framing == [b"transfer-encoding"]:
            assert seen.trailers == relayed_trailers(message)


@settings(max_examples=150, deadline=None)
@given(valid_responses(), CUTS)
def test_an_answer_to_head_is_a_head_and_nothing_behind_it(data: bytes, cuts: list[int]) -> None:
    """Whatever the upstream sent behind it stays here."""
    heard = hear_response(splits(data, cuts), b"HEAD", eof=True)
    sent, expected = to_client(heard, HEAD)
    assert sent.count(b"\r\n\r\n") == len(heard.messages)
    assert sent.endswith(b"\r\n\r\n")
    seen = parse_responses(sent)[-1]
    rest, framing = without_framing(seen)
    assert (rest, seen.body) == (list(expected[-1]), b"")
    assert len(framing) <= 1


END_TO_END = st.lists(
    st.tuples(
        st.one_of(
            TOKENS.map(lambda token: b"X-" + token),
            st.sampled_from([b"Cookie", b"cOOKIE", b"Accept", b"Set-Cookie", b"Via", b"DNT"]),
        ),
        VALUES,
    ),
    max_size=8,
)


def head_with(start: bytes, fields: list[Field]) -> bytes:
    """A head with these fields."""
    return start + b"".join(b"%s: %s\r\n" % field for field in fields) + b"\r\n"


@settings(max_examples=200, deadline=None)
@given(END_TO_END)
def test_end_to_end_fields_of_a_request_keep_order_letter_case_and_repeats(
    fields: list[Field],
) -> None:
    """Host comes first and ours come last; in between nothing moves or changes."""
    heard = hear_requests([head_with(b"GET / HTTP/1.1\r\nhost: a\r\n", fields)])
    sent, _ = to_upstream(ClientWire(LIMITS), heard.messages[0])
    (seen,) = parse_requests(sent)
    assert seen.fields[0] == (b"Host", b"a")
    assert seen.fields[1 : 1 + len(fields)] == fields


@settings(max_examples=200, deadline=None)
@given(END_TO_END)
def test_end_to_end_fields_of_a_response_keep_order_letter_case_and_repeats(
    fields: list[Field],
) -> None:
    """Those of the upstream come first, ours behind them."""
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
    sent, _ = to_client(hear_response([head_with(start, fields)]), GET)
    (seen,) = parse_responses(sent)
    assert seen.fields[: len(fields)] == fields
