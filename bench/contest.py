"""The proxies that take part: which are installed, and their processes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import client
from client import NotEqual
from processes import Bench, Process, free_ports
from proxies import Proxy, Setup


@dataclass(frozen=True, eq=False)
class Server:
    """A proxy that is up."""

    proxy: Proxy
    process: Process
    port: int
    log: Path

    @property
    def name(self) -> str:
        return self.proxy.name

    def empty_log(self) -> None:
        """Access logs grow by tens of MB each run; all servers append, so they can be cut."""
        with contextlib.suppress(FileNotFoundError):
            self.log.write_bytes(b"")


#: Waits until a server is ready. Raises NotEqual if it does not get ready.
Ready = Callable[[int, Process], None]


class Contest:
    """Starts and stops proxies; ``note`` is told which are left out and why."""

    def __init__(self, bench: Bench, note: Callable[[str], None]) -> None:
        self.bench = bench
        self.note = note
        self._count = 0

    def start(self, proxy: Proxy, setup: Setup, cores: Sequence[int] | None = None) -> Server:
        """Start a proxy without waiting for it."""
        self._count += 1
        name = re.sub(r"\W+", "-", proxy.name).strip("-")
        directory = self.bench.directory / f"{self._count}-{name}"
        directory.mkdir()
        (port,) = free_ports(1)
        command, env = proxy.prepare(directory, port, setup)
        process = self.bench.start(command, output=directory / "out", cores=cores, env=env)
        return Server(proxy, process, port, directory / proxy.log)

    @contextlib.contextmanager
    def servers(
        self,
        proxies: Sequence[Proxy],
        setup: Setup,
        *,
        ready: Ready = client.wait_for_answer,
        cores: Sequence[int] | None = None,
    ) -> Iterator[list[Server]]:
        """Proxies that are up inside the block, all at once: an idle one costs nothing."""
        started: list[Server] = []
        try:
            for proxy in proxies:
                server = self.start(proxy, setup, cores)
                try:
                    ready(server.port, server.process)
                except (NotEqual, OSError) as exc:
                    self.note(f"{proxy.name} was left out: {exc}")
                    self.bench.stop(server.process)
                    continue
                started.append(server)
            yield started
        finally:
            self.bench.stop(*(server.process for server in started))

    def able(self, proxies: Sequence[Proxy], setup: Setup) -> list[Proxy]:
        """Those that are installed, start, and do what all are said to do."""
        able = []
        for proxy in proxies:
            if proxy.version() is None:
                self.note(f"{proxy.name} is not installed")
                continue
            with self.servers([proxy], setup) as servers:
                for server in servers:
                    try:
                        client.check_work(server.port, server.log, lacks=proxy.lacks)
                    except (NotEqual, OSError) as exc:
                        self.note(f"{proxy.name} was left out: {exc}")
                    else:
                        able.append(proxy)
        return able


def in_turn(servers: Sequence[Server], number: int) -> list[Server]:
    """The order of a round: each round begins with another one."""
    first = number % max(1, len(servers))
    return [*servers[first:], *servers[:first]]


def rest(server: Server) -> None:
    """Between two loads: let the proxy end its connections, and empty its log."""
    server.process.wait_quiet()
    server.empty_log()
