"""What the name of a field says about the field, looked up once per name and not once per field.

`kinds_of` gives the OR of the kinds below, 0 for a name that nothing depends on. What
frames a message is recognised by its exact name in any letter case (RFC 9110 §5.1); what crosses
the proxy is decided with ``_`` read as ``-``, because CGI, WSGI and many frameworks cannot tell
``X_Real_IP`` from ``X-Real-IP`` either.
"""

from __future__ import annotations

import re

# Of these a name has one at most.
HOST = 1 << 0
CONNECTION = 1 << 1
CONTENT_LENGTH = 1 << 2
TRANSFER_ENCODING = 1 << 3
UPGRADE = 1 << 4
EXPECT = 1 << 5
VIA = 1 << 6
DATE = 1 << 7

#: Ends at this hop in both directions (RFC 9110 §7.6.1); framing does, too.
HOP_BY_HOP = 1 << 8
TRACE_ID = 1 << 9
#: Written anew in requests: Host comes first, and the others say what we know of the client.
REWRITTEN = 1 << 10
#: What else says something about the client: ``X-Forwarded-*`` and ``Forwarded``.
FORWARDING = 1 << 11
GRPC_TIMEOUT = 1 << 12
#: Not a name at all.
INVALID = 1 << 13

#: What is read off a head.
INTERPRETED = HOST | CONNECTION | CONTENT_LENGTH | TRANSFER_ENCODING | UPGRADE | EXPECT | VIA

#: What a state machine acts upon, so that it must not be written past it.
OF_STATE_MACHINE = HOST | CONNECTION | CONTENT_LENGTH | TRANSFER_ENCODING | UPGRADE | EXPECT

_EXACT = {
    b"host": HOST,
    b"connection": CONNECTION,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"upgrade": UPGRADE,
    b"expect": EXPECT,
    b"via": VIA,
    b"date": DATE,
}

_ACROSS = {
    b"connection": HOP_BY_HOP,
    b"keep-alive": HOP_BY_HOP,
    b"proxy-connection": HOP_BY_HOP,
    b"proxy-authenticate": HOP_BY_HOP,
    b"proxy-authorization": HOP_BY_HOP,
    b"te": HOP_BY_HOP,
    b"transfer-encoding": HOP_BY_HOP,
    b"upgrade": HOP_BY_HOP,
    b"http2-settings": HOP_BY_HOP,
    b"content-length": HOP_BY_HOP,
    b"x-trace-id": TRACE_ID,
    b"host": REWRITTEN,
    b"expect": REWRITTEN,
    b"x-real-ip": REWRITTEN,
    b"x-forwarded-for": REWRITTEN,
    b"x-forwarded-proto": REWRITTEN,
    b"x-forwarded-host": REWRITTEN,
    b"forwarded": FORWARDING,
    b"grpc-timeout": GRPC_TIMEOUT,
}

#: A token (RFC 9110 §5.6.2).
TOKEN_PATTERN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_NAME = re.compile(TOKEN_PATTERN)

#: Names that are remembered, and the longest of them: clients choose them, so both are bounded.
MAX_NAMES = 1000
MAX_NAME_BYTES = 64


def key_of(name: bytes) -> bytes:
    """The name as names are compared when it is about what crosses the proxy."""
    return name.lower().replace(b"_", b"-")


#: From a name as it was sent to its kinds; it is emptied when it is full. `learn` adds to it.
KINDS: dict[bytes, int] = {}


def kinds_of(name: bytes) -> int:
    """What a name means."""
    kinds = KINDS.get(name)
    return learn(name) if kinds is None else kinds


def learn(name: bytes) -> int:
    """What a name means that `KINDS` does not know."""
    if _NAME.fullmatch(name) is None:
        return INVALID
    key = key_of(name)
    rest = FORWARDING if key.startswith(b"x-forwarded-") else 0
    kinds = _EXACT.get(name.lower(), 0) | _ACROSS.get(key, rest)
    if len(name) <= MAX_NAME_BYTES:
        if len(KINDS) >= MAX_NAMES:
            KINDS.clear()
        KINDS[name] = kinds
    return kinds
