"""From the bytes of a request head to a `Request`, or a `ProtocolError` that says why not.

What is ambiguous is refused, never guessed (RFC 9112 §3.2, §6.1, §6.3 and §11.2).
"""

from __future__ import annotations

from attrs import frozen

from trio_proxy.errors import ProtocolError, Reason
from trio_proxy.messages import (
    CHUNKED_BODY,
    NO_BODY,
    Body,
    Field,
    Framing,
    Request,
    list_members,
)
from trio_proxy.wire import grammar


@frozen
class HeadLimits:
    """Bounds on a head: bytes in all, number of fields, bytes of the request target."""

    head_bytes: int = 32768
    fields: int = 100
    target_bytes: int = 8192


def split_fields(head: bytes, start: int) -> list[Field]:
    """The ``(name, value)`` pairs of a head that matched the grammar, from offset ``start``."""
    fields: list[Field] = grammar.FIELD.findall(head, start)
    if b" \r\n" in head or b"\t\r\n" in head:  # hardly ever: white space behind a value
        fields = [(name, value.rstrip(b" \t")) for name, value in fields]
    return fields


def parse_request(head: bytes, limits: HeadLimits) -> Request:
    """Check one whole head, its closing empty line included.

    Raises ProtocolError with the reason for anything that is not a well-formed request whose
    framing, host and target have exactly one reading.
    """
    match = grammar.REQUEST_HEAD.fullmatch(head)
    if match is None:
        raise _explain_malformed(head, limits)
    method, target, minor = match.groups()
    if len(target) > limits.target_bytes:
        raise ProtocolError(Reason.TARGET_TOO_LONG, f"target of {len(target)} bytes")
    fields = split_fields(head, head.index(b"\n") + 1)
    if len(fields) > limits.fields:
        raise ProtocolError(Reason.HEAD_TOO_LARGE, f"{len(fields)} header fields")
    if method in (b"CONNECT", b"TRACE"):
        # A reverse proxy is no tunnel, and TRACE echoes credentials: nginx refuses both as well.
        raise ProtocolError(Reason.METHOD_NOT_SUPPORTED, method.decode())
    return _interpret(method, target, b"1." + minor, fields)


def _interpret(method: bytes, target: bytes, version: bytes, fields: list[Field]) -> Request:
    special: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        lower = name.lower()
        if lower in _SPECIAL:
            special.setdefault(lower, []).append(value)
    body = _request_body(special, version)
    target, host = _target_and_host(method, target, version, special.get(b"host", []))
    options = list_members(b",".join(special[b"connection"])) if b"connection" in special else ()
    upgrade = b""
    if b"upgrade" in special and b"upgrade" in options and version == b"1.1" and body.is_empty:
        upgrade = _protocol_to_switch_to(special[b"upgrade"])
    keep_alive = b"close" not in options and (version == b"1.1" or b"keep-alive" in options)
    expects = [value.lower() for value in special.get(b"expect", ())]
    return Request(
        method=method,
        target=target,
        version=version,
        host=host,
        fields=fields,
        body=body,
        keep_alive=keep_alive,
        options=options,
        via=special.get(b"via", ()),
        expects_continue=expects == [b"100-continue"] and version == b"1.1" and not body.is_empty,
        upgrade=upgrade,
    )


_SPECIAL = frozenset(
    (
        b"host",
        b"connection",
        b"content-length",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
        b"via",
    )
)


def _request_body(special: dict[bytes, list[bytes]], version: bytes) -> Body:
    codings = special.get(b"transfer-encoding")
    lengths = special.get(b"content-length")
    if codings is None:
        return NO_BODY if lengths is None else Body(Framing.LENGTH, content_length(lengths))
    if lengths is not None:
        raise ProtocolError(Reason.AMBIGUOUS_FRAMING, "Content-Length beside Transfer-Encoding")
    if version == b"1.0":
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
    names = list_members(b",".join(codings))
    unknown = [name for name in names if name != b"chunked"]
    if names and names.count(b"chunked") <= 1 and names[-1] == b"chunked" and unknown:
        raise ProtocolError(Reason.UNKNOWN_TRANSFER_CODING, f"{unknown[0][:40]!r}")
    if len(names) == 1 and grammar.TOKEN.fullmatch(names[0]) and names[0] != b"chunked":
        raise ProtocolError(Reason.UNKNOWN_TRANSFER_CODING, f"{names[0][:40]!r}")
    raise ProtocolError(Reason.AMBIGUOUS_FRAMING, "Transfer-Encoding is not a single 'chunked'")


def _target_and_host(
    method: bytes, target: bytes, version: bytes, hosts: list[bytes]
) -> tuple[bytes, bytes]:
    """The target in origin-form (or ``*``) and the one authority that the request is for."""
    if len(hosts) > 1:
        raise ProtocolError(Reason.BAD_HOST, "repeated Host")
    if not hosts and version == b"1.1":
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


def _explain_malformed(head: bytes, limits: HeadLimits) -> ProtocolError:
    """What is wrong with a head that did not match: off the fast path, for status and log."""
    line = grammar.REQUEST_LINE.match(head)
    if line is not None and (line[3] != b"1" or line[4] not in (b"0", b"1")):
        version = f"HTTP/{line[3].decode()}.{line[4].decode()}"
        return ProtocolError(Reason.VERSION_NOT_SUPPORTED, version)
    if line is not None and len(line[2]) > limits.target_bytes:
        return ProtocolError(Reason.TARGET_TOO_LONG, f"target of {len(line[2])} bytes")
    part = "request line" if line is None else "header field"
    return ProtocolError(Reason.MALFORMED_REQUEST, f"malformed {part}")


def explain_incomplete(head: bytes, seen: int, limits: HeadLimits) -> ProtocolError | None:
    """What is already wrong with a head whose end has not come, or None.

    The first ``seen`` bytes were looked at before: a head that comes byte by byte is read once.
    """
    if grammar.FORBIDDEN_IN_HEAD.search(head, max(0, seen - 1)):
        return ProtocolError(
            Reason.MALFORMED_REQUEST, "control character or bare CR or LF in a head"
        )
    if b"\n" not in head and len(head) > limits.target_bytes + MAX_REQUEST_LINE_REST:
        return ProtocolError(Reason.TARGET_TOO_LONG, "no end of the request line")
    if len(head) > limits.head_bytes:
        return ProtocolError(Reason.HEAD_TOO_LARGE, f"more than {limits.head_bytes} bytes")
    return None


#: Room for the method, two spaces, the version and CRLF beside the target.
MAX_REQUEST_LINE_REST = grammar.MAX_METHOD_BYTES + len(b"  HTTP/1.1\r\n")
