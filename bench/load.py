"""The load: wrk, one thread on the core that the proxy does not use."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contest import Server
from processes import pinned
from results import Sample
from upstream import MIB, Upstream

SCRIPT = Path(__file__).with_name("wrk.lua")

#: What wrk may take to end after it was told to.
GRACE_SECONDS = 15

#: What a proxy may take to accept the connections of a load; it is measured with those it has.
ACCEPT_SECONDS = 10


class LoadError(Exception):
    """There is no result."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One kind of load. ``mode`` and ``size`` are what wrk.lua sends."""

    mode: str = "small"
    path: str = "/"
    connections: int = 32
    #: Bytes that each request moves; 0 if they do not matter.
    size: int = 0
    #: How long the load runs on all connections before it is measured, in seconds.
    settle: float = 0.3
    #: Count bytes, not requests, and over the whole run: for bodies that take long.
    by_bytes: bool = False


def run(
    scenario: Scenario, server: Server, upstream: Upstream, core: int, seconds: float
) -> Sample:
    """Load a proxy and measure it for ``seconds``. Raises LoadError if wrk itself fails."""
    start = server.process.reading()
    with wrk(scenario, server.port, core) as process:
        accepted = _wait_accepted(scenario.connections, server.port)
        time.sleep(scenario.settle)
        before, first = upstream.requests(), server.process.reading()
        time.sleep(seconds)
        requests, last = upstream.requests() - before, server.process.reading()
        rss = server.process.rss_kib()
        result = ended(process)
    if scenario.by_bytes:
        requests = result["bytes"] / scenario.size
        first, last = start, server.process.reading()
    used = first.until(last)
    rate = requests / used["seconds"]
    return {
        "requests_per_second": rate,
        "p50_ms": result["p50_ms"],
        "p99_ms": result["p99_ms"],
        "cpu_us": (last.cpu - first.cpu) / max(1, requests) * 1e6,
        "mib_per_second": rate * scenario.size / MIB,
        "rss_kib": rss,
        "connections": accepted,
        "errors": sum(result["errors"].values()) + (0 if requests else 1),
        # Well below 1, the load was the bottleneck, or others had the core.
        "busy": used["busy"],
        "others": used["others"],
    }


def _wait_accepted(connections: int, port: int) -> int:
    """How many a proxy has accepted: as soon as it has them all, or when time is up."""
    until = time.monotonic() + ACCEPT_SECONDS
    while (accepted := _accepted(port)) < connections and time.monotonic() < until:
        time.sleep(0.1)
    return min(accepted, connections)


def _accepted(port: int) -> int:
    """Established connections to a loopback port that are not in the backlog any more."""
    ours = f"0100007F:{port:04X}"
    fields = (line.split(maxsplit=10) for line in Path("/proc/net/tcp").read_text().splitlines())
    # Local address, state, inode: a connection in the backlog has none.
    return sum(one[1] == ours and one[3] == "01" and one[9] != "0" for one in fields)


@contextmanager
def wrk(scenario: Scenario, port: int, core: int) -> Iterator[subprocess.Popen[str]]:
    """Load a port until `ended` is called or the block is left."""
    command = [
        str(shutil.which("wrk")),
        "--threads=1",
        f"--connections={scenario.connections}",
        "--duration=1h",  # it is interrupted
        "--timeout=10s",
        "--latency",
        f"--script={SCRIPT}",
        f"http://127.0.0.1:{port}{scenario.path}",
        "--",
        scenario.mode,
        str(scenario.size),
    ]
    with pinned(core):
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    """End wrk; what its script says of the run. Raises LoadError if it does not say anything."""
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=GRACE_SECONDS)
    except subprocess.TimeoutExpired as exc:
        raise LoadError("wrk did not end") from exc
    line = next((row for row in out.splitlines() if row.startswith("result ")), None)
    if line is None:
        raise LoadError(err.strip() or out.strip())
    found: dict[str, Any] = json.loads(line.removeprefix("result "))
    return found
