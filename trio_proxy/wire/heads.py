"""Heads as they are written: h11 writes the first line and the framing, we the fields between.

h11 is given an event without the fields on which nothing depends, and they are put into what it
writes in one block; so is the target of a request. A block is only made of fields that h11 would
not act upon and would write as they are: the names are names, and no value holds a control, so
nobody can read other fields in it than those that were given. With anything else among them h11 is
given all of the fields, to write or to refuse.
"""

from __future__ import annotations

from trio_proxy.messages import Field, Fields, Request, ResponseHead
from trio_proxy.names import KINDS, OF_STATE_MACHINE, learn
from trio_proxy.wire.grammar import TARGET, TEXT
from trio_proxy.wire.machine import h11
from trio_proxy.wire.standins import plain_request

#: What h11 writes of `plain_request`, and of a request with framing, behind the method.
_STAND_IN = b" / HTTP/1.1\r\nHost: stand-in\r\n"


def write_request(
    machine: h11.Connection, request: Request, fields: Fields, framing: list[Field]
) -> bytes:
    """The head of a request with ``fields``, Host in front of them, and then ``framing``.

    Raises h11's LocalProtocolError for what is no request.
    """
    method, target = request.method, request.target
    block = _block_of(fields, fields[1:]) if fields and fields[0][0] == b"Host" else None
    if block is None or TARGET.fullmatch(target) is None:
        whole = h11.Request(method=method, target=target, headers=[*fields, *framing])
        return machine.send(whole) or b""
    data = machine.send(plain_request(method, framing)) or b""
    begin, end = data.split(_STAND_IN, 1)
    return b"%b %b HTTP/1.1\r\n%b%b" % (begin, target, block, end)


def write_response(machine: h11.Connection, head: ResponseHead, framing: list[Field]) -> bytes:
    """A final response head with its fields and then ``framing``, which h11 may complete.

    Raises h11's LocalProtocolError for what is no response.
    """
    status, reason = head.status, head.reason
    block = _block_of(head.fields, head.fields)
    if block is None:
        whole = h11.Response(status_code=status, headers=[*head.fields, *framing], reason=reason)
        return machine.send(whole) or b""
    event = h11.Response(status_code=status, headers=framing, reason=reason)
    data = machine.send(event) or b""
    end = data.index(b"\n") + 1
    return data[:end] + block + data[end:]


def _block_of(fields: Fields, checked: Fields) -> bytes | None:
    """The lines of all ``fields`` if none of those ``checked`` is for h11 to act upon or refuse."""
    kinds = 0
    for name, _ in checked:
        known = KINDS.get(name)
        kinds |= learn(name) if known is None else known
    if kinds & OF_STATE_MACHINE:
        return None
    lines = b"\r\n".join(map(b": ".join, fields)) + b"\r\n" if fields else b""
    return lines if lines.translate(None, TEXT) == b"\r\n" * len(fields) else None
