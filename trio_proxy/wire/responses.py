"""From the bytes of a response head to a `ResponseHead`, as strictly as requests are read.

An upstream is trusted more than a client, but a response with two readings would let one answer
be taken for another on a reused connection.
"""

from __future__ import annotations

from trio_proxy.errors import ProtocolError, Reason
from trio_proxy.messages import (
    CHUNKED_BODY,
    CLOSE_DELIMITED_BODY,
    NO_BODY,
    Body,
    Framing,
    ResponseHead,
    list_members,
)
from trio_proxy.wire import grammar
from trio_proxy.wire.requests import HeadLimits, check_only_chunked, content_length, split_fields

_SPECIAL = frozenset((b"connection", b"content-length", b"transfer-encoding", b"upgrade"))


def parse_response(head: bytes, method: bytes, limits: HeadLimits) -> ResponseHead:
    """Check one whole response head to a request of that method.

    Raises ProtocolError for anything that is not well-formed or whose framing is ambiguous.
    """
    match = grammar.RESPONSE_HEAD.fullmatch(head)
    if match is None:
        raise ProtocolError(Reason.RESPONSE_MALFORMED, f"response head {head[:40]!r}")
    fields = split_fields(head, head.index(b"\n") + 1)
    if len(fields) > limits.fields:
        raise ProtocolError(Reason.RESPONSE_MALFORMED, f"{len(fields)} header fields")
    special: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        lower = name.lower()
        if lower in _SPECIAL:
            special.setdefault(lower, []).append(value)
    status, is_http11 = int(match[2]), match[1] == b"1"
    options = list_members(b",".join(special[b"connection"])) if b"connection" in special else ()
    body, declared = _response_body(method, status, special, is_http11)
    return ResponseHead(
        status=status,
        fields=fields,
        reason=match[3] or b"",
        version=b"1." + match[1],
        body=body,
        declared_length=declared,
        keep_alive=b"close" not in options and (is_http11 or b"keep-alive" in options),
        options=options,
        upgrade=b",".join(special.get(b"upgrade", ())),
    )


def _response_body(
    method: bytes, status: int, special: dict[bytes, list[bytes]], is_http11: bool
) -> tuple[Body, int | None]:
    """How the body ends (RFC 9112 §6.3) and the length that the head declares, if it does."""
    codings = special.get(b"transfer-encoding")
    lengths = special.get(b"content-length")
    if codings is not None:
        if lengths is not None:
            raise ProtocolError(Reason.AMBIGUOUS_FRAMING, "Content-Length beside Transfer-Encoding")
        if not is_http11:
            raise ProtocolError(Reason.AMBIGUOUS_FRAMING, "Transfer-Encoding in HTTP/1.0")
        check_only_chunked(codings)
    declared = None if lengths is None else content_length(lengths)
    if method == b"HEAD" or status < 200 or status in (204, 304):
        return NO_BODY, declared
    if codings is not None:
        return CHUNKED_BODY, None
    if declared is not None:
        return Body(Framing.LENGTH, declared), declared
    return CLOSE_DELIMITED_BODY, None
