"""What CONTRIBUTING.md and the files beside it tell contributors to run is there."""

from __future__ import annotations

import re

import tomli

from support.documents import Document
from support.processes import ROOT

PAGE = Document("CONTRIBUTING.md")
HOOKS = (ROOT / ".pre-commit-config.yaml").read_text()
WORKFLOW = (ROOT / ".github/workflows/ci.yml").read_text()
PROJECT = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_sessions_are_those_of_the_noxfile() -> None:
    """Each is explained."""
    there = re.findall(r"@nox\.session\ndef (\w+)", (ROOT / "noxfile.py").read_text())
    explained = re.findall(r"^\| `nox -s (\w+)` \|", PAGE.text, re.MULTILINE)
    assert sorted(explained) == sorted(there)


def test_the_extras_are_there() -> None:
    """What is installed for a start."""
    (named,) = re.findall(r"pip install -e '\.\[([\w,]+)\]'", PAGE.text)
    assert set(named.split(",")) <= PROJECT["optional-dependencies"].keys()


def test_the_parts_of_the_benchmark_are_there() -> None:
    """By the names that `--only` and `--profile` take."""
    source = (ROOT / "bench/compare.py").read_text()
    named = re.findall(r"--(?:only|profile) ([\w,-]+)", PAGE.text)
    assert named
    for name in ",".join(named).split(","):
        assert f'"{name}"' in source, name


def test_the_hooks_are_those_of_the_environment() -> None:
    """They work without a network, and do what the sessions do."""
    assert re.findall(r"repo: (\S+)", HOOKS) == ["local"]
    assert set(re.findall(r"language: (\S+)", HOOKS)) == {"system"}
    entries = re.findall(r"entry: (\w+(?: \w+)?)", HOOKS)
    assert entries == ["ruff check", "ruff format", "mypy"]


def test_hosted_ci_runs_what_has_to_pass_and_the_suite_on_each_python() -> None:
    """On those that the project says it is for."""
    assert "- run: bash .ci/run" in WORKFLOW
    assert "- run: nox -s tests\n" in WORKFLOW
    (versions,) = re.findall(r"^ +python: \[(.*)\]$", WORKFLOW, re.MULTILINE)
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert re.findall(r'"([\d.]+)"', versions) == promised
