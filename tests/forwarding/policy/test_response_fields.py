"""Which fields of a response, and which trailers, go on to the next hop."""

from __future__ import annotations

import time

import pytest

from trio_proxy.http.messages import ResponseHead
from trio_proxy.policy.crossing import client_fields, interim_fields, trailer_fields


def test_a_response_gets_via_and_the_trace_id_of_its_request() -> None:
    """The rest is kept with order and repeats; a trace id of the upstream's own is not."""
    head = ResponseHead(
        200,
        [(b"date", b"now"), (b"Set-Cookie", b"a"), (b"X-Trace-ID", b"x"), (b"set-cookie", b"b")],
    )
    assert client_fields(head, "abc", time.time()) == [
        (b"date", b"now"),
        (b"Set-Cookie", b"a"),
        (b"set-cookie", b"b"),
        (b"Via", b"1.1 trio-proxy"),
        (b"X-Trace-ID", b"abc"),
    ]


def test_a_101_keeps_the_two_fields_that_make_it_one() -> None:
    """Written anew from the protocol that was chosen."""
    fields = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), (b"Sec-X", b"1")]
    assert interim_fields(ResponseHead(101, fields, upgrade=b"websocket"), "abc", time.time()) == [
        (b"Sec-X", b"1"),
        (b"Via", b"1.1 trio-proxy"),
        (b"X-Trace-ID", b"abc"),
        (b"Connection", b"upgrade"),
        (b"Upgrade", b"websocket"),
    ]


def test_other_interim_responses_get_nothing_added() -> None:
    """Their length field goes: they have no body (RFC 9110 §8.6)."""
    head = ResponseHead(103, [(b"Link", b"<a>"), (b"Content-Length", b"5")])
    assert interim_fields(head, "abc", time.time()) == [(b"Link", b"<a>")]


@pytest.mark.parametrize(
    "name",
    [
        b"Content-Length",
        b"Transfer-Encoding",
        b"transfer_encoding",
        b"Host",
        b"Connection",
        b"Authorization",
        b"Cookie",
        b"Set-Cookie",
        b"Content-Type",
        b"Content-Encoding",
        b"Cache-Control",
        b"Trailer",
        b"X-Forwarded-For",
        b"x_forwarded_for",
        b"X-Real-IP",
        b"Forwarded",
        b"X-Trace-ID",
        b"Via",
    ],
)
def test_a_trailer_that_frames_routes_or_authorises_is_dropped(name: bytes) -> None:
    """RFC 9110 §6.5.1: some upstreams merge trailers into the head."""
    assert trailer_fields([(b"X-Sum", b"1"), (name, b"x")], ()) == [(b"X-Sum", b"1")]


def test_trailers_named_by_connection_or_carrying_the_deadline_are_dropped() -> None:
    """RFC 9110 §7.6.1 names trailers too."""
    trailers = [(b"X-A", b"1"), (b"x_b", b"2"), (b"X-Deadline-Ms", b"3"), (b"X-C", b"4")]
    options = [b"x-a", b"x-b"]
    assert trailer_fields(trailers, options, b"x-deadline-ms") == [(b"X-C", b"4")]
