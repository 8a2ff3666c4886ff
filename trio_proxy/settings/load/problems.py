"""What is wrong with a configuration, as lines that name file, key path and expectation."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, cast, get_args

import attrs
from attrs import frozen
from cattrs import BaseValidationError, ClassValidationError, ForbiddenExtraKeysError
from cattrs.errors import IterableValidationError

from trio_proxy.settings import PoolSettings, RouteSettings, Settings
from trio_proxy.settings.load.plugins import expectation_of
from trio_proxy.settings.table import (
    SettingError,
    Table,
    key_text,
    named_tables_of,
    quote,
    table_of,
)

#: Keys of the published format whose behaviour does not exist yet: refused, never ignored.
#: A key that comes to life leaves this table.
NOT_SUPPORTED: dict[type, frozenset[str]] = {
    Settings: frozenset({"listeners"}),
    PoolSettings: frozenset({"tls"}),
    RouteSettings: frozenset(
        {
            *("host", "methods", "headers", "query"),
            *("split", "split_cookie", "redirect", "respond", "static"),
            *("wsgi", "wsgi_threads", "asgi", "mirror"),
            *("strip_prefix", "add_prefix", "rewrite", "event_ms"),
            *("timeouts", "limits", "retry", "rate_limit", "balance"),
        }
    ),
}


@frozen
class Problem:
    """One mistake. ``file`` is a path, ``environment`` or ``command line``; ``path`` may be ""."""

    file: str
    path: str
    message: str
    expected: str

    def __str__(self) -> str:
        where = f"{self.file}: {self.path}" if self.path else self.file
        return f"{where}: {self.message} ({self.expected})"


class ConfigError(Exception):
    """A configuration that cannot be used, with all of its problems; ``str()`` has one a line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def problems_in(error: BaseValidationError, source: str) -> Iterator[Problem]:
    """The leaves of a tree of cattrs errors, each with its path from the root of the file."""
    # A rule between keys is checked again beside single faults, so it may be there twice.
    return iter(dict.fromkeys(_walk(error, source, "")))


def _walk(error: BaseValidationError, source: str, path: str) -> Iterator[Problem]:
    for exc, step in _steps(error):
        match exc:
            case BaseValidationError():
                yield from _walk(exc, source, path + step)
            case ForbiddenExtraKeysError():
                for key in sorted(exc.extra_fields):
                    yield _unknown(source, path, exc.cl, key)
            case SettingError():
                # A validator names its key; what structures a value leaves that to cattrs.
                where = _join(path, exc.key) if exc.key else path + step
                yield Problem(source, where.lstrip("."), exc.wrong, exc.expected)
            case KeyError() if isinstance(error, ClassValidationError) and step:
                yield _missing(source, path, error.cl, step.lstrip("."))
            case _ if _is_brought(error):
                yield _refused(source, (path + step).lstrip("."), exc)
            case _:
                raise exc


def _is_brought(error: BaseValidationError) -> bool:
    """Whether it is about the class of a middleware, which may refuse in any way it likes."""
    cls = error.cl if isinstance(error, ClassValidationError) else dict
    return attrs.has(cls) and not issubclass(cls, Table)


def _refused(source: str, path: str, exc: Exception) -> Problem:
    """What the validators or the constructor of somebody else's class have to say."""
    keys = [each.name for each in exc.args if isinstance(each, attrs.Attribute)]
    where = _join(path, key_text(keys[0])) if keys else path
    text = str(exc.args[0]) if keys else str(exc)
    if not isinstance(exc, ValueError | TypeError):
        text = f"{type(exc).__name__}: {text}"
    wrong = " ".join(text.split())[:200] or type(exc).__name__
    return Problem(source, where, f"is refused: {wrong}", "expected what its class accepts")


def _steps(error: BaseValidationError) -> Iterator[tuple[Exception, str]]:
    """Each error of a group with the step that leads to it: ``.name``, ``[index]`` or nothing."""
    if isinstance(error, ClassValidationError):
        named, others = error.group_exceptions()
        yield from ((exc, f".{key_text(note.name)}") for exc, note in named)
    else:
        assert isinstance(error, IterableValidationError)
        indexed, others = error.group_exceptions()
        yield from ((exc, f"[{note.index}]") for exc, note in indexed)
    yield from ((exc, "") for exc in others)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}".lstrip(".")


def _missing(source: str, path: str, table: type, key: str) -> Problem:
    each = attrs.fields_dict(table)[key]
    expected = each.metadata.get("expected") or expectation_of(each.type)
    return Problem(source, _join(path, key), "is missing", expected)


def _unknown(source: str, path: str, table: type, key: str) -> Problem:
    where = _join(path, key_text(key))
    if key in NOT_SUPPORTED.get(table, ()):
        return Problem(source, where, "is not supported by this version", "expected to be left out")
    known = [each.name for each in attrs.fields(table) if each.init]
    elsewhere = _elsewhere(key)
    # A key that is right elsewhere is a better guess than one that looks a little like it.
    alike = _alike(key, known, cutoff=0.75 if elsewhere else 0.6)
    guesses = [guess for guess in (_either(map(quote, alike)), elsewhere) if guess]
    expected = f"expected one of {', '.join(known)}" if known else "expected to be left out"
    if guesses:
        expected = f"did you mean {', or '.join(guesses)}?"
    return Problem(source, where, "is not a known key", expected)


def _alike(key: str, known: list[str], *, cutoff: float) -> list[str]:
    """Those that were begun but not finished, else the one that is written most like it."""
    begun = [each for each in known if key and each.startswith(key)]
    return begun or difflib.get_close_matches(key[:100], known, n=1, cutoff=cutoff)


def _elsewhere(key: str) -> str:
    """The key where it would be right: it often stands below the wrong table's header."""
    headers = []
    for name, each in attrs.fields_dict(attrs.resolve_types(Settings)).items():
        table, header = _table_below(name, each.type)
        if name == key:
            return header or f"{quote(key)} before the first table"
        if table is not None and key in attrs.fields_dict(table):
            headers.append(header)
    return f"{quote(key)} in {_either(headers)}" if headers else ""


def _table_below(name: str, kind: Any) -> tuple[type[attrs.AttrsInstance] | None, str]:
    """The settings class below the header of that name, and the header; None and "" if neither."""
    if table := table_of(kind):
        return cast("type[attrs.AttrsInstance]", table), f"[{name}]"
    if named_tables_of(kind):
        return None, f"[{name}.NAME]"  # what is in there can be elsewhere as well
    if table := table_of(get_args(kind)[0]) if get_args(kind) else None:
        return cast("type[attrs.AttrsInstance]", table), f"[[{name}]]"
    return None, ""


def _either(words: Iterable[str]) -> str:
    return " or ".join(", ".join(words).rsplit(", ", 1))
