"""Both ends of HTTP/1.1 as bytes in, bytes out: h11 behind strict checks, without any IO.

A `ServerWire` lives as long as a client connection, a `ClientWire` as long as an upstream
connection; each takes a fresh h11 state machine for every request, so that no state leaks from
one exchange into the next. Who does what:

- Heads are found, checked and understood here (`grammar`, `fields`). h11 is told of each, as of an
  event, what its state machine acts upon (`standins`), so it still judges what may follow what, and
  decodes and encodes chunks; it does not parse anew what a stricter reader has parsed.
- h11 writes the first line and the framing of what is sent, never what came. The checked fields on
  which no framing depends are written between them, in one form (`heads`). Everything that it acts
  upon or would refuse goes through h11.
- Chunked bodies are checked by `ChunkGuard`, decoded and encoded by h11.
- A body of known length is opaque. Its bytes are counted here and may bypass `feed` altogether
  (`count_bypassed`), so that a large one can move from socket to socket without becoming small
  objects. h11 still referees the sending side: it counts what it is told was sent and refuses to
  end a message too early or too late.

Rejected: one h11 connection kept with ``start_next_cycle``. It needs h11 to have seen every body
byte, and a new state machine costs 0.9 µs.
"""

from __future__ import annotations

from trio_proxy.codec.h1.grammar import FORBIDDEN_IN_HEAD
from trio_proxy.codec.h1.heads import write_request, write_response
from trio_proxy.codec.h1.machine import h11, process_event
from trio_proxy.codec.h1.reader import MAX_H11_BUFFER, Wire
from trio_proxy.codec.h1.requests import HeadLimits, check_incomplete, parse_request
from trio_proxy.codec.h1.responses import parse_response
from trio_proxy.codec.h1.standins import plain_request, tell_of_request, tell_of_response
from trio_proxy.http.errors import ProtocolError, Reason
from trio_proxy.http.headers import Field, Headers
from trio_proxy.http.messages import (
    NO_BODY,
    Framing,
    Request,
    ResponseHead,
    list_members,
)

#: Bytes of a refused request line that are kept for the log.
MAX_LOGGED_LINE = 256


class ServerWire(Wire):
    """The proxy's side of a client connection: reads requests, writes responses."""

    def __init__(self, limits: HeadLimits) -> None:
        super().__init__(h11.SERVER, limits)
        self._method = b"GET"
        self._is_http10 = False
        self._skipped_empty_line = False
        #: The beginning of a request line that was refused, for the log.
        self.refused_line = b""

    def start_cycle(self, limits: HeadLimits) -> None:
        """Forget the last exchange, but not what the client has sent beyond it."""
        self._limits = limits
        self._h11 = h11.Connection(h11.SERVER, MAX_H11_BUFFER)
        self._expect_body(NO_BODY)
        self._method = b"GET"
        self._is_http10 = False
        self._skipped_empty_line = False

    @property
    def has_begun(self) -> bool:
        """Whether something of a request is there; an empty line in front of it is nothing yet."""
        return self._buffer not in (b"", b"\r", b"\r\n")

    def next_request(self) -> Request | None:
        """The next request head, or None until more is fed.

        Raises ProtocolError as soon as it is certain that no request can come of what was fed.
        """
        if not self._skipped_empty_line and self._buffer.startswith(b"\r\n"):
            # RFC 9112 §2.2: ignore an empty line in front of a request line; one, not any number.
            self._buffer = self._buffer[2:]
            self._skipped_empty_line = True
            self._searched = 0
        if self._buffer == b"\r":
            return None
        head = self._next_head()
        if head is None:
            try:
                check_incomplete(self._buffer, self._searched_before(), self._limits)
            except ProtocolError:
                self._note_refused(self._buffer)
                raise
            return None
        try:
            if len(head) > self._limits.head_bytes:
                raise ProtocolError(Reason.HEAD_TOO_LARGE, f"{len(head)} bytes")
            request = parse_request(head, self._limits)
        except ProtocolError:
            self._note_refused(head)
            raise
        tell_of_request(self._h11, request)
        self._method = request.method
        self._is_http10 = request.version == b"1.0"
        self._expect_body(request.body)
        return request

    def _note_refused(self, head: bytes) -> None:
        self.refused_line = head[:MAX_LOGGED_LINE].partition(b"\r\n")[0]

    def encode_interim(self, head: ResponseHead) -> bytes:
        """A 1xx response, 101 included."""
        return write_response(self._h11, head, [])

    def encode_head(self, head: ResponseHead, *, keep_alive: bool) -> bytes:
        """A final response head with exactly one framing field (none where there can be no body).

        ``head.fields`` holds end-to-end fields only. A body that is not of known length is sent
        chunked, or to an HTTP/1.0 client up to the end of the connection.
        """
        framing: list[Field] = []
        if head.declared_length is not None and head.status != 204:
            framing.append((b"Content-Length", b"%d" % head.declared_length))
        if not keep_alive:
            framing.append((b"Connection", b"close"))
        elif self._is_http10:
            self.start_response_anew()
            framing.append((b"Connection", b"keep-alive"))
        has_length = head.declared_length is not None or head.status in (204, 304)
        self._sends_chunked = not (has_length or self._is_http10 or self._method == b"HEAD")
        return write_response(self._h11, head, framing)

    def can_keep_alive(self, head: ResponseHead) -> bool:
        """Whether the client will know where this response ends without a close."""
        if not self._is_http10:
            return True
        return head.declared_length is not None or head.status in (204, 304)

    def start_response_anew(self) -> None:
        """Let h11 write a response whatever it was told before; nothing of another may have left.

        That is also how an HTTP/1.0 client is answered that asked for keep-alive, which h11 does
        not know.

        The state machine is told of an equal HTTP/1.1 request. It is only used to write a response
        of known length, and an HTTP/1.0 request has no chunked body that h11 would have to read.
        """
        self._h11 = h11.Connection(h11.SERVER, MAX_H11_BUFFER)
        process_event(self._h11, plain_request(self._method))


class ClientWire(Wire):
    """The proxy's side of an upstream connection: writes requests, reads responses."""

    def __init__(self, limits: HeadLimits) -> None:
        super().__init__(h11.CLIENT, limits)
        self._method = b"GET"
        self._upgrade = b""

    def encode_head(self, request: Request, fields: Headers, limits: HeadLimits) -> bytes:
        """Start a cycle: the request head with ``fields`` and exactly one framing field.

        ``fields`` holds Host, the end-to-end fields, and Connection with Upgrade if asked for.
        """
        self._limits = limits
        self._h11 = h11.Connection(h11.CLIENT, MAX_H11_BUFFER)
        self._method = request.method
        self._upgrade = request.upgrade
        self._expect_body(NO_BODY)
        self._sends_chunked = request.body.framing is Framing.CHUNKED
        framing: list[Field] = []
        if self._sends_chunked:
            framing.append((b"Transfer-Encoding", b"chunked"))
        elif request.body.framing is Framing.LENGTH:
            framing.append((b"Content-Length", b"%d" % request.body.length))
        return write_request(self._h11, request, fields, framing)

    def next_response(self) -> ResponseHead | None:
        """The next interim or final response head, or None until more is fed.

        Raises ProtocolError if no well-formed response can come of what was fed.
        """
        head = self._next_head()
        size = len(self._buffer) if head is None else len(head)
        if size > self._limits.head_bytes:
            raise ProtocolError(Reason.RESPONSE_MALFORMED, f"response head of {size} bytes")
        if head is None:
            if FORBIDDEN_IN_HEAD.search(self._buffer, max(0, self._searched_before() - 1)):
                raise ProtocolError(Reason.RESPONSE_MALFORMED, "bare CR, LF or control in a head")
            return None
        response = parse_response(head, self._method, self._limits)
        if response.status == 101:
            self._check_upgrade(response)
        tell_of_response(self._h11, response)
        if response.status >= 200:
            self._expect_body(response.body)
        return response

    def _check_upgrade(self, response: ResponseHead) -> None:
        """RFC 9110 §7.8: a switch only to a protocol that was asked for."""
        chosen = list_members(response.upgrade)
        if not chosen or not set(list_members(self._upgrade)).issuperset(chosen):
            raise ProtocolError(Reason.UPGRADE_FAILED, f"switch to {response.upgrade[:40]!r}")
