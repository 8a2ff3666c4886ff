"""Heads as they are written: h11 writes the first line and the framing, we the fields between.

h11 is given an event without the fields on which nothing depends, and they are put into what it
writes in one block; so is the target of a request. A block is only made of fields that h11 would
not act upon, and `Headers` holds none that it would not write as they are: nobody can read other
fields in it than those that were given. With anything else among them h11 is given all of the
fields, to write or to refuse.
"""

from __future__ import annotations

from trio_proxy.codec.h1.grammar import TARGET
from trio_proxy.codec.h1.machine import h11
from trio_proxy.codec.h1.standins import plain_request
from trio_proxy.http.headers import Field, Headers
from trio_proxy.http.messages import Request, ResponseHead
from trio_proxy.http.names import EXPECT, HOST, OF_STATE_MACHINE

#: What h11 writes of `plain_request`, and of a request with framing, behind the method.
_STAND_IN = b" / HTTP/1.1\r\nHost: stand-in\r\n"

#: In an answer these two mean nothing, and h11 would only put Host in front.
_OF_STATE_MACHINE_IN_RESPONSES = OF_STATE_MACHINE & ~(HOST | EXPECT)


def write_request(
    machine: h11.Connection, request: Request, fields: Headers, framing: list[Field]
) -> bytes:
    """The head of a request with ``fields``, Host in front of them, and then ``framing``.

    Raises h11's LocalProtocolError for what is no request.
    """
    method, target = request.method, request.target
    lines = fields.lines
    has_host = bool(lines) and lines[0].startswith(b"Host: ")
    if not has_host or fields.kinds & OF_STATE_MACHINE or TARGET.fullmatch(target) is None:
        whole = h11.Request(method=method, target=target, headers=[*fields, *framing])
        return machine.send(whole) or b""
    data = machine.send(plain_request(method, framing)) or b""
    begin, end = data.split(_STAND_IN, 1)
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (begin, target, b"\r\n".join(lines), end)


def write_response(machine: h11.Connection, head: ResponseHead, framing: list[Field]) -> bytes:
    """A response head with its fields and then ``framing``, which h11 may complete.

    Raises h11's LocalProtocolError for what is no response.
    """
    status, reason, fields = head.status, head.reason, head.fields
    kind = h11.InformationalResponse if status < 200 else h11.Response
    if fields.kinds & _OF_STATE_MACHINE_IN_RESPONSES:
        whole = kind(status_code=status, headers=[*fields, *framing], reason=reason)
        return machine.send(whole) or b""
    event = kind(status_code=status, headers=framing, reason=reason)
    data = machine.send(event) or b""
    if not fields.lines:
        return data
    end = data.index(b"\n") + 1
    return b"%b%b\r\n%b" % (data[:end], b"\r\n".join(fields.lines), data[end:])
