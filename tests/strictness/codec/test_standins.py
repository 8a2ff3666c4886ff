"""h11 that is told of a head is in the state of an h11 that has read one."""

from __future__ import annotations

from itertools import product

import pytest

from trio_proxy.codec.h1.machine import h11
from trio_proxy.codec.h1.standins import plain_request, tell_of_request, tell_of_response
from trio_proxy.http.messages import CHUNKED_BODY, NO_BODY, Body, Framing, Request, ResponseHead


def state_of(machine: h11.Connection) -> tuple[object, ...]:
    """All that the two can differ in, by what h11 declares public and by what it decides later."""
    return (
        machine.states,
        machine.their_http_version,
        machine.they_are_waiting_for_100_continue,
        machine.trailing_data,
    )


def answer_of(machine: h11.Connection) -> tuple[bytes, object]:
    """What the machine makes of an answer without framing, and what becomes of the connection."""
    data = machine.send(h11.Response(status_code=200, headers=[])) or b""
    return data, state_of(machine)


METHODS = (b"GET", b"HEAD", b"POST", b"OPTIONS", b"QUERY", b"M-SEARCH")


@pytest.mark.parametrize(
    ("method", "version", "keep_alive", "is_chunked", "upgrade"),
    list(product(METHODS, (b"1.0", b"1.1"), (True, False), (True, False), (b"", b"websocket"))),
)
def test_a_request(
    method: bytes, version: bytes, keep_alive: bool, is_chunked: bool, upgrade: bytes
) -> None:
    lines = [b"%b / HTTP/%b" % (method, version), b"Host: example.com"]
    if not keep_alive:
        lines.append(b"Connection: close")
    if upgrade:
        lines += [b"Connection: upgrade", b"Upgrade: websocket"]
    if is_chunked:
        lines.append(b"Transfer-Encoding: chunked")
    reading = h11.Connection(h11.SERVER)
    reading.receive_data(b"\r\n".join(lines) + b"\r\n\r\n")
    assert isinstance(reading.next_event(), h11.Request)
    body = CHUNKED_BODY if is_chunked else NO_BODY
    told = h11.Connection(h11.SERVER)
    tell_of_request(
        told,
        Request(
            method,
            b"/",
            version,
            b"example.com",
            [],
            body=body,
            keep_alive=keep_alive,
            upgrade=upgrade,
        ),
    )
    assert state_of(told) == state_of(reading)
    if is_chunked:
        for machine in (told, reading):
            machine.receive_data(b"3\r\nabc\r\n0\r\n\r\n")
        assert [told.next_event() for _ in range(2)] == [reading.next_event() for _ in range(2)]
        assert state_of(told) == state_of(reading)
    assert answer_of(told) == answer_of(reading)


def has_body(status: int, method: bytes) -> bool:
    return status >= 200 and status not in (204, 304) and method != b"HEAD"


RESPONSES = [
    (status, version, method, keep_alive, is_chunked)
    for status in (100, 103, 200, 204, 304, 404, 599, 799)
    for version, method in product((b"1.0", b"1.1"), (b"GET", b"HEAD"))
    for keep_alive, is_chunked in product((True, False), repeat=2)
    if has_body(status, method) or not is_chunked
]


@pytest.mark.parametrize(("status", "version", "method", "keep_alive", "is_chunked"), RESPONSES)
def test_a_response(
    status: int, version: bytes, method: bytes, keep_alive: bool, is_chunked: bool
) -> None:
    head = b"HTTP/%b %d \r\n" % (version, status)
    if not keep_alive:
        head += b"Connection: close\r\n"
    if is_chunked:
        head += b"Transfer-Encoding: chunked\r\n"
    told, reading = h11.Connection(h11.CLIENT), h11.Connection(h11.CLIENT)
    for machine in (told, reading):
        machine.send(plain_request(method))
        machine.send(h11.EndOfMessage())
    reading.receive_data(head + b"\r\n")
    reading.next_event()
    body = CHUNKED_BODY if is_chunked else Body(Framing.CLOSE)
    tell_of_response(
        told, ResponseHead(status, [], version=version, body=body, keep_alive=keep_alive)
    )
    assert state_of(told) == state_of(reading)
    if has_body(status, method):
        for machine in (told, reading):
            machine.receive_data(b"3\r\nabc\r\n0\r\n\r\n")
        assert told.next_event() == reading.next_event()
        assert state_of(told) == state_of(reading)


def test_a_switch_of_protocols() -> None:
    told, reading = h11.Connection(h11.CLIENT), h11.Connection(h11.CLIENT)
    headers = [("Host", "a"), ("Connection", "upgrade"), ("Upgrade", "websocket")]
    for machine in (told, reading):
        machine.send(h11.Request(method="GET", target="/", headers=headers))
        machine.send(h11.EndOfMessage())
    reading.receive_data(b"HTTP/1.1 101 \r\n\r\n")
    reading.next_event()
    tell_of_response(told, ResponseHead(101, []))
    assert state_of(told) == state_of(reading)
    assert told.our_state is h11.SWITCHED_PROTOCOL


def test_events_of_plain_heads_are_as_good_as_new() -> None:
    for method in METHODS:
        assert plain_request(method) == h11.Request(
            method=method, target=b"/", headers=[(b"Host", b"stand-in")]
        )
