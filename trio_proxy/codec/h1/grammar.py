"""The strict grammar of heads and chunk lines (RFC 9110 §5.5 and §5.6, RFC 9112 §2 to §7).

h11 is deliberately lenient: it takes bare LF, obs-fold, NUL in values and any version. A lenient
reader in front of another reader is how requests are smuggled, so everything is matched against
this grammar, and h11 never sees the bytes of a head.

Repeats of single bytes are possessive, and alternatives begin with different bytes, so no input
makes a match take more than linear time. Repeats of groups are not possessive: CPython before
3.11.5 mismatches those (gh-106052), so that ``5;`` would pass for a chunk line.
"""

from __future__ import annotations

import re

from trio_proxy.http.names import TOKEN_PATTERN as _TOKEN

_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"

TOKEN = re.compile(_TOKEN)

#: protocol-name ["/" protocol-version] (RFC 9110 §7.8).
PROTOCOL = re.compile(_TOKEN + rb"(?:/" + _TOKEN + rb")?")

#: The longest registered method has 17 letters (UPDATEREDIRECTREF).
MAX_METHOD_BYTES = 32
_METHOD = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}+"

_TARGET = rb"[\x21-\x7e]++"
TARGET = re.compile(_TARGET)

#: Groups: method, target, version.
REQUEST_LINE = re.compile(rb"(" + _METHOD + rb") (" + _TARGET + rb") HTTP/([0-9]\.[0-9])")

#: Groups: version, status, reason phrase (may be missing, with or without its space).
STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9]{2})(?: (" + _VALUE + rb"))?")

#: One line of a trailer section.
TRAILER_LINE = re.compile(_TOKEN + rb":" + _VALUE + rb"\r\n")

#: What no head may contain, complete or not: controls, a bare CR, a bare LF.
FORBIDDEN_IN_HEAD = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n|\Z)|(?<!\r)\n")

CONTENT_LENGTH = re.compile(rb"[0-9]{1,18}")

#: uri-host [":" port]: a reg-name or IPv4 without userinfo, or a bracketed IPv6 (RFC 3986 §3.2).
#: The sub-delims that the RFC also allows in a reg-name are refused: no host has them.
HOST = re.compile(
    rb"(?:(?:[A-Za-z0-9\-._~]|%[0-9A-Fa-f]{2})+|\[[0-9A-Fa-f:.]++(?:%25[A-Za-z0-9\-._~]++)?\])"
    rb"(?::[0-9]{0,5})?"
)

#: scheme, authority and the rest of an absolute-form target.
ABSOLUTE_FORM = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*+)://([^/?#]*+)(.*+)")

_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_EXTENSION = (
    rb"[ \t]*+;[ \t]*+" + _TOKEN + rb"(?:[ \t]*+=[ \t]*+(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
)

#: chunk-size [chunk-ext] CRLF (RFC 9112 §7.1); 15 hexadecimal digits stay below 2**60.
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:" + _EXTENSION + rb")*\r\n")
