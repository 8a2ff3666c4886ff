"""The one private thing of h11 that is used, where it is used, and what it must be."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import trio_proxy
from trio_proxy.codec.h1.machine import h11, process_event

ROOT = Path(trio_proxy.__file__).parent

#: The only file that may touch what h11 does not declare public.
MACHINE = "codec/h1/machine.py"

#: The versions of which it has been seen that `process_event` does what it says.
CHECKED = {"h11": r"0\.16\..*", "h11_mypyc": r"0\.17\..*"}

WHAT_TO_DO = f"""
trio_proxy/{MACHINE} tells h11 of events by a method that h11 does not declare public. See in its
source (`Connection.next_event`) what a parsed event goes through now, have `process_event` do that,
run tests/strictness/codec, and note the version here and in pyproject.toml.
"""


def test_h11_still_has_what_is_used_of_it_beyond_what_it_declares_public() -> None:
    """If this fails, h11 has changed; it says what is to be done."""
    name = h11.__name__
    found = version(name.replace("_", "-"))
    assert re.fullmatch(CHECKED[name], found), f"{name} {found} was never checked.{WHAT_TO_DO}"
    method = getattr(h11.Connection, "_process_event", None)
    assert method is not None, f"{name} {found} has no Connection._process_event.{WHAT_TO_DO}"
    names = list(inspect.signature(method).parameters)
    assert names == ["self", "role", "event"], f"{name} {found}: {names}.{WHAT_TO_DO}"
    machine = h11.Connection(h11.SERVER)
    process_event(machine, h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    states = machine.states
    expected = {h11.CLIENT: h11.SEND_BODY, h11.SERVER: h11.SEND_RESPONSE}
    assert states == expected, f"{name} {found}: {states}.{WHAT_TO_DO}"


# Nobody else


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


#: Of its classes, and of an object in use.
PRIVATE_NAMES = {
    each
    for kind in (h11.Connection, h11.Request, h11.Response, h11.Data, h11.EndOfMessage)
    for each in dir(kind)
    if private(each)
} | {each for each in dir(h11.Connection(h11.CLIENT)) if private(each)}


def breaches(source: str, name: str) -> Iterator[str]:
    """Where a file of the package reaches into h11.

    In the codec's room, where h11's objects are, nothing private may be touched of anything but
    ``self``; elsewhere nothing that is called as something private of h11, nor h11 itself.
    """
    is_codec = name.startswith("codec/")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and private(node.attr):
            is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if not is_own and (is_codec or node.attr in PRIVATE_NAMES | {"_h11"}):
                yield f"{name}:{node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr"):
            if isinstance(node.args[1], ast.Constant) and node.args[1].value in PRIVATE_NAMES:
                yield f"{name}:{node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").endswith("h1.machine"):
            taken = {alias.name for alias in node.names} - {"NAME"}
            if taken and not is_codec:
                yield f"{name}:{node.lineno}: imports {', '.join(sorted(taken))}"


def test_no_other_file_touches_anything_private_of_h11() -> None:
    """So whoever changes the version of h11 has one file to look at."""
    found = [
        breach
        for path in sorted(ROOT.rglob("*.py"))
        if (name := path.relative_to(ROOT).as_posix()) != MACHINE
        for breach in breaches(path.read_text(), name)
    ]
    assert not found, "\n" + "\n".join(found)


def test_that_file_uses_one_private_thing_of_h11() -> None:
    """Another would need another test."""
    used = [
        node.attr
        for node in ast.walk(ast.parse((ROOT / MACHINE).read_text()))
        if isinstance(node, ast.Attribute) and private(node.attr)
    ]
    assert used == ["_process_event"]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("codec/h1/wire.py", "self._h11._cstate"),
        ("codec/h1/wire.py", "machine._reader"),
        ("front/h1_session.py", "wire._h11.states"),
        ("front/h1_session.py", "x._process_event(1, 2)"),
        ("front/h1_session.py", "getattr(x, '_process_event')"),
        ("front/h1_session.py", "from trio_proxy.codec.h1.machine import NAME, h11"),
    ],
)
def test_a_breach_is_found(name: str, source: str) -> None:
    """The check itself is checked."""
    assert len(list(breaches(source, name))) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("codec/h1/wire.py", "self._h11.states"),
        ("codec/h1/wire.py", "machine.states"),
        ("upstream/attempt.py", "self._reader"),
        ("server/run.py", "from trio_proxy.codec.h1.machine import NAME"),
    ],
)
def test_what_is_no_breach_passes(name: str, source: str) -> None:
    """What is private of our own objects is our own affair."""
    assert not list(breaches(source, name))
