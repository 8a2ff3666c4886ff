"""HTTP messages as plain values: what the wire produced and what a handler pushes into a sink.

Their fields are `Headers` of their own: those that a message is made with are copied. Trailers are
bare sequences of ``(name, value)`` byte pairs.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias

from trio_proxy.http.headers import Field as Field
from trio_proxy.http.headers import Fields as Fields
from trio_proxy.http.headers import own_headers

#: A piece of a body. A memoryview is of a shared buffer, and only valid until the next await.
Chunk: TypeAlias = bytes | bytearray | memoryview

#: How much of a body is read at once, in bytes, by whoever does not say.
CONTENT_PIECE_BYTES = 256 * 1024


class Framing(enum.Enum):
    """How the end of a body is known (RFC 9112 §6.3)."""

    NONE = "none"
    LENGTH = "content-length"
    CHUNKED = "chunked"
    CLOSE = "close"


class Body:
    """The framing of one message body; ``length`` in bytes only for `Framing.LENGTH`."""

    __slots__ = ("framing", "is_empty", "length")

    def __init__(self, framing: Framing, length: int = 0) -> None:
        self.framing = framing
        self.length = length
        self.is_empty = not length and framing in _WITHOUT_MORE

    def __repr__(self) -> str:
        return f"<Body {self.framing.value} {self.length}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Body):
            return NotImplemented
        return self.framing is other.framing and self.length == other.length

    def __hash__(self) -> int:
        return hash((self.framing, self.length))


_WITHOUT_MORE = (Framing.NONE, Framing.LENGTH)
NO_BODY = Body(Framing.NONE)
CHUNKED_BODY = Body(Framing.CHUNKED)
CLOSE_DELIMITED_BODY = Body(Framing.CLOSE)


class Content(Protocol):
    """A request's body, read at the reader's pace: what is not read stays with the client.

    Its methods raise `ProxyError` if the client breaks framing, leaves, or sends too much.
    """

    @property
    def complete(self) -> bool:
        """Whether the whole body has been taken."""
        ...

    @property
    def trailers(self) -> Fields:
        """Trailer fields, once complete."""
        ...

    @property
    def awaits_continue(self) -> bool:
        """Whether the client holds its body back until it is told to go on (RFC 9110 §10.1.1)."""
        ...

    def take_nowait(self) -> bytes:
        """What has been read off the connection already, decoded; possibly nothing."""
        ...

    def receive_nowait(self, most: int) -> Chunk | None:
        """The next piece if it is there, None if it is not; otherwise like `receive`."""
        ...

    async def receive(self, most: int = CONTENT_PIECE_BYTES) -> Chunk:
        """The next piece, within the budget of `Wait.BODY`; empty if none came before the end.

        ``most`` bounds what is read of a body of known length, in bytes. A memoryview is of a
        shared buffer and only valid until the next await.
        """
        ...


class NoContent:
    """The content of a request without a body."""

    complete = True
    trailers: Fields = ()
    awaits_continue = False

    def take_nowait(self) -> bytes:
        return b""

    def receive_nowait(self, most: int) -> Chunk | None:
        return b""

    async def receive(self, most: int = CONTENT_PIECE_BYTES) -> Chunk:
        return b""


NO_CONTENT = NoContent()


class Request:
    """A request head that passed the strict checks, and the content behind it.

    ``target`` is in origin-form or ``*``; an absolute-form target was rewritten. ``host`` is the
    authority that the client asked for, empty only for HTTP/1.0. ``version`` is ``b"1.0"`` or
    ``b"1.1"``. ``options`` are the members of Connection, in lower case, and ``via`` the values of
    Via. ``upgrade`` is the protocol asked for, empty when none may be switched to. ``body`` says
    how the body is framed; ``content`` gives it out.

    What these attributes tell goes by them to the upstream: a change of Host, Connection, Expect,
    Upgrade or the framing among the ``fields`` does not change it.
    """

    __slots__ = (
        "body",
        "content",
        "expects_continue",
        "fields",
        "host",
        "keep_alive",
        "method",
        "options",
        "target",
        "upgrade",
        "version",
        "via",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        version: bytes,
        host: bytes,
        fields: Iterable[tuple[bytes | str, bytes | str]],
        *,
        body: Body,
        keep_alive: bool,
        options: Sequence[bytes] = (),
        via: Sequence[bytes] = (),
        expects_continue: bool = False,
        upgrade: bytes = b"",
    ) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.host = host
        self.fields = own_headers(fields)
        self.body = body
        self.keep_alive = keep_alive
        self.options = options
        self.via = via
        self.expects_continue = expects_continue
        self.upgrade = upgrade
        self.content: Content = NO_CONTENT

    def __repr__(self) -> str:
        return f"<Request {self.method!r} {self.target!r} {self.version!r} {self.body!r}>"


class ResponseHead:
    """A final or interim response head.

    ``body`` tells how the sender delimits what follows; ``declared_length`` is its Content-Length,
    which an answer to HEAD or a 304 can have without a body. ``options`` are the members of
    Connection, in lower case.
    """

    __slots__ = (
        "body",
        "declared_length",
        "fields",
        "keep_alive",
        "options",
        "reason",
        "status",
        "upgrade",
        "version",
    )

    def __init__(
        self,
        status: int,
        fields: Iterable[tuple[bytes | str, bytes | str]],
        reason: bytes = b"",
        *,
        version: bytes = b"1.1",
        body: Body = NO_BODY,
        declared_length: int | None = None,
        keep_alive: bool = True,
        options: Sequence[bytes] = (),
        upgrade: bytes = b"",
    ) -> None:
        self.status = status
        self.fields = own_headers(fields)
        self.reason = reason
        self.version = version
        self.body = body
        self.declared_length = declared_length
        self.keep_alive = keep_alive
        self.options = options
        self.upgrade = upgrade

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status} {self.body!r}>"

    def forget_length(self) -> None:
        """The body will be another one: how long it is shows only when it has ended.

        Fields that tell of the body that was (``ETag``, ``Content-Range``, digests) are left to
        whoever knows how it changes.
        """
        self.declared_length = None
        if not self.body.is_empty:
            self.body = CHUNKED_BODY


def list_members(value: bytes) -> list[bytes]:
    """The non-empty members of a comma-separated list, in lower case (RFC 9110 §5.6.1)."""
    return [member for raw in value.lower().split(b",") if (member := raw.strip(b" \t"))]
