"""Each attack that SECURITY.md names has tests that are there, and keys that there are."""

from __future__ import annotations

import re

import pytest

from support.documents import Document
from support.processes import ROOT

PAGE = Document("SECURITY.md")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.section("Each attack").splitlines()
    if line.startswith("| ") and not line.startswith("| attack")
]
REFERENCE = (ROOT / "conf/reference.toml").read_text()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:30])
def test_each_attack_has_its_answer_its_keys_and_its_tests(row: list[str]) -> None:
    """Tests are named by their files; a key is one of the reference, or there is none."""
    _, answer, keys, tests = row
    assert answer
    files = re.findall(r"`([^`]*)`", tests)
    assert files
    for file in files:
        assert re.fullmatch(r"tests/\w+/(policy|codec|sim|real)/test_\w+\.py", file), file
        assert (ROOT / file).is_file(), file
    named = re.findall(r"`([^`]*)`", keys)
    assert named or keys == "always"
    for words in named:
        for word in words.split():
            assert known(word), word


def known(word: str) -> bool:
    """Whether a table or key is in the reference, if only as one that is off."""
    if word.startswith("["):
        return re.search(rf"^#? *{re.escape(word)}", REFERENCE, re.MULTILINE) is not None
    return re.search(rf"^#? *{word} = ", REFERENCE, re.MULTILINE) is not None


@pytest.mark.parametrize(
    "attack",
    [
        *("smuggling", "spoofing", "Slow clients", "Floods", "Many connections", "Large heads"),
        *("Large bodies", "stalls", "dies", "garbage", "splitting", "Log injection", "Loops"),
        *("h2c", "DNS", "Secrets", "Memory", "plugin", "underscores", "chunk tricks"),
    ],
)
def test_the_attacks_of_the_field_are_there(attack: str) -> None:
    """None of them was forgotten when the table was edited."""
    assert any(attack in row[0] for row in ROWS)
