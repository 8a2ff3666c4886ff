"""h11 fed with real bytes, as the referee of what the codec tells it instead.

The codec reads heads itself and tells h11 of each as of an event, a stand-in for what came. Here a
second h11 reads the very bytes of the same message. Both must be in the same state afterwards, and
must come to the same end: what is read of a body, what an answer to it looks like, and whether the
connection can be kept. Every conversation of `support.wire_conversation` is had before it.

They are meant to differ in this, and in nothing else:

- h11 is not told of bodies whose end is no business of chunked framing; the codec counts them.
- It is not told of an expectation; that is a fact of the request.
- It is not told of an Upgrade that is not to be taken up, which would make it pause.
- It would refuse an empty line in front of a request.
"""

from __future__ import annotations

from trio_proxy.codec.h1.machine import h11, process_event
from trio_proxy.codec.h1.reader import MAX_H11_BUFFER
from trio_proxy.codec.h1.standins import tell_of_request, tell_of_response
from trio_proxy.http.messages import Field, Fields, Framing, Request, ResponseHead

_END = h11.EndOfMessage()


class Referee:
    """One message that comes: ``told`` knows of it what the codec says, ``reading`` reads it."""

    def __init__(self, told: h11.Connection, reading: h11.Connection) -> None:
        self.told = told
        self.reading = reading
        self._is_chunked = False
        self._may_pause = False
        self._has_ended = False

    def request(self, data: bytes, request: Request) -> None:
        """The head of a request was ``data``, and was understood as this."""
        event = self._read_head(data.removeprefix(b"\r\n"))
        assert isinstance(event, h11.Request)
        assert event.method == request.method
        self._compare_fields(event, request)
        tell_of_request(self.told, request)
        assert self.reading.they_are_waiting_for_100_continue or not request.expects_continue
        self._may_pause = b"upgrade" in dict(event.headers) and not request.upgrade
        self._begin_body(request)

    def response(self, data: bytes, head: ResponseHead) -> None:
        """The head of a response, interim or final, was ``data``, and was understood as this."""
        event = self._read_head(data)
        assert isinstance(event, h11.InformationalResponse | h11.Response)
        assert (event.status_code, event.reason) == (head.status, head.reason)
        self._compare_fields(event, head)
        tell_of_response(self.told, head)
        self._begin_body(head)

    def _read_head(self, data: bytes) -> object:
        self.reading.receive_data(data)
        return self.reading.next_event()

    def _compare_fields(
        self, event: h11.Request | h11.InformationalResponse | h11.Response, head: object
    ) -> None:
        assert isinstance(head, Request | ResponseHead)
        assert event.http_version == head.version
        assert _comparable(event.headers.raw_items()) == _comparable(head.fields)

    def _begin_body(self, head: Request | ResponseHead) -> None:
        self._is_chunked = head.body.framing is Framing.CHUNKED
        assert self.told.states == self.reading.states
        assert self.told.their_http_version == self.reading.their_http_version

    def body(self, data: bytes, content: bytes, trailers: Fields, *, complete: bool) -> None:
        """Of ``data`` this content was read; ``complete`` if that was the end of the message."""
        if self._has_ended:
            assert not data
            return
        assert _read_body(self.reading, data) == (content, list(trailers), complete)
        if self._is_chunked:
            assert _read_body(self.told, data) == (content, list(trailers), complete)
        elif complete:
            process_event(self.told, _END)
        self._has_ended = complete
        self._compare_states()

    def end(self, *, complete: bool) -> None:
        """The connection has ended, and with it perhaps the body."""
        if complete and not self._has_ended:
            self.reading.receive_data(b"")
            assert isinstance(self.reading.next_event(), h11.EndOfMessage)
            process_event(self.told, _END)
            self._compare_states()

    def _compare_states(self) -> None:
        if not self._may_pause:
            assert self.told.states == self.reading.states

    def answer(self) -> None:
        """The request is complete: both are asked to answer it, and say what follows."""
        answers = [_answered(machine) for machine in (self.told, self.reading)]
        assert answers[0] == answers[1]


def of_requests() -> Referee:
    """For one request of a client."""
    told, reading = (h11.Connection(h11.SERVER, MAX_H11_BUFFER) for _ in range(2))
    return Referee(told, reading)


def of_responses(method: bytes, upgrade: bytes) -> Referee:
    """For the responses to one request without a body, with that Upgrade if it is not empty."""
    fields = [(b"Host", b"example.com")]
    if upgrade:
        fields += [(b"Connection", b"upgrade"), (b"Upgrade", upgrade)]
    machines = []
    for _ in range(2):
        machine = h11.Connection(h11.CLIENT, MAX_H11_BUFFER)
        machine.send(h11.Request(method=method, target=b"/", headers=fields))
        machine.send(_END)
        machines.append(machine)
    return Referee(*machines)


def _comparable(fields: Fields) -> list[Field]:
    """The fields, but for the letter case of a coding's name, which h11 does not keep."""
    return [
        (name, value.lower() if name.lower() == b"transfer-encoding" else value)
        for name, value in fields
    ]


def _read_body(machine: h11.Connection, data: bytes) -> tuple[bytes, list[object], bool]:
    """The content that these bytes hold, the trailers, and whether the message has ended."""
    if data:
        machine.receive_data(data)
    content, trailers = b"", []
    while isinstance(event := machine.next_event(), h11.Data | h11.EndOfMessage):
        if isinstance(event, h11.EndOfMessage):
            trailers = list(event.headers.raw_items())
            return content, trailers, True
        content += event.data
    return content, trailers, False


def _answered(machine: h11.Connection) -> tuple[bytes, object]:
    """What the machine writes for an answer without framing, and the states that it ends in."""
    data = machine.send(h11.Response(status_code=200, headers=[])) or b""
    return data + (machine.send(_END) or b""), machine.states
