"""Heads as they are written: h11 writes the first line and the framing, we the fields between.

h11 is given an event without the fields on which nothing depends, and they are put into what it
writes in one block; so is the target of a request. A block is only made of fields that h11 would
not act upon and would write as they are: the names are names, and no value holds a line end, so
nobody can read other fields in it than those that were given. Of fields that go on as they were
read this is known (`RelayedFields`). With anything else among them h11 is given all of the fields,
to write or to refuse.
"""

from __future__ import annotations

from trio_proxy.codec.h1.grammar import TARGET
from trio_proxy.codec.h1.machine import h11
from trio_proxy.codec.h1.standins import plain_request
from trio_proxy.http.headers import RelayedFields
from trio_proxy.http.messages import Field, Fields, Request, ResponseHead
from trio_proxy.http.names import INVALID, KINDS, OF_STATE_MACHINE, learn

#: What h11 writes of `plain_request`, and of a request with framing, behind the method.
_STAND_IN = b" / HTTP/1.1\r\nHost: stand-in\r\n"


def write_request(
    machine: h11.Connection, request: Request, fields: Fields, framing: list[Field]
) -> bytes:
    """The head of a request with ``fields``, Host in front of them, and then ``framing``.

    Raises h11's LocalProtocolError for what is no request.
    """
    method, target = request.method, request.target
    block = _block_of(fields, behind_host=True)
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
    block = _block_of(head.fields)
    if block is None:
        whole = h11.Response(status_code=status, headers=[*head.fields, *framing], reason=reason)
        return machine.send(whole) or b""
    event = h11.Response(status_code=status, headers=framing, reason=reason)
    data = machine.send(event) or b""
    end = data.index(b"\n") + 1
    return data[:end] + block + data[end:]


def _block_of(fields: Fields, *, behind_host: bool = False) -> bytes | None:
    """The lines of the fields, or None if one of them is for h11 to act upon or to refuse.

    ``behind_host`` says that the first must be Host, which h11 has been given.
    """
    own = fields.own if isinstance(fields, RelayedFields) else fields
    kinds = INVALID if behind_host else 0
    lines: list[bytes] = []
    for name, value in own:
        if behind_host and not lines and name == b"Host":
            kinds = 0
        else:
            known = KINDS.get(name)
            kinds |= learn(name) if known is None else known
        lines.append(name + b": " + value)
    if kinds & OF_STATE_MACHINE or _has_line_end(b"".join(lines)):
        return None
    if isinstance(fields, RelayedFields):
        begin: int = fields.begin
        lines[begin:begin] = fields.read.lines
    lines.append(b"")
    return b"\r\n".join(lines)


def _has_line_end(text: bytes) -> bool:
    """Whether there is NUL or what may end a line to somebody: h11 refuses these in a value."""
    return 0 in text or 10 in text or 11 in text or 12 in text or 13 in text
