"""The load: wrk, one thread on the core that the proxy does not use."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import Process, pinned

SCRIPT = Path(__file__).with_name("wrk.lua")


#: What wrk may take longer than asked: its own time-out, and one of its ends.
GRACE_SECONDS = 10


class LoadError(Exception):
    """There is no result."""


@dataclass(frozen=True)
class Scenario:
    """One kind of load. ``mode`` is what wrk.lua sends; ``mib`` the MiB that each request moves."""

    name: str
    title: str
    mode: str
    path: str
    connections: int
    mib: int = 0


SCENARIOS = (
    Scenario("small-32", "Small responses, 32 connections", "small", "/", 32),
    Scenario("small-256", "Small responses, 256 connections", "small", "/", 256),
    Scenario("download", "1 MiB responses, 8 connections", "download", "/big", 8, mib=1),
    Scenario("upload", "1 MiB uploads, 8 connections", "upload", "/upload", 8, mib=1),
)


@dataclass(frozen=True)
class Sample:
    """What one run gave. CPU is the proxy's, user and system, in µs for each request."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    #: Share of the core that the proxy used; well below 1, the load was the bottleneck.
    busy: float
    #: 0 for small responses.
    mib_per_second: float
    errors: dict[str, int]


def run(scenario: Scenario, port: int, proxy: Process, core: int, seconds: int) -> Sample:
    """Load the proxy for ``seconds``. Raises LoadError if wrk itself fails."""
    command = [
        str(shutil.which("wrk")),
        "--threads=1",
        f"--connections={scenario.connections}",
        f"--duration={seconds}s",
        "--timeout=5s",
        "--latency",
        f"--script={SCRIPT}",
        f"http://127.0.0.1:{port}{scenario.path}",
        "--",
        scenario.mode,
    ]
    cpu = proxy.cpu_seconds()
    with pinned(core):
        done = _finished(command, seconds + GRACE_SECONDS)
    cpu = proxy.cpu_seconds() - cpu
    line = next((row for row in done.stdout.splitlines() if row.startswith("result ")), None)
    if line is None:
        raise LoadError(done.stderr.strip() or done.stdout.strip())
    return _sample(json.loads(line.removeprefix("result ")), cpu, scenario)


def _finished(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as exc:
        raise LoadError(f"wrk did not end within {seconds} s") from exc


def _sample(result: dict[str, Any], cpu: float, scenario: Scenario) -> Sample:
    errors = {kind: count for kind, count in result["errors"].items() if count}
    if not result["requests"]:
        errors["no answers"] = 1
    rate = result["requests"] / result["seconds"]
    return Sample(
        requests_per_second=rate,
        p50_ms=result["p50_ms"],
        p99_ms=result["p99_ms"],
        cpu_us=cpu * 1e6 / max(1, result["requests"]),
        busy=cpu / result["seconds"],
        mib_per_second=rate * scenario.mib,
        errors=errors,
    )
