"""Flame graphs of trio-proxy under a load, recorded by py-spy."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import load
from compare import SCENARIOS
from plan import Run
from proxies import PLAIN, SPEED

DIRECTORY = Path(__file__).with_name("results")

#: Samples in a second. Each stops the process for a moment.
RATE = 250


class ProfileError(Exception):
    """There is no flame graph."""


def record(run: Run, name: str) -> list[Path]:
    """An SVG of each trio-proxy under the load of that name. Raises ProfileError."""
    DIRECTORY.mkdir(exist_ok=True)
    paths = []
    with run.contest.servers(run.chosen(PLAIN, SPEED), run.setup()) as servers:
        for server in servers:
            slug = re.sub(r"\W+", "-", server.name).strip("-")
            path = DIRECTORY / f"{name}-{slug}.svg"
            with load.wrk(SCENARIOS[name], server.port, run.load_core):
                _record(server.process.pid, path, run.sizes.seconds)
            paths.append(path)
    return paths


def _record(pid: int, path: Path, seconds: float) -> None:
    beside = Path(sys.executable).with_name("py-spy")
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if program is None:
        raise ProfileError("py-spy is not installed: pip install -e '.[bench]'")
    duration = str(max(1, round(seconds)))
    command = [program, "record", "--pid", str(pid), "--output", str(path)]
    done = subprocess.run(
        [*command, "--duration", duration, "--rate", str(RATE)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ProfileError(done.stderr.strip() or "py-spy failed")
