"""The house has floors: a file imports from lower floors, or from its own room.

The rules are read off the syntax tree, so an import inside a function counts as well, and so does
one that only a type checker sees.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import trio_proxy

ROOT = Path(trio_proxy.__file__).parent

#: Each room and its floor. A top-level module is a room of its own.
FLOORS = {
    "http": 0,
    "policy": 1,
    "codec": 1,
    "exchange": 2,
    "telemetry": 3,
    "net": 3,
    "settings": 3,
    "upstream": 4,
    "routing": 4,
    "middleware": 5,
    "handlers": 5,
    "front": 5,
    "server": 6,
    "testing": 6,
    "cli": 7,
    "__main__": 8,
    "__init__": 8,
}

#: What only these rooms (or files) may import.
RESERVED = {
    "socket": ("net/",),
    "ssl": ("net/",),
    "dns": ("net/dns/",),
    "coredis": ("middleware/ratelimit/",),
    "h11": ("codec/h1/machine.py",),
}

#: What these rooms must not import.
FORBIDDEN = {
    "policy": {"trio", "logging", "socket", "ssl", "select", "time", "random"},
    "codec": {"trio", "socket", "ssl", "select"},
    "http": {"trio", "socket", "ssl", "select"},
}


def room_of(parts: tuple[str, ...]) -> str | None:
    """The room of a module, given its dotted name below the package; None if it has none."""
    return parts[0] if parts[0] in FLOORS else None


def imports_of(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that is imported when the program runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
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
        yield f"{name}: on no floor; give it one in tests/house/test_floors.py"
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
    if here == there:
        return None
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
        ("codec/x.py", "def f():\n import h11", "codec/x.py:2: imports h11: only codec/h1/mac"),
        ("front/x.py", "from trio import socket", "only net/ may import socket"),
        ("front/x.py", "from trio_proxy.handlers import y", "front (floor 5) may not reach handl"),
        ("handlers/x.py", "from trio_proxy import front", "handlers (floor 5) may not reach front"),
        ("net/x.py", "from ..upstream import pool", "net (floor 3) may not reach upstream"),
        ("http/x.py", "from trio_proxy.codec import h1", "http (floor 0) may not reach codec"),
        ("front/x.py", "from trio_proxy import __version__", "may not reach __init__"),
        ("telemetry/x.py", "from trio_proxy.net import y", "telemetry (floor 3) may not reach net"),
        ("attic.py", "", "attic.py: on no floor"),
        ("attic/x.py", "", "attic/x.py: on no floor"),
    ],
)
def test_a_broken_rule_is_told_with_file_line_and_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, source: str, rule: str
) -> None:
    """The check itself is checked on a small house."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    for room in (*FLOORS, "attic"):
        (tmp_path / room).mkdir()
    path = tmp_path / file
    path.write_text(source)
    (broken,) = broken_rules(path)
    assert rule in broken


def test_an_import_for_the_type_checker_only_counts_as_well(tmp_path: Path) -> None:
    """What a reader has to know of a file is not less for it."""
    source = "if TYPE_CHECKING:\n import h11\n"
    assert list(imports_of(ast.parse(source), ())) == [(2, "h11")]


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules each of which imports, by way of others, all of its group."""

    def reach(module: str) -> set[str]:
        seen: set[str] = set()
        todo = [module]
        while todo:
            for found in imports[todo.pop()] - seen:
                seen.add(found)
                todo.append(found)
        return seen

    reached = {module: reach(module) for module in imports}
    groups = {
        tuple(sorted(other for other in reached[module] if module in reached[other]))
        for module in imports
    }
    return sorted([*group] for group in groups if group)


def imports_between(root: Path) -> dict[str, set[str]]:
    """Each module below a folder, and the modules there that it imports."""
    files = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        files[".".join(parts).removesuffix(".__init__")] = path
    files.pop("__init__", None)
    found = {}
    for module, path in files.items():
        package = ("trio_proxy", *path.relative_to(root).parts[:-1])
        names = {name for _, name in imports_of(ast.parse(path.read_text()), package)}
        inside = {name.removeprefix("trio_proxy.") for name in names}
        wanted = {name if name in files else name.rpartition(".")[0] for name in inside}
        found[module] = {name for name in wanted if name in files and name != module}
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    """What the type checker alone sees counts as well."""
    assert circles(imports_between(ROOT)) == []


def test_a_circle_is_found() -> None:
    """The check itself is checked on three modules and a bystander."""
    imports = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert circles(imports) == [["a", "b", "c"]]


# The drawings in ARCHITECTURE.md

DRAWINGS = Path(__file__).parents[2] / "ARCHITECTURE.md"


def rooms_between(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """Each room that imports others, and which."""
    found: dict[str, set[str]] = {}
    for module, others in imports.items():
        here = module.partition(".")[0]
        for there in {other.partition(".")[0] for other in others} - {here}:
            found.setdefault(here, set()).add(there)
    return found


def test_the_drawing_of_the_rooms_shows_who_imports_whom() -> None:
    """All of it, and nothing else; each line has the rooms of lower floors alone."""
    lines = re.findall(r"^(\w+) +─► (.*)$", DRAWINGS.read_text(), re.MULTILINE)
    drawn = {room: set(others.split()) for room, others in lines}
    assert len(drawn) == len(lines)
    assert drawn == rooms_between(imports_between(ROOT))


def test_the_drawing_of_the_floors_has_every_room_on_its_own() -> None:
    """From the roof down."""
    lines = re.findall(r"^  (\d) +(\w[\w ]*)$", DRAWINGS.read_text(), re.MULTILINE)
    drawn = {room: int(floor) for floor, rooms in lines for room in rooms.split()}
    assert drawn == FLOORS
    assert [int(floor) for floor, _ in lines] == sorted(set(FLOORS.values()), reverse=True)
