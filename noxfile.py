"""``nox`` runs the tests and the checks; ``nox -s tests -- -k reload`` passes arguments on."""

from __future__ import annotations

from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "lint", "types"]

PATHS = ("trio_proxy", "tests", "noxfile.py")


@nox.session
def tests(session: nox.Session) -> None:
    """Every test but the slow ones."""
    session.install("-e", ".[tests]")
    session.run("pytest", "-m", "not slow", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests that take longer than five seconds each."""
    session.install("-e", ".[tests]")
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and whether every file is formatted."""
    session.install(".[lint]")
    paths = [*PATHS, *(["bench"] if Path("bench").exists() else [])]
    session.run("ruff", "check", *paths)
    session.run("ruff", "format", "--check", *paths)


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict; the configuration is in pyproject.toml."""
    session.install("-e", ".[tests,types]")
    session.run("mypy", *session.posargs)
