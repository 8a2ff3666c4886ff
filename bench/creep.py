"""Whether anything creeps: memory, files and tasks after very many requests and departed clients.

A warm-up with the same mix comes first, since allocators and caches grow to the size of the load
once. Idle upstream connections are closed soon here, so that files can come back to the start.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import client
import load
from aborts import Leavers
from contest import Server
from load import LoadError, Scenario
from plan import Run, new_section
from proxies import PLAIN, SPEED, Proxy
from results import Sample, Section

IDLE_SECONDS = 2

#: How long files and tasks may take to come back to the start.
RETURN_SECONDS = 30.0

#: A part that takes so long is given up.
PART_SECONDS = 900.0


@dataclass(frozen=True)
class Watched:
    """The proxy under watch."""

    run: Run
    server: Server
    tasks_file: Path
    leavers: Leavers

    def sample(self) -> Sample:
        return {
            "rss_kib": self.server.process.rss_kib(),
            "files": self.server.process.open_files(),
            "tasks": self._tasks(),
        }

    def _tasks(self) -> int:
        """Raises TimeoutError if it does not say."""
        self.tasks_file.unlink(missing_ok=True)
        self.server.process.send(signal.SIGUSR1)
        until = time.monotonic() + client.START_SECONDS
        while not self.tasks_file.exists():
            if time.monotonic() > until:
                raise TimeoutError("it does not say how many tasks it has")
            time.sleep(0.01)
        return int(self.tasks_file.read_text())

    def returned(self, start: Sample) -> Sample:
        """A sample as soon as files and tasks are where they were, or when time is up."""
        until = time.monotonic() + RETURN_SECONDS
        while True:
            sample = self.sample()
            back = all(sample[name] <= start[name] for name in ("files", "tasks"))
            if back or time.monotonic() > until:
                return sample
            time.sleep(0.1)

    def load(self, requests: int, aborts: int) -> tuple[int, int]:
        """About so many requests while so many clients leave: requests answered, and errors."""
        upstream = self.run.upstream
        with load.wrk(Scenario(connections=64), self.server.port, self.run.load_core) as wrk:
            until = time.monotonic() + PART_SECONDS
            goal = upstream.requests() + requests
            self.leavers.run(aborts)
            while upstream.requests() < goal:
                if time.monotonic() > until:
                    raise TimeoutError(f"{goal - upstream.requests()} requests are missing")
                time.sleep(0.05)
            result = load.ended(wrk)
        self.server.process.wait_quiet()
        self.server.empty_log()
        return result["requests"], sum(result["errors"].values())


def measure(run: Run) -> Section:
    """Samples at the start, after the warm-up, after each part, and at the end."""
    section = new_section(
        load=f"{run.sizes.creep_requests:,} requests, {run.sizes.creep_aborts:,} departed clients"
    )
    (proxy,) = run.chosen(SPEED) or run.chosen(PLAIN)
    tasks_file = run.bench.directory / "tasks"
    setup = run.setup(idle_seconds=IDLE_SECONDS)
    with run.contest.servers(
        [_watched(proxy, tasks_file)], setup, ready=client.wait_for_listener
    ) as servers:
        for server in servers:
            watched = Watched(run, server, tasks_file, Leavers(server.port))
            try:
                _run(watched, section)
            except (OSError, LoadError) as exc:
                section.notes.append(f"{server.name}: {exc}")
    return section


def _watched(proxy: Proxy, tasks_file: Path) -> Proxy:
    command = f"<python> <here>/../watched_proxy.py {tasks_file} <config>"
    return replace(proxy, command=command)


def _run(watched: Watched, section: Section) -> None:
    sizes = watched.run.sizes
    requests, aborts = sizes.creep_requests, sizes.creep_aborts
    name = watched.server.name
    start = watched.sample()
    section.add(name, {"requests": 0, "aborts": 0, **start})
    share, parts = sizes.creep_warm_up, sizes.creep_parts
    _, errors = watched.load(round(requests * share), round(aborts * share))
    warm = watched.returned(start)
    section.add(name, {"requests": 0, "aborts": 0, "errors": errors, **warm})
    watched.leavers.count = answered = 0
    while answered < requests:
        left = min(aborts // parts, aborts - watched.leavers.count)
        more, errors = watched.load(requests // parts, left)
        answered += more
        counts = {"requests": answered, "aborts": watched.leavers.count, "errors": errors}
        section.add(name, {**counts, **watched.sample()})
    watched.leavers.run(aborts - watched.leavers.count)
    counts = {"requests": answered, "aborts": watched.leavers.count}
    section.add(name, {**counts, **watched.returned(start)})
