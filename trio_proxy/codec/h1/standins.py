"""What h11 is told of a head that was read: as much of it as its state machine acts upon.

The head itself was checked and understood before, more strictly than h11 would, so h11 is not given
the bytes to parse anew. It is given the event of a short head that amounts to the same: version,
method or status, Connection, Upgrade, and chunked framing. Of a body of known length, or of one up
to the end of the connection, it is told nothing: it never sees a byte of one. An expectation is a
fact of the request; h11 would forget it too soon.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from trio_proxy.codec.h1.machine import h11, process_event
from trio_proxy.http.errors import ProtocolError, Reason
from trio_proxy.http.messages import CHUNKED_BODY, Field, Request, ResponseHead

_HOST = (b"Host", b"stand-in")
_CHUNKED = (b"Transfer-Encoding", b"chunked")
_CLOSE = (b"Connection", b"close")
_UPGRADE = ((b"Connection", b"upgrade"), (b"Upgrade", b"stand-in"))

_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
#: Events of heads with nothing special about them; events are immutable.
_PLAIN_REQUESTS = {
    method: h11.Request(method=method, target=b"/", headers=[_HOST]) for method in _METHODS
}
_PLAIN_RESPONSES = {
    int(status): h11.Response(status_code=status, headers=[])
    for status in HTTPStatus
    if status >= 200
}


def plain_request(method: bytes, framing: Sequence[Field] = ()) -> h11.Request:
    """An HTTP/1.1 request of that method for ``/`` with nothing special about it."""
    known = None if framing else _PLAIN_REQUESTS.get(method)
    return known or h11.Request(method=method, target=b"/", headers=[_HOST, *framing])


def tell_of_request(machine: h11.Connection, request: Request) -> None:
    """Have h11 know that ``request`` has come, as if it had read it."""
    is_chunked = request.body is CHUNKED_BODY
    if request.keep_alive and request.version == b"1.1" and not (is_chunked or request.upgrade):
        _tell(machine, plain_request(request.method))
        return
    headers = [_HOST]
    if not request.keep_alive:
        headers.append(_CLOSE)
    if request.upgrade:
        headers += _UPGRADE
    if is_chunked:
        headers.append(_CHUNKED)
    event = h11.Request(
        method=request.method, target=b"/", headers=headers, http_version=request.version
    )
    _tell(machine, event)


def tell_of_response(machine: h11.Connection, head: ResponseHead) -> None:
    """Have h11 know that a response, interim or final, has come, as if it had read it."""
    is_chunked, status = head.body is CHUNKED_BODY, head.status
    if head.keep_alive and head.version == b"1.1" and not is_chunked:
        known = _PLAIN_RESPONSES.get(status)
        if known is not None:
            _tell(machine, known)
            return
    headers = [] if head.keep_alive else [_CLOSE]
    if is_chunked:
        headers.append(_CHUNKED)
    kind = h11.InformationalResponse if status < 200 else h11.Response
    _tell(machine, kind(status_code=status, headers=headers, http_version=head.version))


def _tell(machine: h11.Connection, event: h11.Event) -> None:
    try:
        process_event(machine, event)
    except h11.LocalProtocolError as exc:
        raise ProtocolError(Reason.MALFORMED_REQUEST, str(exc)) from exc
