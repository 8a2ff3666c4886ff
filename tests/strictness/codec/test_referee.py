"""h11 fed with real bytes agrees with h11 that was told of them; and would say so if it did not.

Every conversation of the tests in this folder is had before the referee, by way of
`support.wire_conversation`; here are those that chance makes up, and proof that it looks.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import h11_referee
from support.wire_conversation import LIMITS, head, hear_requests, hear_response
from support.wire_strategies import CUTS, splits, valid_requests, valid_responses
from trio_proxy.codec.h1.requests import parse_request
from trio_proxy.codec.h1.responses import parse_response
from trio_proxy.http.messages import CHUNKED_BODY, NO_BODY, Request, ResponseHead

#: Fields that bear on what becomes of a connection, in all the ways that are accepted.
TELLING = st.lists(
    st.sampled_from(
        [
            *([b"Connection: close"], [b"Connection: keep-alive"], [b"connection: X, Close"]),
            *([b"Connection: upgrade"], [b"Upgrade: websocket"], [b"Upgrade: h2c"]),
            *([b"Connection: upgrade", b"Upgrade: websocket"], [b"Connection: upgrade, close"]),
            *([b"Expect: 100-continue"], [b"Keep-Alive: timeout=5"], [b"Proxy-Connection: close"]),
        ]
    ),
    max_size=3,
).map(lambda groups: [field for group in groups for field in group])
BODIES = st.sampled_from(
    [
        (b"", b""),
        (b"Content-Length: 5\r\n", b"hello"),
        (b"Content-Length: 0\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n", b"5;x\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),
    ]
)


def lines(fields: list[bytes]) -> bytes:
    return b"".join(field + b"\r\n" for field in fields)


@settings(max_examples=400)
@given(
    st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS", b"QUERY"]),
    st.sampled_from([b"1.0", b"1.1"]),
    TELLING,
    BODIES,
    CUTS,
)
def test_requests_with_every_kind_of_connection(
    method: bytes, version: bytes, fields: list[bytes], body: tuple[bytes, bytes], cuts: list[int]
) -> None:
    """Both are in the same state after the head, after the body and after an answer."""
    start = b"%b / HTTP/%b\r\nHost: a\r\n" % (method, version)
    heard = hear_requests(splits(start + lines(fields) + body[0] + b"\r\n" + body[1], cuts))
    is_refused = version == b"1.0" and b"chunked" in body[0]
    assert [message.complete for message in heard.messages] == [True] * (not is_refused)


@settings(max_examples=400)
@given(
    st.sampled_from([b"200 OK", b"204 ", b"304 Not Modified", b"404", b"599 ", b"799 x"]),
    st.sampled_from([b"1.0", b"1.1"]),
    st.sampled_from([b"GET", b"HEAD"]),
    st.lists(st.sampled_from([b"100 Continue", b"103 ", b"199 x"]), max_size=2),
    TELLING,
    BODIES,
    CUTS,
)
def test_responses_with_every_kind_of_connection(
    status: bytes,
    version: bytes,
    method: bytes,
    interim: list[bytes],
    fields: list[bytes],
    body: tuple[bytes, bytes],
    cuts: list[int],
) -> None:
    """Interim ones before them, and whether or not the request leaves room for a body."""
    before = b"".join(b"HTTP/1.1 %b\r\n\r\n" % each for each in interim)
    start = b"HTTP/%b %b\r\n" % (version, status)
    data = before + start + lines(fields) + body[0] + b"\r\n" + body[1]
    heard = hear_response(splits(data, cuts), method, eof=True)
    is_refused = version == b"1.0" and b"chunked" in body[0]
    assert len(heard.messages) == len(interim) + (not is_refused)


@settings(max_examples=200)
@given(st.lists(valid_requests(), max_size=3).map(b"".join), CUTS)
def test_any_requests(data: bytes, cuts: list[int]) -> None:
    """One after the other."""
    heard = hear_requests(splits(data, cuts))
    assert all(message.complete for message in heard.messages[:-1])


@settings(max_examples=200)
@given(valid_responses(), CUTS)
def test_any_responses(data: bytes, cuts: list[int]) -> None:
    """Up to the end of the connection."""
    assert hear_response(splits(data, cuts), eof=True).messages


# That it looks


CHUNKED = head(b"Transfer-Encoding: chunked", method=b"POST")


def with_other(name: str, value: object) -> Callable[[Request | ResponseHead], None]:
    return lambda understood: setattr(understood, name, value)


@pytest.mark.parametrize(
    ("data", "misread"),
    [
        (head(b"Connection: close"), with_other("keep_alive", True)),
        (head(), with_other("keep_alive", False)),
        (head(), with_other("method", b"HEAD")),
        (head(), with_other("version", b"1.0")),
        (head(), with_other("upgrade", b"x")),
        (head(), with_other("expects_continue", True)),
        (head(), with_other("body", CHUNKED_BODY)),
        (head(b"X: 1"), lambda request: request.fields.remove(b"x")),
        (CHUNKED, with_other("body", NO_BODY)),
    ],
)
def test_a_request_that_was_understood_wrongly_is_noticed(
    data: bytes, misread: Callable[[Request], None]
) -> None:
    """At the latest by what an answer to it would look like, or what its body is."""
    request = parse_request(data, LIMITS)
    misread(request)
    with pytest.raises(AssertionError):
        judge_request(data, request)


def judge_request(data: bytes, request: Request) -> None:
    referee = h11_referee.of_requests()
    referee.request(data, request)
    if request.body is CHUNKED_BODY:
        referee.body(b"5\r\nhello\r\n0\r\n\r\n", b"hello", (), complete=True)
    else:
        referee.body(b"", b"", (), complete=True)
    referee.answer()


@pytest.mark.parametrize("data", [head(), CHUNKED, head(b"Connection: close")])
def test_a_request_that_was_understood_rightly_passes(data: bytes) -> None:
    """Without it, the test above would prove nothing."""
    judge_request(data, parse_request(data, LIMITS))


@pytest.mark.parametrize(
    ("data", "misread"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", with_other("keep_alive", True)),
        (b"HTTP/1.1 200 OK\r\n\r\n", with_other("keep_alive", False)),
        (b"HTTP/1.1 200 OK\r\n\r\n", with_other("status", 404)),
        (b"HTTP/1.1 200 OK\r\n\r\n", with_other("version", b"1.0")),
        (b"HTTP/1.1 200 OK\r\n\r\n", with_other("body", CHUNKED_BODY)),
        (b"HTTP/1.1 103 Hints\r\n\r\n", with_other("status", 200)),
    ],
)
def test_a_response_that_was_understood_wrongly_is_noticed(
    data: bytes, misread: Callable[[ResponseHead], None]
) -> None:
    """The same for answers."""
    response = parse_response(data, b"GET", LIMITS)
    misread(response)
    with pytest.raises(AssertionError):
        judge_response(data, response)


def judge_response(data: bytes, response: ResponseHead) -> None:
    referee = h11_referee.of_responses(b"GET", b"")
    referee.response(data, response)
    if response.body is CHUNKED_BODY:
        referee.body(b"5\r\nhello\r\n", b"hello", (), complete=False)
    elif response.status >= 200:
        referee.body(b"hello", b"hello", (), complete=False)
    referee.end(complete=True)


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 404 \r\n\r\n"])
def test_a_response_that_was_understood_rightly_passes(data: bytes) -> None:
    """As above."""
    judge_response(data, parse_response(data, b"GET", LIMITS))


def test_a_body_that_was_read_otherwise_is_noticed() -> None:
    """Its content, its trailers and its end."""
    data = b"5\r\nhello\r\n0\r\nX: 1\r\n\r\n"
    understood = [b"hello", [(b"X", b"1")], True]
    for index, wrong in enumerate([b"hell", [], False]):
        content, trailers, complete = [*understood[:index], wrong, *understood[index + 1 :]]
        referee = h11_referee.of_requests()
        referee.request(CHUNKED, parse_request(CHUNKED, LIMITS))
        with pytest.raises(AssertionError):
            referee.body(data, content, trailers, complete=complete)
