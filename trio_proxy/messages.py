"""HTTP messages as plain values: what the wire produced and what a handler pushes into a sink.

Header fields are kept as an ordered sequence of ``(name, value)`` byte pairs, names with the
letter case they arrived in: order, case and repeats of end-to-end fields are part of the message.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from attrs import define

Field: TypeAlias = tuple[bytes, bytes]
Fields: TypeAlias = Sequence[Field]


class SortedFields(list[Field]):
    """The fields of a head as they were read, with what was seen of them in the same pass.

    ``plain`` are those that simply go on to the other side, in order; ``kinds`` is the OR of what
    `trio_proxy.names` says about all of them. Who wants other fields puts another list in its
    place: a change of this one would not be noticed.
    """

    __slots__ = ("kinds", "plain")

    kinds: int
    plain: list[Field]


class Framing(enum.Enum):
    """How the end of a body is known (RFC 9112 §6.3)."""

    NONE = "none"
    LENGTH = "content-length"
    CHUNKED = "chunked"
    CLOSE = "close"


@define(init=False)
class Body:
    """The framing of one message body; ``length`` in bytes only for `Framing.LENGTH`."""

    framing: Framing
    length: int
    is_empty: bool

    def __init__(self, framing: Framing, length: int = 0) -> None:
        self.framing = framing
        self.length = length
        self.is_empty = not length and framing in _WITHOUT_MORE


_WITHOUT_MORE = (Framing.NONE, Framing.LENGTH)
NO_BODY = Body(Framing.NONE)
CHUNKED_BODY = Body(Framing.CHUNKED)
CLOSE_DELIMITED_BODY = Body(Framing.CLOSE)


@define(eq=False)
class Request:
    """A request head that passed the strict checks.

    ``target`` is in origin-form or ``*``; an absolute-form target was rewritten. ``host`` is the
    authority that the client asked for, empty only for HTTP/1.0. ``version`` is ``b"1.0"`` or
    ``b"1.1"``. ``upgrade`` is the protocol asked for, empty when none may be switched to.
    """

    method: bytes
    target: bytes
    version: bytes
    host: bytes
    fields: Fields
    body: Body
    keep_alive: bool
    #: The members of Connection, in lower case.
    options: Sequence[bytes] = ()
    #: The values of Via.
    via: Sequence[bytes] = ()
    expects_continue: bool = False
    upgrade: bytes = b""


@define(eq=False)
class ResponseHead:
    """A final or interim response head.

    ``body`` tells how the sender delimits what follows; ``declared_length`` is its Content-Length,
    which an answer to HEAD or a 304 can have without a body.
    """

    status: int
    fields: Fields
    reason: bytes = b""
    version: bytes = b"1.1"
    body: Body = NO_BODY
    declared_length: int | None = None
    keep_alive: bool = True
    options: Sequence[bytes] = ()
    upgrade: bytes = b""


def first_value(fields: Iterable[Field], lower_name: bytes) -> bytes | None:
    """The value of the first field of that (lower-case) name, or None."""
    for name, value in fields:
        if name.lower() == lower_name:
            return value
    return None


def cookie_values(fields: Iterable[Field], prefix: bytes) -> Iterator[bytes]:
    """The cookies whose ``NAME=`` is the prefix (RFC 6265 §4.2); there may be several (§5.4)."""
    for name, value in fields:
        if name.lower() == b"cookie":
            for pair in value.split(b";"):
                cookie = pair.strip(b" \t")
                if cookie.startswith(prefix):
                    yield cookie[len(prefix) :]


def list_members(value: bytes) -> list[bytes]:
    """The non-empty members of a comma-separated list, in lower case (RFC 9110 §5.6.1)."""
    return [member for raw in value.lower().split(b",") if (member := raw.strip(b" \t"))]
