"""From the bytes of a request head to a `Request`, or a `ProtocolError` that says why not.

What is ambiguous is refused, never guessed (RFC 9112 §3.2, §6.1, §6.3 and §11.2).
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from trio_proxy.codec.h1 import grammar
from trio_proxy.codec.h1.fields import read_fields
from trio_proxy.http import names
from trio_proxy.http.errors import ProtocolError, Reason
from trio_proxy.http.headers import Headers
from trio_proxy.http.messages import CHUNKED_BODY, NO_BODY, Body, Framing, Request, list_members


@frozen
class HeadLimits:
    """Bounds on a head: bytes in all, number of fields, bytes of the request target."""

    head_bytes: int = 32768
    fields: int = 100
    target_bytes: int = 8192


def parse_request(head: bytes, limits: HeadLimits) -> Request:
    """Check one whole head, its closing empty line included.

    Raises ProtocolError with the reason for anything that is not a well-formed request whose
    framing, host and target have exactly one reading.
    """
    lines = head[:-4].split(b"\r\n")
    match = grammar.REQUEST_LINE.fullmatch(lines.pop(0))
    if match is None:
        raise ProtocolError(Reason.MALFORMED_REQUEST, "malformed request line")
    method, target, version = match.groups()
    if version not in (b"1.1", b"1.0"):
        raise ProtocolError(Reason.VERSION_NOT_SUPPORTED, f"HTTP/{version.decode()}")
    if len(target) > limits.target_bytes:
        raise ProtocolError(Reason.TARGET_TOO_LONG, f"target of {len(target)} bytes")
    if len(lines) > limits.fields:
        raise ProtocolError(Reason.HEAD_TOO_LARGE, f"{len(lines)} header fields")
    found = read_fields(head, lines)
    if found is None:
        raise ProtocolError(Reason.MALFORMED_REQUEST, "malformed header field")
    if method in (b"CONNECT", b"TRACE"):
        # A reverse proxy is no tunnel, and TRACE echoes credentials: nginx refuses both as well.
        raise ProtocolError(Reason.METHOD_NOT_SUPPORTED, method.decode())
    return _interpret(method, target, version, *found)


def _interpret(
    method: bytes,
    target: bytes,
    version: bytes,
    fields: Headers,
    values: dict[int, list[bytes]],
) -> Request:
    is_http11 = version == b"1.1"
    body = _request_body(values, is_http11)
    target, host = _target_and_host(method, target, is_http11, values.get(names.HOST, []))
    options = connection_options(values)
    upgrade = b""
    if b"upgrade" in options and names.UPGRADE in values and is_http11 and body.is_empty:
        upgrade = _protocol_to_switch_to(values[names.UPGRADE])
    expects_continue = False
    if names.EXPECT in values and is_http11 and not body.is_empty:
        expects_continue = [value.lower() for value in values[names.EXPECT]] == [b"100-continue"]
    return Request(
        method,
        target,
        version,
        host,
        fields,
        body=body,
        keep_alive=b"close" not in options and (is_http11 or b"keep-alive" in options),
        options=options,
        via=values.get(names.VIA, ()),
        expects_continue=expects_continue,
        upgrade=upgrade,
    )


#: What Connection says nearly always; one list for all heads, which nobody changes.
_USUAL_OPTIONS = {
    value: list_members(value) for value in (b"keep-alive", b"Keep-Alive", b"close", b"Close")
}


def connection_options(values: dict[int, list[bytes]]) -> Sequence[bytes]:
    """The members of Connection, in lower case."""
    named = values.get(names.CONNECTION)
    if named is None:
        return ()
    value = named[0] if len(named) == 1 else b",".join(named)
    return _USUAL_OPTIONS.get(value) or list_members(value)


def _request_body(values: dict[int, list[bytes]], is_http11: bool) -> Body:
    codings = values.get(names.TRANSFER_ENCODING)
    lengths = values.get(names.CONTENT_LENGTH)
    if codings is None:
        return NO_BODY if lengths is None else Body(Framing.LENGTH, content_length(lengths))
    if lengths is not None:
        raise ProtocolError(Reason.AMBIGUOUS_FRAMING, "Content-Length beside Transfer-Encoding")
    if not is_http11:
        raise ProtocolError(Reason.AMBIGUOUS_FRAMING, "Transfer-Encoding in HTTP/1.0")
    check_only_chunked(codings)
    return CHUNKED_BODY


def content_length(values: list[bytes]) -> int:
    """The one length that a message declares; a repeated field is refused even if it agrees."""
    if len(values) != 1:
        raise ProtocolError(Reason.AMBIGUOUS_FRAMING, "repeated Content-Length")
    if grammar.CONTENT_LENGTH.fullmatch(values[0]) is None:
        raise ProtocolError(Reason.AMBIGUOUS_FRAMING, f"Content-Length {values[0][:40]!r}")
    return int(values[0])


def check_only_chunked(codings: list[bytes]) -> None:
    """Refuse every Transfer-Encoding but a single ``chunked``."""
    if len(codings) == 1 and codings[0].lower() == b"chunked":
        return
    members = list_members(b",".join(codings))
    unknown = [name for name in members if name != b"chunked"]
    if members and members.count(b"chunked") <= 1 and members[-1] == b"chunked" and unknown:
        raise ProtocolError(Reason.UNKNOWN_TRANSFER_CODING, f"{unknown[0][:40]!r}")
    if len(members) == 1 and grammar.TOKEN.fullmatch(members[0]) and members[0] != b"chunked":
        raise ProtocolError(Reason.UNKNOWN_TRANSFER_CODING, f"{members[0][:40]!r}")
    raise ProtocolError(Reason.AMBIGUOUS_FRAMING, "Transfer-Encoding is not a single 'chunked'")


def _target_and_host(
    method: bytes, target: bytes, is_http11: bool, hosts: list[bytes]
) -> tuple[bytes, bytes]:
    """The target in origin-form (or ``*``) and the one authority that the request is for."""
    if len(hosts) > 1:
        raise ProtocolError(Reason.BAD_HOST, "repeated Host")
    if not hosts and is_http11:
        raise ProtocolError(Reason.BAD_HOST, "no Host")
    host = hosts[0] if hosts else b""
    if hosts and grammar.HOST.fullmatch(host) is None:
        raise ProtocolError(Reason.BAD_HOST, f"Host {host[:40]!r}")
    if b"#" in target:
        raise ProtocolError(Reason.MALFORMED_REQUEST, "fragment in the request target")
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target, host
    match = grammar.ABSOLUTE_FORM.fullmatch(target)
    if match is None or match[1].lower() not in (b"http", b"https"):
        raise ProtocolError(Reason.MALFORMED_REQUEST, f"request target {target[:40]!r}")
    _, authority, rest = match.groups()
    if grammar.HOST.fullmatch(authority) is None or (hosts and authority.lower() != host.lower()):
        raise ProtocolError(Reason.BAD_HOST, "Host contradicts the request target")
    if not rest and method == b"OPTIONS":
        return b"*", authority
    return (rest if rest.startswith(b"/") else b"/" + rest), authority


def _protocol_to_switch_to(values: list[bytes]) -> bytes:
    """What the client may be switched to; nothing if HTTP/2 is among it (RFC 9113 §3.1).

    An upgrade to h2c that reaches an upstream opens a tunnel in which every rule of the proxy can
    be passed by.
    """
    wanted = b",".join(values)
    for protocol in list_members(wanted):
        name, _, _ = protocol.partition(b"/")
        if grammar.PROTOCOL.fullmatch(protocol) is None or name in (b"h2c", b"h2"):
            return b""
    return wanted


def check_incomplete(head: bytes, seen: int, limits: HeadLimits) -> None:
    """Refuse a head whose end has not come, if something is wrong with it already.

    The first ``seen`` bytes were looked at before: a head that comes byte by byte is read once.
    Raises ProtocolError.
    """
    if grammar.FORBIDDEN_IN_HEAD.search(head, max(0, seen - 1)):
        detail = "control character or bare CR or LF in a head"
        raise ProtocolError(Reason.MALFORMED_REQUEST, detail)
    if b"\n" not in head and len(head) > limits.target_bytes + MAX_REQUEST_LINE_REST:
        raise ProtocolError(Reason.TARGET_TOO_LONG, "no end of the request line")
    if len(head) > limits.head_bytes:
        raise ProtocolError(Reason.HEAD_TOO_LARGE, f"more than {limits.head_bytes} bytes")


#: Room for the method, two spaces, the version and CRLF beside the target.
MAX_REQUEST_LINE_REST = grammar.MAX_METHOD_BYTES + len(b"  HTTP/1.1\r\n")
