"""``nox`` runs the tests and the checks; ``nox -s tests -- -k reload`` passes arguments on."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "lint", "types"]

#: Processes that share the tests; the machines of continuous integration have two cores.
WORKERS = "2"

PATHS = ("trio_proxy", "tests", "bench", "examples", "noxfile.py")


@nox.session
def tests(session: nox.Session) -> None:
    """Every test but the slow ones."""
    session.install("-e", ".[tests]")
    # Whole files at a time: tests of one file share servers.
    session.run("pytest", "-n", WORKERS, "--dist", "loadfile", "-m", "not slow", *session.posargs)


@nox.session
def tests_speed(session: nox.Session) -> None:
    """The same tests on the speed extra: compiled h11, and own modules compiled by mypyc."""
    session.install("build")
    wheels = Path(session.create_tmp()) / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    build_env = {"HATCH_BUILD_HOOK_ENABLE_MYPYC": "true"}
    # By way of a source distribution, so that no compiled module is left in this tree.
    session.run("python", "-m", "build", "--outdir", str(wheels), env=build_env, silent=True)
    (wheel,) = wheels.glob("*.whl")
    session.install("--force-reinstall", "--no-deps", str(wheel))
    session.install(f"{wheel}[tests,speed]")
    # The first fails rather than takes the plain h11; the second keeps this tree off the path.
    env = {"TRIO_PROXY_H11": "h11_mypyc", "PYTHONSAFEPATH": "1"}
    is_compiled = "from trio_proxy.server.run import DRIVEN_BY as it; assert 'compiled' in it, it"
    session.run("python", "-c", is_compiled, env=env)
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
    session.run("mypy", "--strict", "examples", *session.posargs)


@nox.session
def bench_smoke(session: nox.Session) -> None:
    """Whether each part of the benchmark works, and trio-proxy gives no error under it."""
    missing = [tool for tool in ("wrk", "nginx") if shutil.which(tool) is None]
    if missing:
        session.skip(f"not installed: {', '.join(missing)}")
    session.install("-e", ".[bench]")
    session.run("python", "bench/run.py", "--smoke", "--peers", "nginx", *session.posargs)
