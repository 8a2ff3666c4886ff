"""Validators of the settings classes: strict types, ranges, readable refusals.

They, those of places and those of messages are the only ones that know what a value may be.
`trio_proxy.settings.load` runs the same ones on a file, so a class that is constructed directly is
held to exactly the rules of the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
from attrs import field

from trio_proxy.settings.table import SettingError, key_text, quote, show

Validator: TypeAlias = Callable[[Any, "attrs.Attribute[Any]", Any], None]

#: The longest timeout. What waits a day has no deadline worth the name; 0 says so honestly.
MAX_TIMEOUT_MS = 24 * 60 * 60 * 1000

MAX_CONNECTIONS = 1_000_000


def whole(low: int, high: int) -> Validator:
    """An integer in the closed range; neither a bool nor a float nor digits in a string."""

    def check(_: object, key: attrs.Attribute[Any], value: object) -> None:
        if type(value) is not int or not low <= value <= high:
            expected = f"expected an integer from {low} to {high}"
            raise SettingError(key.name, f"is {show(value)}", expected)

    return check


def boolean(_: object, key: attrs.Attribute[Any], value: object) -> None:
    """A bool; the integers 0 and 1 are not."""
    if not isinstance(value, bool):
        raise SettingError(key.name, f"is {show(value)}", "expected true or false")


def one_of(*choices: str) -> Validator:
    """One of a few words, in this spelling."""
    *first, last = map(quote, choices)
    expected = f"expected {', '.join(first)} or {last}"

    def check(_: object, key: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, str) or value not in choices:
            raise SettingError(key.name, f"is {show(value)}", expected)

    return check


def instance_of(kind: type) -> Validator:
    """An instance of one settings class."""

    def check(_: object, key: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, kind):
            raise SettingError(key.name, f"is {show(value)}", f"expected {kind.__name__}")

    return check


def tuple_of(element: Validator, *, at_least_one: str = "") -> Validator:
    """A tuple whose elements pass ``element``; not empty if ``at_least_one`` says of what."""

    def check(inst: object, key: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, tuple):
            raise SettingError(key.name, f"is {show(value)}", "expected a tuple")
        if at_least_one and not value:
            raise SettingError(key.name, "is empty", f"expected at least one {at_least_one}")
        for index, item in enumerate(value):
            try:
                element(inst, key, item)
            except SettingError as exc:
                path = f"{key.name}[{index}]"
                raise SettingError(path, exc.wrong, exc.expected) from exc

    return check


def mapping_of(name: Validator, element: Validator) -> Validator:
    """A dict whose names pass one validator and whose values pass the other."""

    def check(inst: object, key: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, dict):
            raise SettingError(key.name, f"is {show(value)}", "expected a dict")
        for each, item in value.items():
            try:
                name(inst, key, each)
                element(inst, key, item)
            except SettingError as exc:
                path = f"{key.name}.{key_text(str(each))}"
                raise SettingError(path, exc.wrong, exc.expected) from exc

    return check


def token(what: str) -> Validator:
    """A short name of small letters, digits, "_" and "-", that says which of many it is."""
    expected = 'expected 1 to 64 of a-z, 0-9, "_" and "-"'

    def check(_: object, key: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, str) or not _TOKEN.fullmatch(value):
            raise SettingError(key.name, f"is no name of {what}", expected)

    return check


_TOKEN = re.compile(r"[a-z0-9_-]{1,64}")


def text(longest: int, *, is_secret: bool = False) -> Validator:
    """A string of at most so many characters; a secret is never shown."""
    expected = f"expected a text of at most {longest} characters"

    def check(_: object, key: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, str):
            wrong = "is not a text" if is_secret else f"is {show(value)}"
            raise SettingError(key.name, wrong, expected)
        if len(value) > longest:
            raise SettingError(key.name, f"has {len(value)} characters", expected)

    return check


def path(_: object, key: attrs.Attribute[Any], value: object) -> None:
    """The name of a file."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise SettingError(key.name, f"is {show(value)}", "expected a file name")


def to_seconds(milliseconds: int) -> float:
    """Seconds; infinity for 0, which means that there is no deadline."""
    return milliseconds / 1000 if milliseconds else math.inf


def milliseconds(default: int, low: int = 0) -> Any:
    """A length of time of at most a day."""
    return field(default=default, validator=whole(low, MAX_TIMEOUT_MS))


def number(default: int, low: int, high: int) -> Any:
    """An integer in a closed range."""
    return field(default=default, validator=whole(low, high))
