"""Laws that hold for any bytes: a clean verdict, the same one however the bytes arrive."""

from __future__ import annotations

import re
from collections.abc import Callable

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.llhttp_oracle import METHODS, parse_requests, parse_responses
from support.wire_conversation import (
    LIMITS,
    Heard,
    asked,
    head,
    hear_requests,
    hear_response,
    split,
)
from support.wire_strategies import (
    ANY_REQUESTS,
    ANY_RESPONSES,
    CUTS,
    ChunkedBody,
    chunked_bodies,
    mutated,
    splits,
)
from trio_proxy.codec.h1.requests import HeadLimits
from trio_proxy.codec.h1.wire import ServerWire
from trio_proxy.http.errors import ProtocolError
from trio_proxy.http.messages import Field, Framing, Request

TIGHT = HeadLimits(head_bytes=150, fields=6, target_bytes=12)
CHUNKED = head(b"Transfer-Encoding: chunked", method=b"POST")
CHUNKED_RESPONSE = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

#: RFC 9112 allows blanks around the parts of a chunk extension; llhttp does not.
_BLANK_IN_EXTENSION = re.compile(rb"(?m)^[0-9A-Fa-f]+[^\r\n]*[ \t][^\r\n]*\r\n")

Hearing = Callable[[list[bytes]], Heard]


def is_one_verdict(data: bytes, cuts: list[int], hear: Hearing) -> Heard:
    """Hear it whole, in pieces and byte by byte; nothing but the reads may differ."""
    whole = hear([data])
    for pieces in (splits(data, cuts), split(data, "byte_by_byte", b"")):
        assert hear(pieces).facts == whole.facts
    return whole


@settings(max_examples=300, deadline=None)
@given(ANY_REQUESTS, CUTS, st.sampled_from([LIMITS, TIGHT]))
def test_any_bytes_give_requests_or_one_clean_refusal(
    data: bytes, cuts: list[int], limits: HeadLimits
) -> None:
    """Never another exception, a status from the table, and the same verdict in every split."""
    heard = is_one_verdict(data, cuts, lambda pieces: hear_requests(pieces, limits))
    if heard.error is not None:
        assert heard.error.reason.status in (400, 414, 431, 501, 505)
    for message in heard.messages:
        assert isinstance(message.head, Request)
        assert len(message.head.fields) <= limits.fields


@settings(max_examples=200, deadline=None)
@given(ANY_RESPONSES, CUTS, st.sampled_from([b"GET", b"HEAD"]), st.sampled_from([LIMITS, TIGHT]))
def test_any_bytes_give_responses_or_one_clean_refusal(
    data: bytes, cuts: list[int], method: bytes, limits: HeadLimits
) -> None:
    """The same law for what an upstream sends."""

    def hear(pieces: list[bytes]) -> Heard:
        return hear_response(pieces, method, limits=limits, eof=True)

    heard = is_one_verdict(data, cuts, hear)
    finals = [message for message in heard.messages if message.head.status >= 200]
    assert len(finals) <= 1


@settings(max_examples=200, deadline=None)
@given(chunked_bodies(), CUTS)
def test_a_well_formed_chunked_body_is_decoded_in_every_split(
    body: ChunkedBody, cuts: list[int]
) -> None:
    """To what was encoded, extensions dropped and trailers kept, in both directions."""
    heard = is_one_verdict(CHUNKED + body.data, cuts, hear_requests)
    answer = is_one_verdict(CHUNKED_RESPONSE + body.data, cuts, hear_response)
    for message in (heard.messages[0], answer.messages[0]):
        assert message.complete
        assert message.body == body.content
        assert list(message.trailers) == body.trailers


@settings(max_examples=300, deadline=None)
@given(mutated(chunked_bodies().map(lambda body: body.data)), CUTS)
def test_a_chunked_body_that_is_accepted_is_what_llhttp_reads(data: bytes, cuts: list[int]) -> None:
    """Where we are not stricter we agree to the byte."""
    heard = is_one_verdict(CHUNKED + data, cuts, hear_requests)
    message = heard.messages[0]
    consumed = _consumed(CHUNKED + data)
    if not message.complete or _BLANK_IN_EXTENSION.search(data):
        return
    if any(name.lower() == b"content-length" for name, _ in message.trailers):
        return  # we drop it, llhttp refuses it
    (parsed,) = parse_requests(consumed)
    assert parsed.complete
    assert parsed.body == message.body
    assert _trimmed(parsed.trailers) == list(message.trailers)


def _consumed(data: bytes) -> bytes:
    """The bytes of the first message."""
    wire = ServerWire(LIMITS)
    wire.feed(data)
    try:
        wire.next_request()
        wire.take_body()
    except ProtocolError:
        pass
    return data[: len(data) - len(wire.leftover)]


@settings(max_examples=400, deadline=None)
@given(ANY_REQUESTS)
def test_a_request_head_that_is_accepted_is_what_llhttp_reads(data: bytes) -> None:
    """Ours is the stricter reader: same method, target, version and fields, or a refusal."""
    wire = ServerWire(LIMITS)
    wire.feed(data)
    try:
        request = wire.next_request()
    except ProtocolError:
        return
    if request is None or request.method not in METHODS:
        return
    raw = data[: len(data) - len(wire.leftover)]
    (parsed,) = parse_requests(raw)
    assert parsed.has_head
    if b"upgrade" not in request.fields:
        # httptools takes what follows a request for an upgrade for another protocol, never a body.
        assert parsed.complete is request.body.is_empty
    assert (parsed.start, parsed.version) == (request.method, request.version)
    assert parsed.target == request.target or parsed.target.startswith((b"http:", b"https:"))
    assert _trimmed(parsed.fields) == list(request.fields)


@settings(max_examples=300, deadline=None)
@given(ANY_RESPONSES)
def test_a_response_head_that_is_accepted_is_what_llhttp_reads(data: bytes) -> None:
    """Same status, fields and kind of framing, or a refusal."""
    wire = asked()
    wire.feed(data)
    try:
        response = wire.next_response()
    except ProtocolError:
        return
    if response is None:
        return
    (parsed,) = parse_responses(data[: len(data) - len(wire.leftover)])
    assert parsed.has_head
    assert parsed.start == response.status
    assert _trimmed(parsed.fields) == list(response.fields)
    if response.body.framing is not Framing.CLOSE:
        assert parsed.complete is response.body.is_empty


def _trimmed(fields: list[Field]) -> list[Field]:
    """llhttp leaves white space behind a value on it."""
    return [(name, value.rstrip(b" \t")) for name, value in fields]


@pytest.mark.parametrize(
    "data", [head(b"X : 1"), head(b"Content-Length: 5", b"Transfer-Encoding: chunked")]
)
def test_the_second_reader_is_a_strict_one(data: bytes) -> None:
    """It would tell us, so the laws above are not empty."""
    with pytest.raises(httptools.HttpParserError):
        parse_requests(data)
