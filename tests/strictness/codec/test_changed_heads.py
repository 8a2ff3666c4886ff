"""What a handler changes of a message that was read is what leaves, and no change gets lost.

From the bytes of a head to the bytes of the head that leaves: read, changed, crossed, written.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.wire_conversation import LIMITS, asked, head, parsed, served
from trio_proxy.codec.h1.wire import ClientWire
from trio_proxy.http.headers import Field, Headers
from trio_proxy.http.messages import Request, ResponseHead
from trio_proxy.policy.crossing import client_fields, interim_fields, upstream_fields
from trio_proxy.policy.forwarding import HeaderRules, client_of

RULES = HeaderRules()
PLAIN = head(b"Accept:*/*", b"Connection: keep-alive", b"X-A: 1", b"x-a:\t2 ", b"Cookie: a=1")
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer:s\r\nDate: now\r\nContent-Length: 0\r\nX-A: 1\r\nx-a: 2\r\n"
    b"Connection: keep-alive\r\n\r\n"
)


def to_upstream(
    change: Callable[[Headers], object],
    request_head: bytes = PLAIN,
    *,
    trusted: bool = False,
    remaining: float = math.inf,
) -> list[bytes]:
    """The lines of the request that leaves when its fields are changed by a handler."""
    request = parsed(request_head)
    client = client_of(request, "192.0.2.1", RULES, trusted=trusted)
    change(request.fields)
    fields = upstream_fields(
        request,
        client,
        RULES,
        trace_id="t",
        upstream_host=b"up.example",
        remaining_seconds=remaining,
    )
    return lines_of(ClientWire(LIMITS).encode_head(request, fields, LIMITS))


def answer(data: bytes) -> ResponseHead:
    """What an upstream answered."""
    wire = asked(upgrade=b"websocket")
    wire.feed(data)
    response = wire.next_response()
    assert response is not None
    return response


def to_client(
    before: Callable[[Headers], object] = len,
    behind: Callable[[Headers], object] = len,
    data: bytes = ANSWER,
) -> list[bytes]:
    """The lines of the answer that leaves when it is changed before and after it crosses."""
    response = answer(data)
    before(response.fields)
    response.fields = client_fields(response, "t", 0.0)
    behind(response.fields)
    return lines_of(served().encode_head(response, keep_alive=True))


def lines_of(data: bytes) -> list[bytes]:
    """The lines of one head, which must be whole."""
    first, *lines, last, nothing = data.split(b"\r\n")
    assert (last, nothing) == (b"", b"")
    assert first in (b"GET / HTTP/1.1", b"HTTP/1.1 200 OK")
    return lines


OURS = [
    b"X-Forwarded-For: 192.0.2.1",
    b"X-Forwarded-Proto: http",
    b"X-Forwarded-Host: example.com",
    b"X-Real-IP: 192.0.2.1",
    b"X-Trace-ID: t",
    b"Via: 1.1 trio-proxy",
]
OURS_TO_CLIENT = [b"Via: 1.1 trio-proxy", b"X-Trace-ID: t"]
HOST = b"Host: example.com"


def test_a_request_that_nobody_changes_leaves_in_the_lines_that_were_read() -> None:
    """In the one form that fields are written in."""
    read = [HOST, b"Accept: */*", b"X-A: 1", b"x-a: 2", b"Cookie: a=1"]
    assert to_upstream(len) == [*read, *OURS]


@pytest.mark.parametrize(
    ("change", "theirs"),
    [
        (
            lambda headers: headers.add(b"New", b"n"),
            [b"Accept: */*", b"X-A: 1", b"x-a: 2", b"Cookie: a=1", b"New: n"],
        ),
        (
            lambda headers: headers.set("X-a", "3"),
            [b"Accept: */*", b"X-a: 3", b"Cookie: a=1"],
        ),
        (
            lambda headers: headers.set(b"Accept", b"text/html"),
            [b"Accept: text/html", b"X-A: 1", b"x-a: 2", b"Cookie: a=1"],
        ),
        (
            lambda headers: headers.remove(b"cookie"),
            [b"Accept: */*", b"X-A: 1", b"x-a: 2"],
        ),
        (
            lambda headers: headers.extend([(b"N", b"1"), (b"n", b"2")]),
            [b"Accept: */*", b"X-A: 1", b"x-a: 2", b"Cookie: a=1", b"N: 1", b"n: 2"],
        ),
    ],
)
def test_a_changed_request_leaves_as_it_is_now(
    change: Callable[[Headers], object], theirs: list[bytes]
) -> None:
    """Added, replaced, removed: all of it reaches the upstream, and the rest stays as it was."""
    assert to_upstream(change) == [HOST, *theirs, *OURS]


@pytest.mark.parametrize(
    "field",
    [
        (b"Connection", b"close"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Content-Length", b"5"),
        (b"content_length", b"5"),
        (b"Upgrade", b"h2c"),
        (b"TE", b"trailers"),
        (b"Expect", b"100-continue"),
        (b"Host", b"other.example"),
        (b"X-Forwarded-For", b"1.2.3.4"),
        (b"x_forwarded_for", b"1.2.3.4"),
        (b"X-Forwarded-Port", b"1"),
        (b"Forwarded", b"for=1.2.3.4"),
        (b"X-Real-IP", b"1.2.3.4"),
        (b"X-Trace-ID", b"mine"),
        (b"Grpc-Timeout", b"1H"),
    ],
)
def test_what_a_handler_adds_crosses_by_the_rules_for_what_was_read(field: Field) -> None:
    """It cannot frame the message, nor say something else about the client than the proxy does."""
    as_read = to_upstream(len)
    assert to_upstream(lambda headers: headers.add(*field)) == as_read
    assert to_upstream(lambda headers: headers.set(*field)) == as_read


def test_a_field_that_connection_named_ends_here_also_when_a_handler_adds_it() -> None:
    """The client has said that this name means something to this hop alone."""
    named = head(b"Connection: close, X-Hop")
    assert to_upstream(lambda headers: headers.add(b"x_hop", b"1"), named) == [HOST, *OURS]


def test_a_handler_may_change_what_only_a_trusted_peer_may_say() -> None:
    """Then it goes by the rules for a trusted peer."""
    asked_by_proxy = head(b"Forwarded: for=a", b"Grpc-Timeout: 9S")
    sent = to_upstream(lambda headers: headers.set(b"Forwarded", b"for=b"), asked_by_proxy)
    assert sent == [HOST, *OURS]
    sent = to_upstream(
        lambda headers: headers.set(b"Forwarded", b"for=b"), asked_by_proxy, trusted=True
    )
    assert sent[1:3] == [b"Forwarded: for=b", b"Grpc-Timeout: 9S"]


def test_every_grpc_timeout_is_told_anew_where_it_stands() -> None:
    """A second one, and one that CGI would take for it, are no way round the budget."""
    request = head(b"Grpc-Timeout: 9S", b"A: 1", b"grpc_timeout: 8S")
    sent = to_upstream(lambda headers: headers.add(b"GRPC-TIMEOUT", b"7S"), request, remaining=2.5)
    told = [
        b"Grpc-Timeout: 2500000u",
        b"A: 1",
        b"grpc_timeout: 2500000u",
        b"GRPC-TIMEOUT: 2500000u",
    ]
    assert sent == [HOST, *told, *OURS]


def test_an_answer_that_nobody_changes_leaves_in_the_lines_that_were_read() -> None:
    """In the one form that fields are written in."""
    read = [b"Server: s", b"Date: now", b"X-A: 1", b"x-a: 2"]
    assert to_client() == [*read, *OURS_TO_CLIENT, b"Content-Length: 0"]


def test_an_answer_that_is_changed_before_it_crosses_leaves_as_it_is_now() -> None:
    """Also where the proxy has something to say because of the change."""

    def change(headers: Headers) -> None:
        headers.set(b"Server", b"other")
        headers.remove(b"date")
        headers.remove(b"X-A")
        headers.add(b"Connection", b"close")
        headers.add(b"Set-Cookie", b"a=1")

    assert to_client(change) == [
        b"Server: other",
        b"Set-Cookie: a=1",
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT",
        *OURS_TO_CLIENT,
        b"Content-Length: 0",
    ]


def test_an_answer_that_is_changed_behind_the_crossing_leaves_as_it_is_now() -> None:
    """Nothing is put back."""

    def change(headers: Headers) -> None:
        headers.set(b"Via", b"1.1 other")
        headers.remove(b"X-Trace-ID")
        headers.remove(b"Date")
        headers.add(b"Set-Cookie", b"a=1")
        headers.add(b"set-cookie", b"b=2")

    assert to_client(behind=change) == [
        *(b"Server: s", b"X-A: 1", b"x-a: 2", b"Via: 1.1 other"),
        *(b"Set-Cookie: a=1", b"set-cookie: b=2", b"Content-Length: 0"),
    ]


def test_framing_that_is_added_behind_the_crossing_is_never_written_beside_another() -> None:
    """The state machine refuses it, or knows that it is the same."""
    with pytest.raises(Exception, match="conflicting Content-Length"):
        to_client(behind=lambda headers: headers.add(b"Content-Length", b"7"))
    sent = to_client(behind=lambda headers: headers.add(b"Content-Length", b"0"))
    assert [line for line in sent if line.startswith(b"Content")] == [b"Content-Length: 0"]


@pytest.mark.parametrize(("status", "upgrade"), [(103, b""), (101, b"websocket")])
def test_a_changed_interim_response_leaves_as_it_is_now(status: int, upgrade: bytes) -> None:
    """Before and after it crosses; a 101 gets the two fields that make it one behind that."""
    switch = b"Connection: upgrade\r\nUpgrade: websocket\r\n" if upgrade else b""
    response = answer(b"HTTP/1.1 %d X\r\n%bLink: <a>\r\nA: 1\r\n\r\n" % (status, switch))
    response.fields.set(b"Link", b"<b>")
    response.fields = interim_fields(response, "t", 0.0)
    response.fields.remove(b"A")
    wish = b"Connection: upgrade\r\nUpgrade: websocket\r\n" if upgrade else b""
    wire = served(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % wish)
    ours = b"Via: 1.1 trio-proxy\r\nX-Trace-ID: t\r\n" if upgrade else b""
    switch = b"Connection: upgrade\r\nUpgrade: websocket\r\n" if upgrade else b""
    sent = b"HTTP/1.1 %d X\r\nLink: <b>\r\n%b%b\r\n" % (status, ours, switch)
    assert wire.encode_interim(response) == sent


NAMES = st.sampled_from([b"A", b"a", b"B-C", b"b-c", b"Server", b"Accept", b"Cookie"])
VALUES = st.sampled_from([b"", b"1", b"x: y", b"\xe9", b"a  b", b"\t z "])
STEPS = st.lists(st.tuples(st.sampled_from(["add", "set", "remove"]), NAMES, VALUES), max_size=6)


def apply(headers: Headers, steps: list[tuple[str, bytes, bytes]]) -> None:
    """Go through the changes."""
    for how, name, value in steps:
        if how == "remove":
            headers.remove(name)
        else:
            getattr(headers, how)(name, value)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=5), STEPS)
def test_a_changed_message_leaves_like_one_that_came_so(
    fields: list[Field], steps: list[tuple[str, bytes, bytes]]
) -> None:
    """Whether fields were read or written by a handler makes no difference, in both directions."""
    lines = [b"%b: %b" % field for field in fields]
    changed = Headers(fields)
    apply(changed, steps)
    request = head(*lines, b"Connection: keep-alive")
    like = head(*changed.lines, b"Connection: keep-alive")
    assert to_upstream(lambda headers: apply(headers, steps), request) == to_upstream(len, like)
    start, end = b"HTTP/1.1 200 OK\r\nDate: now\r\n", b"Content-Length: 0\r\n\r\n"
    data = start + b"".join(line + b"\r\n" for line in lines) + end
    same = start + b"".join(line + b"\r\n" for line in changed.lines) + end
    assert to_client(lambda headers: apply(headers, steps), data=data) == to_client(data=same)


def test_a_request_made_by_a_handler_goes_the_same_way() -> None:
    """It was never read, so nothing of it is known but its fields."""
    read = parsed(head(b"A: 1", b"Connection: close, b", b"B: 2"))
    fields = [("host", "x"), ("A", "1"), ("Connection", "close, b"), ("B", "2"), ("X-Real-IP", "y")]
    made = Request(
        *(read.method, read.target, read.version, read.host, fields),
        body=read.body,
        keep_alive=True,
        options=[b"close", b"b"],
    )
    client = client_of(made, "192.0.2.1", RULES, trusted=False)
    sent = [
        upstream_fields(
            each, client, RULES, trace_id="t", upstream_host=b"u", remaining_seconds=math.inf
        )
        for each in (read, made)
    ]
    assert sent[0] == sent[1]
    assert b"B" not in sent[0]


def test_a_host_in_an_answer_stays_where_it_is() -> None:
    """It means nothing there, so it is a field like any other."""
    data = b"HTTP/1.1 200 OK\r\nA: 1\r\nDate: now\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    as_read = [b"A: 1", b"Date: now", b"Host: a", *OURS_TO_CLIENT, b"Content-Length: 0"]
    assert to_client(data=data) == as_read
    assert to_client(lambda headers: headers.set(b"a", b"1"), data=data) == [b"a: 1", *as_read[1:]]
