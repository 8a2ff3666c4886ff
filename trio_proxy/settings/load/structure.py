"""From a parsed TOML document to `Settings`, with every problem found in one go.

cattrs collects errors key by key. The validators of the settings classes run as part of that,
while their key is structured, because a constructor would stop at the first one. cattrs coerces
nothing here: scalars reach the validators as TOML has them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias, cast, get_args, get_origin

import attrs
from cattrs import BaseValidationError, ClassValidationError, Converter
from cattrs.errors import AttributeValidationNote, IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from trio_proxy.http.addresses import Address
from trio_proxy.settings import (
    MiddlewareSettings,
    RouteSettings,
    Settings,
    TrustedPeer,
    Workers,
)
from trio_proxy.settings.load.inheritance import told_once, with_inherited_keys
from trio_proxy.settings.load.plugins import make_middleware
from trio_proxy.settings.load.problems import ConfigError, Problem, problems_in
from trio_proxy.settings.middleware import KIND_EXPECTED
from trio_proxy.settings.places import read_address
from trio_proxy.settings.root import unknown_names
from trio_proxy.settings.table import SettingError, Table, named_tables_of, show, table_of

Hook: TypeAlias = Callable[[Any, Any], Any]


def structure(
    document: Mapping[str, Any],
    *,
    source: str,
    handlers: Iterable[str] = (),
    middlewares: Iterable[str] = (),
) -> Settings:
    """Make settings of a document; raises ConfigError with all problems, named after ``source``.

    ``handlers`` and ``middlewares`` are names that routes can have beside those of the document.
    """
    document, inherited = with_inherited_keys(document)
    unknown = [
        Problem(source, each.key, each.wrong, each.expected)
        for each in unknown_names(_sound_routes(document), _names(document), handlers, middlewares)
    ]
    try:
        settings = _CONVERTER.structure(document, Settings)
    except BaseValidationError as exc:
        problems = told_once(problems_in(exc, source), inherited)
        raise ConfigError([*problems, *unknown]) from exc
    if unknown:
        raise ConfigError(unknown)
    return settings


def _sound_routes(document: Mapping[str, Any]) -> Iterator[RouteSettings | None]:
    """Its routes, with None in the place of each faulty one."""
    routes = document.get("routes")
    for route in routes if isinstance(routes, list) else ():
        try:
            yield _CONVERTER.structure(route, RouteSettings)
        except (SettingError, BaseValidationError):
            yield None


def _names(document: Mapping[str, Any]) -> list[str]:
    """Those of its middlewares."""
    tables = document.get("middlewares")
    return [*tables] if isinstance(tables, dict) else []


def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    for kind in (bool, int, float, str):
        converter.register_structure_hook(kind, _as_it_is)
    converter.register_structure_hook_func(lambda kind: _origin(kind) is Literal, _as_it_is)
    converter.register_structure_hook_factory(lambda kind: _origin(kind) is tuple, _array_hook)
    converter.register_structure_hook_factory(_is_table, _table_hook)
    converter.register_structure_hook_factory(_is_named, _named_tables_hook)
    converter.register_structure_hook_factory(_is_optional_table, _optional_table_hook)
    converter.register_structure_hook_func(lambda kind: kind in (Address, Address | None), _address)
    converter.register_structure_hook_func(lambda kind: kind == TrustedPeer, _trusted_peer)
    converter.register_structure_hook_func(lambda kind: kind == Workers, _as_it_is)
    return converter


def _as_it_is(value: Any, _: Any) -> Any:
    return value


def _origin(kind: Any) -> Any:
    return get_origin(kind)


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Table)


def _is_named(kind: Any) -> bool:
    return named_tables_of(kind) is not None


def _is_optional_table(kind: Any) -> bool:
    return table_of(kind) is not None and not _is_table(kind)


def _optional_table_hook(kind: Any, converter: Converter) -> Hook:
    """A table that may be left out; TOML has no null, so if it is there it is a table."""
    structure_table = _table_hook(table_of(kind), converter)

    def structure_if_given(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise SettingError("", f"is {show(value)}", "expected a table, or to be left out")
        return structure_table(value, None)

    return structure_if_given


def _table_hook(cls: Any, converter: Converter) -> Hook:
    """Structure one settings class: its keys, their validators, then the rules between keys."""
    if cls is MiddlewareSettings:
        return _structure_middleware
    keys = {each.name: each for each in attrs.fields(attrs.resolve_types(cls))}
    hooks = {name: _checked(key, converter) for name, key in keys.items()}
    overrides = {name: override(struct_hook=hook) for name, hook in hooks.items()}
    from_dict = make_dict_structure_fn(cls, converter, **overrides)  # type: ignore[arg-type]

    def structure_table(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            # A text in place of a table is not shown: it may be the address of a store.
            wrong = "is a text" if isinstance(value, str) else f"is {show(value)}"
            raise SettingError("", wrong, "expected a table")
        try:
            return from_dict(value, cls)
        except ClassValidationError as exc:
            conflicts = cls.conflicts(_sound_values(value, keys, hooks))
            raise exc.derive([*exc.exceptions, *conflicts]) from exc

    return structure_table


def _structure_middleware(value: Any, _: Any) -> MiddlewareSettings:
    """The table of a middleware, whose other keys are for the class that its kind names."""
    if not isinstance(value, dict):
        raise SettingError("", f"is {show(value)}", "expected a table")
    try:
        if "kind" not in value:
            raise SettingError("kind", "is missing", KIND_EXPECTED)
        options = {key: option for key, option in value.items() if key != "kind"}
        settings = MiddlewareSettings(kind=value["kind"], options=options)
        make_middleware(settings)
    except SettingError as exc:
        raise ClassValidationError("a faulty kind", [exc], MiddlewareSettings) from exc
    return settings


def _named_tables_hook(kind: Any, converter: Converter) -> Hook:
    """Tables with names, as ``[pools.NAME]``. The names are for the validator of the key."""
    cls = named_tables_of(kind)
    structure_table = _table_hook(cls, converter)

    def structure_tables(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise SettingError("", f"is {show(value)}", "expected a table of tables")
        found, errors = {}, []
        for name, table in value.items():
            try:
                found[name] = structure_table(table, None)
            except (SettingError, BaseValidationError) as exc:
                exc.__notes__ = [AttributeValidationNote("in a table", name, cls)]
                errors.append(exc)
        if errors:
            raise ClassValidationError("faulty tables", errors, dict)
        return found

    return structure_tables


def _checked(key: attrs.Attribute[Any], converter: Converter) -> Hook:
    structure_value = converter.get_structure_hook(key.type)

    def structure_and_validate(value: Any, kind: Any) -> Any:
        result = structure_value(value, kind)
        if key.validator is not None:
            key.validator(None, key, result)
        return result

    return structure_and_validate


def _sound_values(
    table: dict[str, Any], keys: Mapping[str, attrs.Attribute[Any]], hooks: Mapping[str, Hook]
) -> dict[str, Any]:
    """The values of a faulty table that are right by themselves, defaults included."""
    values = {}
    for name, key in keys.items():
        if name in table:
            try:
                values[name] = hooks[name](table[name], key.type)
            except IterableValidationError as exc:
                values[name] = _sound_elements(table[name], hooks[name], exc)
            except (SettingError, BaseValidationError):
                if not _is_named(key.type) or not isinstance(table[name], dict):
                    continue
                values[name] = {
                    each: _one_sound(hooks[name], each, inner)
                    for each, inner in table[name].items()
                }
        elif isinstance(default := key.default, attrs.Factory):  # type: ignore[arg-type]
            values[name] = cast("Any", default).factory()
        elif key.default is not attrs.NOTHING:
            values[name] = key.default
    return values


def _one_sound(hook: Hook, name: str, table: Any) -> Any:
    """One table of those with names; None if it is faulty."""
    try:
        return hook({name: table}, None)[name]
    except (SettingError, BaseValidationError):
        return None


def _sound_elements(
    array: list[Any], hook: Hook, error: IterableValidationError
) -> tuple[Any, ...]:
    """The elements of a faulty array, with None in the place of each faulty one."""
    faulty = {note.index for _, note in error.group_exceptions()[0]}
    return tuple(
        None if index in faulty else hook([item], None)[0] for index, item in enumerate(array)
    )


def _array_hook(kind: Any, converter: Converter) -> Hook:
    """An array becomes a tuple; one string stands for an array of one address."""
    element = get_args(kind)[0]
    as_list = list[element]  # type: ignore[valid-type]
    structure_list = converter.get_structure_hook(as_list)

    def structure_array(value: Any, _: Any) -> tuple[Any, ...]:
        if isinstance(value, str) and element == Address:
            return (read_address(value),)
        if not isinstance(value, list):
            raise SettingError("", f"is {show(value)}", f"expected {_array_of(element, value)}")
        return tuple(structure_list(value, as_list))

    return structure_array


def _array_of(element: Any, value: Any) -> str:
    if _is_table(element):
        return "an array of tables, each below a [[header]] in double brackets"
    if element == Address:
        return "an address or an array of addresses"
    return f"an array, as [{show(value)}]" if isinstance(value, str) else "an array"


def _address(value: Any, _: Any) -> Address:
    if not isinstance(value, str):
        raise SettingError("", f"is {show(value)}", "expected host:port or unix:/path")
    return read_address(value)


def _trusted_peer(value: Any, _: Any) -> TrustedPeer:
    if value == "unix":
        return "unix"
    expected = 'expected a network as 10.0.0.0/8, an IP address, or "unix"'
    if not isinstance(value, str):  # ip_network would take an integer
        raise SettingError("", f"is {show(value)}", expected)
    try:
        return ipaddress.ip_network(value)
    except ValueError as exc:
        raise _host_bits(value) or SettingError("", f"is {show(value)}", expected) from exc


def _host_bits(text: str) -> SettingError | None:
    """Which network was meant; whether the network or one address, only the author knows."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    wrong = f"is {show(text)}, which is an address within a network"
    return SettingError("", wrong, f"expected {network}, or the address without a prefix length")


_CONVERTER = _converter()
