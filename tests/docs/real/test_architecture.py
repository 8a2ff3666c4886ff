"""What ARCHITECTURE.md says of files and numbers is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.documents import Document
from support.processes import ROOT
from trio_proxy.server.run import DRIVEN_BY

PAGE = Document("ARCHITECTURE.md")
PATH = PAGE.section("The path of `request` and `sink`")
ROOMS = {each.name for each in (ROOT / "trio_proxy").iterdir() if each.is_dir()}


@pytest.fixture(scope="module")
def traced() -> dict[str, Any]:
    """What one GET has passed, by the tool that the page names."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench/path_of_a_get.py"), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_get_passes_no_more_than_it_says(traced: dict[str, Any]) -> None:
    """Whoever makes the way longer has to say so; of compiled modules less is seen."""
    numbers = re.search(r"\*\*(\d+) files, (\d+) functions, (\d+)\s+calls\*\*", PATH)
    assert numbers is not None
    files, functions, calls = map(int, numbers.groups())
    assert traced["files"] <= files
    assert traced["functions"] <= functions
    assert traced["calls"] <= calls


def table() -> list[str]:
    """The files of the path, in its order."""
    rows = re.findall(r"^\| (\d+) \| `([^`]*)` \|", PATH, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    return [file for _, file in rows]


@pytest.mark.skipif("modules compiled" in DRIVEN_BY, reason="compiled modules cannot be traced")
def test_the_path_names_every_file_that_is_handed_the_request_or_the_sink(
    traced: dict[str, Any],
) -> None:
    """And none that a GET does not pass."""
    assert set(traced["handed"]) <= set(table()) <= set(traced["path"])
    assert len(table()) <= 20


DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"]

#: Files that are spoken of, and are not there.
MADE_UP = {"trio_proxy/handlers/hello.py"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_files_that_are_named_are_there(document: str) -> None:
    """By their place in the package, in their room, or in the project."""
    text = Document(document).text
    named = re.findall(r"`([\w.][\w./]*(?:\.py|\.md|\.toml|\.yml|\.yaml|/))`", text)
    assert named
    for name in set(named) - MADE_UP:
        places = [ROOT / name, ROOT / "trio_proxy" / name, *_in_rooms(name.rstrip("/"))]
        assert any(place.exists() for place in places), name


def _in_rooms(name: str) -> list[Path]:
    return [] if "/" in name else list((ROOT / "trio_proxy").rglob(name))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_to_files_lead_somewhere(document: str) -> None:
    """From the root of the project."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]*)", Document(document).text)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_every_room_is_described() -> None:
    """In the table of rooms."""
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.section("Floors and rooms"), re.MULTILINE)
    assert set(rows) == ROOMS - {"__pycache__"}
