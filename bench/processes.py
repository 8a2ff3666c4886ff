"""Child processes of the benchmark: pinned, measured from /proc, and stopped whatever happens."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

#: What a stopped process gets to finish before it is killed.
STOP_SECONDS = 3.0


def pick_cores() -> tuple[int, int]:
    """The core of the proxies and the core of the load; the same one if there is no other."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[min(1, len(cores) - 1)]


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """What is started inside inherits the core, every later thread and child of it too."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_ports(count: int) -> list[int]:
    """Different loopback ports that nobody uses now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def raise_file_limit() -> int:
    """Take as many open files as we may; children inherit it. Returns the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


class Process:
    """A server in a process group of its own. ``output`` takes its stdout and stderr."""

    def __init__(
        self, command: Sequence[str], *, core: int, output: Path, env: Mapping[str, str]
    ) -> None:
        self.output = output
        self._sink: IO[bytes] = output.open("ab")  # append, so that it can be truncated
        with pinned(core):
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._sink,
                stderr=subprocess.STDOUT,
                cwd=output.parent,  # not the checkout: what is installed is measured
                env={**os.environ, **env},
                start_new_session=True,
            )

    @property
    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    def cpu_seconds(self) -> float:
        """User and system time of the group's processes."""
        return sum(int(stat[11]) + int(stat[12]) for stat in self._stats()) / TICKS

    def rss_kib(self) -> float:
        """Resident memory of the group's processes."""
        return sum(int(stat[21]) for stat in self._stats()) * PAGE / 1024

    def _stats(self) -> list[list[str]]:
        """The fields of /proc/PID/stat from the third on, of each process in the group."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            if int(fields[2]) == self._popen.pid:
                found.append(fields)
        return found

    def tail(self) -> str:
        """Its last words, in one line."""
        return " / ".join(self.output.read_text(errors="replace").splitlines()[-2:])[-400:]

    def signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)

    def wait_ended(self, until: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(max(0.0, until - time.monotonic()))
        self.signal_group(signal.SIGKILL)  # also a child that outlived its parent
        self._popen.wait()
        self._sink.close()


class Bench:
    """The temporary directory and the processes; leaving it removes the one and ends the others."""

    def __init__(self) -> None:
        self.core, self.load_core = pick_cores()
        self.directory = Path(tempfile.mkdtemp(prefix="trio-proxy-bench-"))
        self._processes: list[Process] = []

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        core: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        process = Process(
            command,
            core=self.core if core is None else core,
            output=self.directory / f"{name}.out",
            env=env or {},
        )
        self._processes.append(process)
        return process

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave anything behind
        for process in self._processes:
            process.signal_group(signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        for process in self._processes:
            process.wait_ended(until)
        shutil.rmtree(self.directory, ignore_errors=True)
