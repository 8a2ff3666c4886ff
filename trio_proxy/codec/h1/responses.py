"""From the bytes of a response head to a `ResponseHead`, as strictly as requests are read.

An upstream is trusted more than a client, but a response with two readings would let one answer
be taken for another on a reused connection.
"""

from __future__ import annotations

from trio_proxy.codec.h1 import grammar
from trio_proxy.codec.h1.fields import read_fields
from trio_proxy.codec.h1.requests import (
    HeadLimits,
    check_only_chunked,
    connection_options,
    content_length,
)
from trio_proxy.http import names
from trio_proxy.http.errors import ProtocolError, Reason
from trio_proxy.http.messages import (
    CHUNKED_BODY,
    CLOSE_DELIMITED_BODY,
    NO_BODY,
    Body,
    Framing,
    ResponseHead,
)


def parse_response(head: bytes, method: bytes, limits: HeadLimits) -> ResponseHead:
    """Check one whole response head to a request of that method.

    Raises ProtocolError for anything that is not well-formed or whose framing is ambiguous.
    """
    lines = head[:-4].split(b"\r\n")
    match = grammar.STATUS_LINE.fullmatch(lines.pop(0))
    if match is None:
        raise ProtocolError(Reason.RESPONSE_MALFORMED, f"response head {head[:40]!r}")
    if len(lines) > limits.fields:
        raise ProtocolError(Reason.RESPONSE_MALFORMED, f"{len(lines)} header fields")
    found = read_fields(head, lines)
    if found is None:
        raise ProtocolError(Reason.RESPONSE_MALFORMED, f"response head {head[:40]!r}")
    fields, values = found
    version, digits, reason = match.groups()
    status, is_http11 = int(digits), version == b"1.1"
    options = connection_options(values)
    body, declared = _response_body(method, status, values, is_http11)
    return ResponseHead(
        status,
        fields,
        reason or b"",
        version=version,
        body=body,
        declared_length=declared,
        keep_alive=b"close" not in options and (is_http11 or b"keep-alive" in options),
        options=options,
        upgrade=b",".join(values.get(names.UPGRADE, ())),
    )


def _response_body(
    method: bytes, status: int, values: dict[int, list[bytes]], is_http11: bool
) -> tuple[Body, int | None]:
    """How the body ends (RFC 9112 §6.3) and the length that the head declares, if it does."""
    codings = values.get(names.TRANSFER_ENCODING)
    lengths = values.get(names.CONTENT_LENGTH)
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
