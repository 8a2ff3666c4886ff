"""What the settings classes are made of: tables that refuse what is wrong, in readable words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast, get_args, get_origin

import attrs


class SettingError(ValueError):
    """One wrong setting: ``key`` relative to its table, what is wrong, and what was expected."""

    def __init__(self, key: str, wrong: str, expected: str) -> None:
        super().__init__(key, wrong, expected)
        self.key = key
        self.wrong = wrong
        self.expected = expected

    def __str__(self) -> str:
        return f"{self.key}: {self.wrong} ({self.expected})".removeprefix(": ")


class Table:
    """Base of the settings classes: rules that need more than one key."""

    __slots__ = ()

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterable[SettingError]:
        """Every broken rule between keys.

        What is faulty by itself is left out: a key is not in ``values``, an element, or a table
        that has a name, is None.
        """
        return ()

    def __attrs_post_init__(self) -> None:
        values = {
            name: getattr(self, name)
            for name in attrs.fields_dict(cast("type[attrs.AttrsInstance]", type(self)))
        }
        for error in self.conflicts(values):
            raise error


def table_of(kind: Any) -> type[Table] | None:
    """The settings class that a key's type is, or may be left out of; None for any other type."""
    choices = get_args(kind) if type(None) in get_args(kind) else (kind,)
    found = [each for each in choices if isinstance(each, type) and issubclass(each, Table)]
    return found[0] if found else None


def named_tables_of(kind: Any) -> type[Table] | None:
    """The settings class of a key whose tables have names that the author chooses."""
    if get_origin(kind) is not Mapping:
        return None
    return table_of(get_args(kind)[1])


def show(value: object) -> str:
    """The value as an error message quotes it: always short, always one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return quote(value)
        case int() if value.bit_length() > 64:  # str() of a huge one raises ValueError
            return "an integer beyond 64 bits"
        case int() | float() | None:
            return str(value)
        case dict():
            return "a table"
        case list() | tuple():
            return "an array"
    return f"of type {type(value).__name__}"


_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def key_text(key: str) -> str:
    """A key as TOML writes it, so that any key is one word on one line."""
    return key if _BARE_KEY.fullmatch(key) else json.dumps(key)


def quote(text: str) -> str:
    """A TOML basic string, in ASCII, cut after 60 characters."""
    return json.dumps(text if len(text) <= 60 else text[:60] + "...")
