"""``[middlewares.NAME]``: what routes can have done to requests and responses, by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs
from attrs import field, frozen

from trio_proxy.settings.table import SettingError, Table, show

#: Kinds that the published format has and this version has not.
_PLANNED_KINDS = frozenset(
    {
        *("access", "basic_auth", "forward_auth", "headers", "cors"),
        *("compress", "cache", "rate_limit", "error_pages"),
    }
)
_NAME = "[A-Za-z_][A-Za-z0-9_]*"
_CLASS = re.compile(rf"{_NAME}(\.{_NAME})*:{_NAME}(\.{_NAME})*")

KIND_EXPECTED = 'expected a class by its module, as "package.module:Class"'


def _kind(_: object, key: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, str) and _CLASS.fullmatch(value):
        return
    wrong = f"is {show(value)}"
    if value in _PLANNED_KINDS:
        wrong += ", which is not supported by this version"
    raise SettingError(key.name, wrong, KIND_EXPECTED)


def _options(_: object, key: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value):
        raise SettingError(key.name, f"is {show(value)}", "expected a dict with texts for keys")


@frozen(kw_only=True)
class MiddlewareSettings(Table):
    """One middleware: the class that it is an instance of, and what to make that of.

    ``kind`` names an attrs class as ``module:Class``, whose fields are its settings; ``options``
    are those, by their names, as a file could have them: `trio_proxy.load_file` puts all the other
    keys of the table in there.
    """

    kind: str = field(validator=_kind, metadata={"expected": KIND_EXPECTED})
    options: Mapping[str, Any] = field(factory=dict, validator=_options, repr=False)
