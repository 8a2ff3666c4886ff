"""What a connection costs that does nothing, and how soon a proxy answers after its start."""

from __future__ import annotations

import contextlib
import time

import client
from client import NotEqual
from contest import Contest, Server
from plan import Run, new_section
from proxies import Proxy, Setup
from results import Sample, Section

#: Requests over one connection before memory is looked at, so that lazy parts are loaded.
WARM_UP_REQUESTS = 200

#: Lets allocators and garbage collectors settle before memory is read.
SETTLE_SECONDS = 0.5


def measure_idle(run: Run) -> Section:
    """Each in a fresh process: memory that a load has left free would be used again."""
    count = run.sizes.idle_connections
    section = new_section(connections=f"{count:,}")
    for proxy in run.proxies:
        with run.contest.servers([proxy], run.setup(clients=count + 1000)) as servers:
            for server in servers:
                try:
                    section.add(proxy.name, {"round": 0, **_idle(server, count)})
                except OSError as exc:
                    section.notes.append(f"{proxy.name}: {exc}")
    return section


def _idle(server: Server, count: int) -> Sample:
    """Connections that had one request each stay open; later each has one more."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(client.connect(server.port))
        for _ in range(WARM_UP_REQUESTS):
            client.ask(first)
        time.sleep(SETTLE_SECONDS)
        before = server.process.rss_kib()
        opened = []
        for _ in range(count):
            opened.append(stack.enter_context(client.connect(server.port)))
            client.ask(opened[-1])
        time.sleep(SETTLE_SECONDS)
        after = server.process.rss_kib()
        answered = 0
        for sock in opened:
            with contextlib.suppress(OSError):
                client.ask(sock)
                answered += 1
    return {
        "kib": (after - before) / count,
        "connections": count,
        "answered": answered,
        "errors": count - answered,
    }


def measure_start(run: Run) -> Section:
    """From the start of the process to the first answer, in a new process each time."""
    section = new_section(runs=f"{run.sizes.starts}")
    for number in range(run.sizes.starts):
        for proxy in run.proxies:
            try:
                taken = _start_ms(run.contest, proxy, run.setup())
            except NotEqual as exc:
                section.notes.append(f"{proxy.name}: {exc}")
            else:
                section.add(proxy.name, {"round": number, "ms": taken})
    return section


def _start_ms(contest: Contest, proxy: Proxy, setup: Setup) -> float:
    begun = time.monotonic()
    server = contest.start(proxy, setup)
    try:
        client.wait_for_answer(server.port, server.process)
        return (time.monotonic() - begun) * 1000
    finally:
        contest.bench.stop(server.process)
