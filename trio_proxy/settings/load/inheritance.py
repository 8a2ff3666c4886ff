"""What a pool takes from the file: a key that ``[pools.NAME.health]`` leaves out is [health]'s."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from trio_proxy.settings import PoolSettings
from trio_proxy.settings.load.problems import Problem
from trio_proxy.settings.table import key_text, table_of

#: The tables that a pool can have of its own, each with its keys.
_KEYS: Mapping[str, frozenset[str]] = {
    name: frozenset(attrs.fields_dict(table))  # type: ignore[arg-type]
    for name, each in attrs.fields_dict(attrs.resolve_types(PoolSettings)).items()
    if (table := table_of(each.type))
}


def with_inherited_keys(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The document with each pool's tables filled up; and where each of those keys is from.

    A table that a pool does not have at all is left out: that is the file's as a whole.
    """
    pools = document.get("pools")
    if not isinstance(pools, dict):
        return dict(document), {}
    filled: dict[str, Any] = {}
    inherited: dict[str, str] = {}
    for pool, tables in pools.items():
        filled[pool] = dict(tables) if isinstance(tables, dict) else tables
        for name in _KEYS.keys() & filled[pool] if isinstance(tables, dict) else ():
            own, common = tables[name], document.get(name)
            if not isinstance(own, dict) or not isinstance(common, dict):
                continue
            missing = {key: common[key] for key in common.keys() & _KEYS[name] - own.keys()}
            filled[pool][name] = {**own, **missing}
            for key in missing:
                inherited[f"pools.{key_text(pool)}.{name}.{key}"] = f"{name}.{key}"
    return {**document, "pools": filled}, inherited


def told_once(problems: Iterable[Problem], inherited: Mapping[str, str]) -> Iterator[Problem]:
    """Without what is wrong with a key of the file and is told of the pools that take it."""
    problems = list(problems)
    for problem in problems:
        key = problem.path.partition("[")[0]
        if key in inherited:
            path = inherited[key] + problem.path.removeprefix(key)
            if attrs.evolve(problem, path=path) in problems:
                continue
        yield problem
