"""``nox`` runs the tests and the checks; ``nox -s tests -- -k reload`` passes arguments on."""

from __future__ import annotations

import shutil

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "lint", "types"]

#: Processes that share the tests; the machines of continuous integration have two cores.
WORKERS = "2"

PATHS = ("trio_proxy", "tests", "bench", "noxfile.py")


@nox.session
def tests(session: nox.Session) -> None:
    """Every test but the slow ones."""
    session.install("-e", ".[tests]")
    # Whole files at a time: tests of one file share servers.
    session.run("pytest", "-n", WORKERS, "--dist", "loadfile", "-m", "not slow", *session.posargs)


@nox.session
def tests_speed(session: nox.Session) -> None:
    """The same tests on the compiled h11 of the speed extra."""
    session.install("-e", ".[tests,speed]")
    env = {"TRIO_PROXY_H11": "h11_mypyc"}  # it fails rather than takes the plain one
    command = ("pytest", "-n", WORKERS, "--dist", "loadfile", "-m", "not slow")
    session.run(*command, *session.posargs, env=env)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests that take longer than five seconds each."""
    session.install("-e", ".[tests]")
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and whether every file is formatted."""
    session.install(".[lint]")
    session.run("ruff", "check", *PATHS)
    session.run("ruff", "format", "--check", *PATHS)


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict; the configuration is in pyproject.toml."""
    session.install("-e", ".[tests,types]")
    session.run("mypy", *session.posargs)


@nox.session
def bench_smoke(session: nox.Session) -> None:
    """Whether each part of the benchmark works, and trio-proxy gives no error under it."""
    missing = [tool for tool in ("wrk", "nginx") if shutil.which(tool) is None]
    if missing:
        session.skip(f"not installed: {', '.join(missing)}")
    session.install("-e", ".[bench]")
    session.run("python", "bench/run.py", "--smoke", "--peers", "nginx", *session.posargs)
