"""How the tests of the wire speak: literal bytes in, what was understood out.

Every conversation can be had in three ways: all bytes in one read, one byte per read, and in one
read with the beginning of another message behind them. What is understood must not depend on it.

Beside each wire an h11 reads the same bytes, as the referee of what the wire's own is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import define, field

from support import h11_referee
from support.h11_referee import Referee
from trio_proxy.codec.h1.requests import HeadLimits
from trio_proxy.codec.h1.wire import ClientWire, ServerWire
from trio_proxy.http.errors import ProtocolError, Reason
from trio_proxy.http.headers import Headers
from trio_proxy.http.messages import Fields, Request, ResponseHead

LIMITS = HeadLimits()
WAYS = ("whole", "byte_by_byte", "more_behind")
HOST = b"Host: example.com\r\n"
MORE_REQUESTS = b"GET /behind HTTP/1.1\r\nHost: behind.example\r\n\r\n"
MORE_RESPONSES = b"HTTP/1.1 299 Behind\r\nContent-Length: 0\r\n\r\n"


def split(data: bytes, way: str, more: bytes) -> list[bytes]:
    """The reads in which ``data`` arrives."""
    if way == "byte_by_byte":
        return [data[i : i + 1] for i in range(len(data))]
    return [data + more] if way == "more_behind" else [data]


@define
class Message:
    """One message that was understood; ``complete`` if its end has come."""

    head: Request | ResponseHead
    body: bytes = b""
    trailers: Fields = ()
    complete: bool = False


@define
class Heard:
    """All that one side of a connection understood, and why it stopped listening, if it did."""

    messages: list[Message] = field(factory=list)
    error: ProtocolError | None = None
    leftover: bytes = b""

    @property
    def facts(self) -> list[object]:
        """For comparing two ways of hearing the same bytes."""
        heads = [m.head for m in self.messages]
        starts = [
            (h.method, h.target, h.version) if isinstance(h, Request) else (h.status, h.reason)
            for h in heads
        ]
        refused = self.error is not None
        # What of a body comes out before it breaks depends on how much of it is there.
        bodies = [m.body if m.complete or not refused else b"" for m in self.messages]
        rest = [(list(m.head.fields), list(m.trailers), m.complete) for m in self.messages]
        return [starts, bodies, rest, refused]


def hear_requests(pieces: Iterable[bytes], limits: HeadLimits = LIMITS) -> Heard:
    """Read requests as a connection does, each answered the moment that it is complete."""
    wire, heard = ServerWire(limits), Heard()
    wire.start_cycle(limits)
    current: Message | None = None
    referee = h11_referee.of_requests()
    try:
        for piece in pieces:
            wire.feed(piece)
            while True:
                if current is None:
                    request = _next_request(wire, referee)
                    if request is None:
                        break
                    current = Message(request)
                    heard.messages.append(current)
                _take_body(wire, current, referee)
                if not current.complete:
                    break
                current = None
                referee.answer()
                referee = h11_referee.of_requests()
                wire.start_cycle(limits)
    except ProtocolError as exc:
        heard.error = exc
    heard.leftover = wire.leftover
    return heard


def hear_response(
    pieces: Iterable[bytes],
    method: bytes = b"GET",
    *,
    upgrade: bytes = b"",
    eof: bool = False,
    limits: HeadLimits = LIMITS,
) -> Heard:
    """Read the interim and the final response to one request of that method."""
    wire, heard = asked(method, upgrade=upgrade, limits=limits), Heard()
    final: Message | None = None
    referee = h11_referee.of_responses(method, upgrade)
    try:
        for piece in pieces:
            wire.feed(piece)
            while final is None and (head := _next_response(wire, referee)) is not None:
                message = Message(head)
                heard.messages.append(message)
                message.complete = head.status < 200
                if head.status >= 200 or head.status == 101:
                    final = message
            if final is not None and final.head.status != 101:
                _take_body(wire, final, referee)
        if eof:
            wire.feed_eof()
            if final is not None:
                final.complete = wire.body_complete
                if final.head.status != 101:
                    referee.end(complete=final.complete)
    except ProtocolError as exc:
        heard.error = exc
    heard.leftover = wire.leftover
    return heard


def _next_request(wire: ServerWire, referee: Referee) -> Request | None:
    before = wire.leftover
    request = wire.next_request()
    if request is not None:
        referee.request(_taken(before, wire), request)
    return request


def _next_response(wire: ClientWire, referee: Referee) -> ResponseHead | None:
    before = wire.leftover
    head = wire.next_response()
    if head is not None:
        referee.response(_taken(before, wire), head)
    return head


def _take_body(wire: ServerWire | ClientWire, message: Message, referee: Referee) -> None:
    before = wire.leftover
    content = wire.take_body()
    message.body += content
    message.complete = wire.body_complete
    message.trailers = wire.trailers
    data = _taken(before, wire)
    referee.body(data, content, wire.trailers, complete=wire.body_complete)


def _taken(before: bytes, wire: ServerWire | ClientWire) -> bytes:
    """What a wire has taken of the bytes that it had."""
    return before[: len(before) - len(wire.leftover)]


def asked(
    method: bytes = b"GET", *, upgrade: bytes = b"", limits: HeadLimits = LIMITS
) -> ClientWire:
    """An upstream connection on which a request without a body has been sent."""
    wire = ClientWire(limits)
    wish = b"Connection: upgrade\r\nUpgrade: %s\r\n" % upgrade if upgrade else b""
    request = parsed(b"%s / HTTP/1.1\r\n%s%s\r\n" % (method, HOST, wish))
    fields = Headers([(b"Host", b"example.com")])
    if upgrade:
        fields.add(b"Connection", b"upgrade")
        fields.add(b"Upgrade", upgrade)
    wire.encode_head(request, fields, limits)
    wire.encode_end()
    return wire


def parsed(head: bytes) -> Request:
    """The request of a whole head that is well-formed."""
    wire = ServerWire(LIMITS)
    wire.feed(head)
    request = _next_request(wire, h11_referee.of_requests())
    assert request is not None
    return request


def served(head: bytes = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n") -> ServerWire:
    """A client connection on which a request has been read."""
    wire = ServerWire(LIMITS)
    wire.feed(head)
    assert _next_request(wire, h11_referee.of_requests()) is not None
    return wire


def joined(parts: Sequence[object]) -> bytes:
    """What the pieces to send amount to."""
    return b"".join(bytes(part) for part in parts)  # type: ignore[call-overload]


def head(
    *fields: bytes, method: bytes = b"GET", target: bytes = b"/", version: bytes = b"HTTP/1.1"
) -> bytes:
    """A head with a Host in front of ``fields``."""
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"%s %s %s\r\n%s%s\r\n" % (method, target, version, HOST, lines)


def first(data: bytes, way: str) -> Message:
    """The first message, which must be accepted."""
    heard = hear_requests(split(data, way, MORE_REQUESTS))
    assert heard.error is None
    return heard.messages[0]


def refusal(data: bytes, way: str) -> Reason:
    """Why nothing was understood."""
    heard = hear_requests(split(data, way, MORE_REQUESTS))
    assert heard.messages == []
    assert heard.error is not None
    return heard.error.reason
