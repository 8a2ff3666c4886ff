"""The house has floors: a file imports from lower floors, or from its own room.

The rules are read off the syntax tree, so an import inside a function counts as well; one that
only a type checker sees does not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import trio_proxy

ROOT = Path(trio_proxy.__file__).parent

#: Each room and its floor. A top-level module is a room of its own unless it is listed in `ROOMS`.
FLOORS = {
    "vocabulary": 0,
    "policy": 1,
    "wire": 1,
    "settings": 2,
    "config": 2,
    "net": 2,
    "contract": 2,
    "upstream": 3,
    "handlers": 4,
    "telemetry": 4,
    "front": 4,
    "server": 5,
    "testing": 5,
    "cli": 5,
    "__main__": 5,
    "__init__": 5,
}

#: The room of each top-level module.
ROOMS = {
    "addresses": "vocabulary",
    "complaint": "vocabulary",
    "errors": "vocabulary",
    "forwarding": "vocabulary",
    "headers": "vocabulary",
    "lifecycle": "vocabulary",
    "messages": "vocabulary",
    "names": "vocabulary",
    "sorted_fields": "vocabulary",
    "settings": "settings",
    "settings_checks": "settings",
    "settings_messages": "settings",
    "settings_places": "settings",
    "settings_table": "settings",
    "settings_upstreams": "settings",
    "config": "config",
    "config_environment": "config",
    "config_problems": "config",
    "config_structure": "config",
    "contract": "contract",
    "cli": "cli",
    "__main__": "__main__",
    "__init__": "__init__",
}

#: Doors between rooms on one floor, from the first to the second.
DOORS = {
    ("config", "settings"),
    ("settings", "config"),
    ("contract", "net"),
    ("cli", "server"),
    ("__main__", "cli"),
    ("__init__", "server"),
}

#: What only these rooms (or files) may import.
RESERVED = {
    "socket": ("net/",),
    "ssl": ("net/",),
    "dns": ("net/dns.py",),
    "coredis": ("handlers/redis_buckets.py", "handlers/redis_connection.py"),
    "h11": ("wire/machine.py",),
}

#: What these rooms must not import.
FORBIDDEN = {
    "policy": {"trio", "logging", "socket", "ssl", "select", "time", "random"},
    "wire": {"trio", "socket", "ssl", "select"},
}


def room_of(parts: tuple[str, ...]) -> str | None:
    """The room of a module, given its dotted name below the package; None if it has none."""
    if len(parts) > 1 or (ROOT / parts[0]).is_dir():
        return parts[0] if parts[0] in FLOORS else None
    return ROOMS.get(parts[0])


def imports_of(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that is imported when the program runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports_of(ast.Module(node.orelse, []), package)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (base, node.module or "") if part)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        else:
            yield from imports_of(node, package)


def broken_rules(path: Path) -> Iterator[str]:
    """One readable line for each rule that a file breaks."""
    name = path.relative_to(ROOT)
    parts = name.with_suffix("").parts
    here = room_of(parts)
    if here is None:
        yield f"{name}: on no floor; give it one in tests/test_floors.py"
        return
    package = ("trio_proxy", *parts[:-1])
    for line, imported in imports_of(ast.parse(path.read_text()), package):
        top, *rest = imported.split(".")
        if top == "trio_proxy":
            broken = _broken_inside(here, rest)
        else:
            broken = _broken_outside(here, name, imported)
        if broken:
            yield f"{name}:{line}: imports {imported}: {broken}"


def _broken_inside(here: str, rest: list[str]) -> str | None:
    known = bool(rest) and ((ROOT / rest[0]).is_dir() or (ROOT / f"{rest[0]}.py").is_file())
    there = room_of((rest[0],)) if known else "__init__"
    if there is None:
        return f"{rest[0]} is on no floor"
    if here == there or (here, there) in DOORS:
        return None
    if here == "telemetry" and there != "vocabulary":
        return "telemetry imports the vocabulary and itself only"
    if FLOORS[there] >= FLOORS[here]:
        return f"{here} (floor {FLOORS[here]}) may not reach {there} (floor {FLOORS[there]})"
    return None


def _broken_outside(here: str, name: Path, imported: str) -> str | None:
    top = imported.removeprefix("trio.") if imported.startswith("trio.socket") else imported
    top = top.split(".")[0]
    allowed = RESERVED.get(top)
    if allowed is not None and not name.as_posix().startswith(allowed):
        return f"only {allowed[0]} may import {top}"
    if top in FORBIDDEN.get(here, ()):
        return f"{here} must not import {top}"
    return None


def test_every_file_imports_from_lower_floors_or_its_own_room() -> None:
    """The list of broken rules, each with file and line, is empty."""
    files = sorted(ROOT.rglob("*.py"))
    assert len(files) > 20
    broken = [rule for path in files for rule in broken_rules(path)]
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize(
    ("file", "source", "rule"),
    [
        ("policy/x.py", "import trio", "policy/x.py:1: imports trio: policy must not import trio"),
        ("wire/x.py", "def f():\n import h11", "wire/x.py:2: imports h11: only wire/machine.py"),
        ("front/x.py", "from trio import socket", "only net/ may import socket"),
        ("front/x.py", "from trio_proxy.handlers import y", "front (floor 4) may not reach handl"),
        ("handlers/x.py", "from trio_proxy import front", "handlers (floor 4) may not reach front"),
        ("net/x.py", "from ..upstream import pool", "net (floor 2) may not reach upstream"),
        ("errors.py", "from trio_proxy.wire import h1", "vocabulary (floor 0) may not reach wire"),
        ("front/x.py", "from trio_proxy import __version__", "may not reach __init__"),
        ("telemetry/x.py", "from trio_proxy.net import y", "telemetry imports the vocabulary"),
        ("attic.py", "", "attic.py: on no floor"),
        ("attic/x.py", "", "attic/x.py: on no floor"),
    ],
)
def test_a_broken_rule_is_told_with_file_line_and_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, source: str, rule: str
) -> None:
    """The check itself is checked on a small house."""
    monkeypatch.setattr("test_floors.ROOT", tmp_path)
    for room in ("policy", "wire", "net", "upstream", "front", "handlers", "telemetry", "attic"):
        (tmp_path / room).mkdir()
    path = tmp_path / file
    path.write_text(source)
    (broken,) = broken_rules(path)
    assert rule in broken


def test_an_import_for_the_type_checker_only_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not there when the program runs; what stands in its else branch is."""
    monkeypatch.setattr("test_floors.ROOT", tmp_path)
    (tmp_path / "front").mkdir()
    source = "if TYPE_CHECKING:\n from trio_proxy.front import x\nelse:\n import h11\n"
    (tmp_path / "errors.py").write_text(source)
    (broken,) = broken_rules(tmp_path / "errors.py")
    assert broken == "errors.py:4: imports h11: only wire/machine.py may import h11"
