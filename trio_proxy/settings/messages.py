"""Validators of what settings say of requests and responses: fields, cookies, statuses, paths."""

from __future__ import annotations

import re
from typing import Any

import attrs
from attrs import field

from trio_proxy.settings.checks import Validator, tuple_of
from trio_proxy.settings.table import SettingError, quote, show

#: The name of a header field or of a cookie (RFC 9110 §5.6.2), of a length that is still readable.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")

_PREFIXED = re.compile(r"(header|cookie):(.*)", re.DOTALL)


def request_key(*words: str, prefixes: tuple[str, ...]) -> Validator:
    """What of a request is looked at: one of the words, or ``header:NAME``."""
    shown = [quote(word) for word in words] + [quote(f"{each}:NAME") for each in prefixes]
    expected = f"expected {', '.join(shown[:-1])} or {shown[-1]}"

    def validate(_: object, key: attrs.Attribute[Any], value: object) -> None:
        if isinstance(value, str):
            found = _PREFIXED.fullmatch(value)
            if value in words or (
                found and found[1] in prefixes and _TOKEN.fullmatch(found[2]) is not None
            ):
                return
        raise SettingError(key.name, f"is {show(value)}", expected)

    return validate


def cookie_name(_: object, key: attrs.Attribute[Any], value: object) -> None:
    """The name of a cookie, or an empty text for none."""
    if value != "" and not (isinstance(value, str) and _TOKEN.fullmatch(value)):
        expected = 'expected a cookie name (RFC 6265 §4.1.1) of at most 64 characters, or ""'
        raise SettingError(key.name, f"is {show(value)}", expected)


#: Fields that the proxy writes or strips itself (RFC 9110 §7.6.1, RFC 7239): a budget in one of
#: them would break the message or be lost.
_OWN_FIELD = re.compile(
    "connection|content-length|date|expect|forwarded|host|http2-settings|keep-alive"
    "|proxy-authenticate|proxy-authorization|proxy-connection|proxy-status|te|trailer"
    "|transfer-encoding|upgrade|via|x-forwarded-.*|x-real-ip|x-trace-id",
    re.IGNORECASE,
)


def free_field_name(_: object, key: attrs.Attribute[Any], value: object) -> None:
    """The name of a header field that nobody else has a use for, or an empty text for none."""
    if value == "":
        return
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        expected = "expected a header field name (RFC 9110 §5.1) of at most 64 characters"
        raise SettingError(key.name, f"is {show(value)}", expected)
    if "_" in value:
        # Many servers cannot tell "_" from "-", so fields are compared as if it were one.
        raise SettingError(key.name, f"is {quote(value)}", "expected a name without underscores")
    if _OWN_FIELD.fullmatch(value):
        wrong = f"is {quote(value)}, a field that the proxy sets or strips itself"
        raise SettingError(key.name, wrong, "expected a name of its own, as X-Request-Deadline-Ms")


#: ``503``, or ``5xx`` for a whole class; no answer ends with one below 200 (RFC 9110 §15.2).
_STATUS_PATTERN = re.compile(r"[2-5]([0-9][0-9]|xx)")


def status_pattern(_: object, key: attrs.Attribute[Any], value: object) -> None:
    """A status in the words of `status_set`."""
    if not isinstance(value, str) or not _STATUS_PATTERN.fullmatch(value):
        expected = 'expected a status in quotes as "503", or a class of them as "5xx"'
        raise SettingError(key.name, f"is {show(value)}", expected)


def status_set(patterns: tuple[str, ...]) -> frozenset[int]:
    """The statuses that patterns as ``503`` and ``5xx`` stand for."""
    found: set[int] = set()
    for pattern in patterns:
        low = int(pattern.replace("x", "0"))
        found.update(range(low, low + (100 if "x" in pattern else 1)))
    return frozenset(found)


def statuses(*default: str) -> Any:
    """An array of statuses, in the words of `status_set`."""
    return field(default=default, validator=tuple_of(status_pattern))


_TARGET = re.compile(r"""/[!"$-~]{0,2047}""")


def request_path(_: object, key: attrs.Attribute[Any], value: object) -> None:
    """The path that a request asks for, or an empty text for none."""
    if value != "" and not (isinstance(value, str) and _TARGET.fullmatch(value)):
        expected = 'expected a path as "/healthz", with nothing but visible ASCII in it, or ""'
        raise SettingError(key.name, f"is {show(value)}", expected)


#: One segment and another (RFC 3986 §3.3), without percent-encoding and parameters: how those are
#: to be compared is not settled yet.
_ROUTE = re.compile(r"(/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~!$&'()*+,=:@-]+)*/?")


def route_path(_: object, key: attrs.Attribute[Any], value: object) -> None:
    """The beginning of the paths of a route."""
    if not isinstance(value, str) or not value or len(value) > 2048 or not _ROUTE.fullmatch(value):
        if isinstance(value, str) and value.startswith(("=", "~")):
            expected = "expected a prefix; this version supports neither exact paths nor patterns"
        else:
            expected = 'expected the beginning of a path, as "/v1", without "%", ";", "." and ".."'
        raise SettingError(key.name, f"is {show(value)}", expected)


_HOST_FIELD = re.compile(r"[0-9A-Za-z._~:[\]-]{1,255}")


def host_field(_: object, key: attrs.Attribute[Any], value: object) -> None:
    """What a Host field may say, or an empty text for the ordinary."""
    if value != "" and not (isinstance(value, str) and _HOST_FIELD.fullmatch(value)):
        expected = 'expected a host, with or without a port, as "app.example", or ""'
        raise SettingError(key.name, f"is {show(value)}", expected)
