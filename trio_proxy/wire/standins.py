"""What h11 is told of a head that was read: as much of it as its state machine acts upon.

The head itself was checked and understood before, more strictly than h11 would, so h11 reads a
short one that amounts to the same: version, method or status, Connection, Upgrade, and chunked
framing. Of a body of known length, or of one up to the end of the connection, it is told nothing:
it never sees a byte of one. An expectation is a fact of the request; h11 would forget it too soon.
"""

from __future__ import annotations

from trio_proxy.messages import CHUNKED_BODY, Request, ResponseHead

_HOST = b"Host: stand-in\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_CLOSE = b"Connection: close\r\n"
_UPGRADE = b"Connection: upgrade\r\nUpgrade: stand-in\r\n"


def plain_request(method: bytes) -> bytes:
    """An HTTP/1.1 request of that method with nothing special about it."""
    return b"%b / HTTP/1.1\r\nHost: stand-in\r\n\r\n" % method


def request_stand_in(request: Request) -> bytes:
    """The head that h11 reads in place of that of ``request``."""
    is_chunked = request.body is CHUNKED_BODY
    if request.keep_alive and request.version == b"1.1" and not (is_chunked or request.upgrade):
        return plain_request(request.method)
    return b"%b / HTTP/%b\r\n%b%b%b%b\r\n" % (
        request.method,
        request.version,
        _HOST,
        b"" if request.keep_alive else _CLOSE,
        _UPGRADE if request.upgrade else b"",
        _CHUNKED if is_chunked else b"",
    )


def response_stand_in(head: ResponseHead) -> bytes:
    """The head that h11 reads in place of that of a response."""
    return b"HTTP/%b %d\r\n%b%b\r\n" % (
        head.version,
        head.status,
        b"" if head.keep_alive else _CLOSE,
        _CHUNKED if head.body is CHUNKED_BODY else b"",
    )
