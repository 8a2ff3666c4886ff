"""Child processes of the benchmark: pinned, measured from outside, and stopped whatever happens."""

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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import clocks
from clocks import Reading

PAGE = os.sysconf("SC_PAGE_SIZE")

#: What a stopped process gets to finish before it is killed.
STOP_SECONDS = 3.0

#: `Process.wait_quiet`: a process that uses less than this share of a core has finished its work.
QUIET_SHARE = 0.05
QUIET_STEP_SECONDS = 0.05
QUIET_SECONDS = 5.0


@contextlib.contextmanager
def pinned(*cores: int) -> Iterator[None]:
    """What is started inside inherits the cores, every later thread and child of it too."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
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
        self,
        command: Sequence[str],
        *,
        cores: Iterable[int],
        output: Path,
        env: Mapping[str, str],
    ) -> None:
        self.output = output
        self._cores = list(cores)
        self._left: list[int] = []
        self._sink: IO[bytes] = output.open("ab")  # append, so that it can be truncated
        with pinned(*self._cores):
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
    def pid(self) -> int:
        return self._popen.pid

    @property
    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    def cpu_seconds(self) -> float:
        """User and system time of it and its descendants, those that have ended included.

        It is read from each process's CPU clock, which the scheduler keeps in nanoseconds and
        which counts threads that are gone; the times in /proc/PID/stat are cut to 10 ms. Of a
        child that has ended nothing else is left, so those are added as they stand there.
        """
        stats = self._stats()
        ended = sum(int(stat[13]) + int(stat[14]) for stat in stats.values()) / clocks.TICKS
        return ended + sum(map(clocks.of_process, stats))

    def reading(self) -> Reading:
        return Reading(time.monotonic(), self.cpu_seconds(), clocks.of_cores(self._cores))

    def count(self) -> int:
        """How many processes these are."""
        return len(self._stats())

    def rss_kib(self) -> float:
        """Resident memory of it and its descendants."""
        return sum(int(stat[21]) for stat in self._stats().values()) * PAGE / 1024

    def open_files(self) -> int:
        """Descriptors of it and its descendants."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self._stats())

    def _stats(self) -> dict[int, list[str]]:
        """By process id, the fields of /proc/PID/stat from the third on: it and its descendants.

        Not its process group: workers may have sessions of their own.
        """
        if self.has_ended:
            return {}
        everybody = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # it has just ended
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    everybody[int(entry.name)] = fields
        found = {self.pid: everybody[self.pid]} if self.pid in everybody else {}
        while True:
            parents = {str(pid) for pid in found}
            more = {pid: stat for pid, stat in everybody.items() if stat[1] in parents}
            if more.keys() <= found.keys():
                return found
            found |= more

    def wait_quiet(self) -> None:
        """Return when it has finished with the last load: it would be charged to the next one."""
        until = time.monotonic() + QUIET_SECONDS
        before = self.cpu_seconds()
        while time.monotonic() < until:
            time.sleep(QUIET_STEP_SECONDS)
            now = self.cpu_seconds()
            if now - before < QUIET_SHARE * QUIET_STEP_SECONDS:
                return
            before = now

    def tail(self) -> str:
        """Its last words, in one line."""
        return " / ".join(self.output.read_text(errors="replace").splitlines()[-2:])[-400:]

    def send(self, number: signal.Signals) -> None:
        """To its process group; who has left that hears of it from its parent."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def stop(self) -> None:
        """Ask it to end; `wait_ended` kills what does not."""
        for pid in self._stats():
            with contextlib.suppress(ProcessLookupError):
                self._left.append(os.pidfd_open(pid))
        self.send(signal.SIGTERM)

    def wait_ended(self, until: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(max(0.0, until - time.monotonic()))
        self.send(signal.SIGKILL)  # also a child that outlived its parent
        for number in self._left:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(number, signal.SIGKILL)
            os.close(number)
        self._popen.wait()
        self._sink.close()


class Bench:
    """The temporary directory and the processes; leaving it removes the one and ends the others."""

    def __init__(self) -> None:
        cores = sorted(os.sched_getaffinity(0))
        #: The core of the load and the upstream, and those of the proxies; the same one if there
        #: is no other.
        self.load_core = cores[-1]
        self._proxy_cores = cores[:-1] or cores
        self.directory = Path(tempfile.mkdtemp(prefix="trio-proxy-bench-"))
        self._processes: list[Process] = []

    def start(
        self,
        command: Sequence[str],
        *,
        output: Path,
        cores: Iterable[int] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a server, by default on the core of the proxies."""
        cores = self.proxy_cores() if cores is None else cores
        process = Process(command, cores=cores, output=output, env=env or {})
        self._processes.append(process)
        return process

    def proxy_cores(self, workers: int = 1) -> list[int]:
        """A core for each worker; if there are too few, they share what there is."""
        return self._proxy_cores[:workers]

    @property
    def has_one_core(self) -> bool:
        return self._proxy_cores == [self.load_core]

    def stop(self, *processes: Process) -> None:
        """End processes; what does not heed SIGTERM in time is killed."""
        for process in processes:
            process.stop()
        until = time.monotonic() + STOP_SECONDS
        for process in processes:
            process.wait_ended(until)
            self._processes.remove(process)

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
        self.stop(*self._processes)
        shutil.rmtree(self.directory, ignore_errors=True)
