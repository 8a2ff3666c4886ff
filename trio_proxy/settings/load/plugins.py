"""Middlewares that a configuration names by ``kind = "module:Class"``.

The class is the schema: an attrs class whose fields are the keys of its table. Values are held to
its annotations as strictly as those of the proxy's own tables to theirs, nothing is coerced, and
what its validators or its ``__attrs_post_init__`` refuse by ValueError or TypeError is told as a
problem of the configuration.

So an instance is made each time that a configuration is checked, and the constructor must not do
more than that: what is expensive, or has to be closed, has its place in the first request.
"""

from __future__ import annotations

import contextlib
import datetime
import enum
import importlib
import inspect
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any, Literal, TypeAlias, Union, cast, get_args, get_origin

import attrs
from cattrs import BaseValidationError, ClassValidationError, Converter
from cattrs.errors import (
    AttributeValidationNote,
    IterableValidationError,
    IterableValidationNote,
    StructureHandlerNotFoundError,
)
from cattrs.gen import make_dict_structure_fn, override

from trio_proxy.exchange.contract import Middleware
from trio_proxy.settings import MiddlewareSettings, Settings
from trio_proxy.settings.middleware import KIND_EXPECTED
from trio_proxy.settings.table import SettingError, quote, show

Hook: TypeAlias = Callable[[Any, Any], Any]

_CONTRACT = "expected an attrs class with: async def handle(self, exchange, request, sink, next)"


def make_middleware(settings: MiddlewareSettings) -> Middleware:
    """An instance of the class, with the options for its fields.

    Raises cattrs's `BaseValidationError` with all that is wrong, or `SettingError` for the kind.
    """
    found = _load(settings.kind)
    try:
        made: Any = _CONVERTER.structure(settings.options, found)
    except (StructureHandlerNotFoundError, NameError) as exc:
        # Its author has to change the class; whoever writes the configuration cannot help it.
        wrong = f"is {quote(settings.kind)}, which has a field that cannot be a setting: {exc}"
        raise SettingError("kind", wrong, "expected fields of plain types") from exc
    return cast("Middleware", made)


def import_middlewares(settings: Settings) -> None:
    """Import the modules of all of them; those that cannot be are for `make_middleware` to tell."""
    for each in settings.middlewares.values():
        with contextlib.suppress(SettingError):
            _load(each.kind)


def _load(kind: str) -> type:
    """The class of that name, which is a middleware. Raises SettingError."""
    module_name, _, path = kind.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise _broken(kind, exc) from exc
        wrong = f"is {quote(kind)}, and there is no module {exc.name}"
        expected = "expected one that Python finds: see --app-dir, or PYTHONPATH"
        raise SettingError("kind", wrong, expected) from exc
    except Exception as exc:
        raise _broken(kind, exc) from exc
    for name in path.split("."):
        found = getattr(found, name, None)
    if found is None:
        wrong = f"is {quote(kind)}, and the module has no {path}"
        raise SettingError("kind", wrong, KIND_EXPECTED)
    if not isinstance(found, type) or not attrs.has(found) or not _is_middleware(found):
        raise SettingError("kind", f"is {quote(kind)}, which is no middleware", _CONTRACT)
    return found


def _broken(kind: str, exc: Exception) -> SettingError:
    wrong = f"is {quote(kind)}, and its import fails: {_line(exc)}"
    return SettingError("kind", wrong, "expected a module that can be imported")


def _is_middleware(cls: type) -> bool:
    handle = getattr(cls, "handle", None)
    if not inspect.iscoroutinefunction(handle):
        return False
    try:
        inspect.signature(handle).bind(*range(5))
    except TypeError:
        return False
    return True


def _line(exc: Exception) -> str:
    """The error and where it was raised, in one line."""
    text = " ".join(f"{type(exc).__name__}: {exc}".split())[:200]
    frames = [
        frame
        for frame in traceback.extract_tb(exc.__traceback__)
        if not frame.filename.startswith("<") and "importlib" not in frame.filename
    ]
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if len(frames) > 1 else ""
    return text + where


# Structure

#: What a scalar's annotation stands for: the types of TOML that it takes, and their name.
_SCALARS: dict[type, tuple[tuple[type, ...], str]] = {
    str: ((str,), "a text"),
    bool: ((bool,), "true or false"),
    int: ((int,), "an integer"),
    float: ((float, int), "a number"),
    datetime.datetime: ((datetime.datetime,), "a date with a time"),
    datetime.date: ((datetime.date,), "a date"),
    datetime.time: ((datetime.time,), "a time"),
}

_ARRAYS: dict[Any, Callable[[list[Any]], Any]] = {
    tuple: tuple,
    list: list,
    Sequence: tuple,
    MutableSequence: list,
    set: set,
    frozenset: frozenset,
}


def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    for kind in _SCALARS:
        converter.register_structure_hook(kind, _scalar)
    converter.register_structure_hook_factory(attrs.has, _class_hook)
    converter.register_structure_hook_factory(_is_array, _array_hook)
    converter.register_structure_hook_factory(_is_mapping, _mapping_hook)
    converter.register_structure_hook_func(lambda kind: _origin(kind) is Literal, _literal)
    converter.register_structure_hook_func(_is_enum, _enum)
    converter.register_structure_hook_factory(_is_union, _union_hook)
    return converter


def _origin(kind: Any) -> Any:
    return get_origin(kind)


def _refused(value: Any, expected: str) -> SettingError:
    return SettingError("", f"is {show(value)}", f"expected {expected}")


def _scalar(value: Any, kind: Any) -> Any:
    accepted, expected = _SCALARS[kind]
    # A bool is an int, and a datetime a date; to TOML they are not.
    if type(value) not in accepted:
        raise _refused(value, expected)
    return float(value) if kind is float else value


def _class_hook(cls: Any, converter: Converter) -> Hook:
    secrets = {
        each.name: override(struct_hook=_secret_hook(converter.get_structure_hook(each.type)))
        for each in attrs.fields(attrs.resolve_types(cls))
        if each.init and not each.repr
    }
    from_dict = make_dict_structure_fn(cls, converter, **secrets)  # type: ignore[arg-type]

    def structure_class(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise _refused(value, "a table")
        return from_dict(value, cls)

    return structure_class


def _secret_hook(hook: Hook) -> Hook:
    """What is not in the repr of its class is not shown in a problem, either."""

    def structure_secret(value: Any, kind: Any) -> Any:
        try:
            return hook(value, kind)
        except (SettingError, BaseValidationError) as exc:
            expected = f"{expectation_of(kind)}; the value is not shown"
            raise SettingError("", "is not what it should be", expected) from exc

    return structure_secret


def _is_array(kind: Any) -> bool:
    return (get_origin(kind) or kind) in _ARRAYS


def _array_hook(kind: Any, converter: Converter) -> Hook:
    make = _ARRAYS[get_origin(kind) or kind]
    element = (get_args(kind) or (Any,))[0]
    structure_element = converter.get_structure_hook(element)

    def structure_array(value: Any, _: Any) -> Any:
        if not isinstance(value, list | tuple):
            expected = "an array" if isinstance(value, dict) else f"an array, as [{show(value)}]"
            raise _refused(value, expected)
        found: list[Any] = []
        errors: list[Exception] = []
        for index, item in enumerate(value):
            try:
                found.append(structure_element(item, element))
            except (SettingError, BaseValidationError) as exc:
                exc.__notes__ = [IterableValidationNote("in an array", index, element)]
                errors.append(exc)
        if errors:
            raise IterableValidationError("a faulty array", errors, list)
        return make(found)

    return structure_array


def _is_mapping(kind: Any) -> bool:
    return (get_origin(kind) or kind) in (dict, Mapping, MutableMapping)


def _mapping_hook(kind: Any, converter: Converter) -> Hook:
    element = (get_args(kind) or (str, Any))[1]
    structure_element = converter.get_structure_hook(element)

    def structure_mapping(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise _refused(value, "a table")
        found: dict[str, Any] = {}
        errors: list[Exception] = []
        for name, item in value.items():
            try:
                found[name] = structure_element(item, element)
            except (SettingError, BaseValidationError) as exc:
                exc.__notes__ = [AttributeValidationNote("in a table", name, element)]
                errors.append(exc)
        if errors:
            raise ClassValidationError("a faulty table", errors, dict)
        return found

    return structure_mapping


def _literal(value: Any, kind: Any) -> Any:
    for choice in get_args(kind):
        if type(choice) is type(value) and choice == value:
            return value
    raise _refused(value, _one_of(get_args(kind)))


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _enum(value: Any, kind: Any) -> Any:
    for member in kind:
        if type(member.value) is type(value) and member.value == value:
            return member
    raise _refused(value, _one_of([member.value for member in kind]))


def _one_of(choices: Sequence[Any]) -> str:
    *others, last = map(show, choices)
    return f"{', '.join(others)} or {last}" if others else last


def _is_union(kind: Any) -> bool:
    return _origin(kind) in (Union, types.UnionType)


def _union_hook(kind: Any, converter: Converter) -> Hook:
    """Of what a value may be, the first that it is; TOML has no null, so None is not among it."""
    choices = [each for each in get_args(kind) if each is not type(None)]
    hooks = [(each, converter.get_structure_hook(each)) for each in choices]

    def structure_union(value: Any, _: Any) -> Any:
        errors: list[SettingError | BaseValidationError] = []
        for each, hook in hooks:
            try:
                return hook(value, each)
            except (SettingError, BaseValidationError) as exc:
                errors.append(exc)
        if len(errors) == 1:
            raise errors[0]
        raise _refused(value, " or ".join(dict.fromkeys(_expectations(errors))))

    return structure_union


def _expectations(errors: Sequence[Exception]) -> Iterator[str]:
    for each in errors:
        if isinstance(each, SettingError):
            yield each.expected.removeprefix("expected ")
        else:
            yield "a table or array with other values"


_CONVERTER = _converter()


def expectation_of(kind: Any) -> str:
    """What a key with that annotation wants to be given."""
    if kind in _SCALARS:
        return f"expected {_SCALARS[kind][1]}"
    if _is_array(kind):
        element = (get_args(kind) or (None,))[0]
        return "expected an array" + (" of texts" if element is str else "")
    return "expected it to be given"
