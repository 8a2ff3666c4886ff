"""Real processes: the proxy, uvicorn, and what they write, with a deadline on each wait."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

import pytest

ROOT = Path(__file__).parents[2]

#: Seconds after which something that should happen at once counts as not happening: generous,
#: because the machine may be busy, and never waited for where all is well.
DEADLINE = 20.0

#: Set where every tool has been installed, so that a missing one is a mistake.
IN_CI = bool(os.environ.get("TRIO_PROXY_CI"))

#: Runs curl with the given arguments.
Curl = Callable[..., subprocess.CompletedProcess[bytes]]

#: Variables that configure the proxy; a test sets what it needs.
OWN_VARIABLES = ("UPSTREAM_HOSTS", "CONFIG_PATH", "LOG_LEVEL", "PROXY_LISTEN", "METRICS_LISTEN")


def lacking(what: str) -> NoReturn:
    """Skip the test for want of a tool, or fail it where the tool was promised."""
    if IN_CI:
        pytest.fail(f"{what}, although TRIO_PROXY_CI is set")
    pytest.skip(what)


def wait_until(predicate: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """The first true value of the predicate, which is asked again and again."""
    end = time.monotonic() + seconds
    while not (value := predicate()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.005)
    return value


def reserve_port() -> socket.socket:
    """A socket that keeps a port of 127.0.0.1 for a server that has to come back to it.

    Servers with SO_REUSEADDR, as all are here, may listen there; nobody gets it who asks for any
    port, and without a server connections are refused.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    return sock


class Lines:
    """What a process writes into a pipe, gathered by a thread, for tests to wait for."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for line in self._pipe:
            with self._news:
                self._lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def __len__(self) -> int:
        return len(self._lines)

    def wait_for(self, pattern: str, *, start: int = 0, seconds: float = DEADLINE) -> re.Match[str]:
        """The first match in a line from number ``start`` on."""
        end = time.monotonic() + seconds
        with self._news:
            while True:
                for line in self._lines[start:]:
                    if match := re.search(pattern, line):
                        return match
                left = end - time.monotonic()
                if left <= 0 or self._ended:
                    why = "the process closed it" if self._ended else f"{seconds} s passed"
                    raise AssertionError(f"no line with {pattern!r}, {why}:\n{self.text()}")
                self._news.wait(left)

    def matching(self, pattern: str) -> list[str]:
        """Every line so far in which the pattern is found."""
        return [line for line in self._lines if re.search(pattern, line)]

    def text(self) -> str:
        return "\n".join(self._lines)

    def close(self) -> None:
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "somebody still holds the pipe"
        self._pipe.close()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's variables without those that configure the proxy, and some more."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(OWN_VARIABLES)}
    return {**kept, **(extra or {})}


class Process:
    """A child process with both of its outputs gathered; a context manager that ends it."""

    def __init__(
        self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.popen = subprocess.Popen(
            argv,
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        self.out = Lines(self.popen.stdout)
        self.err = Lines(self.popen.stderr)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.wait()

    @property
    def pid(self) -> int:
        return self.popen.pid

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def wait(self, seconds: float = DEADLINE) -> int:
        """The exit status, and all of the output read."""
        code = self.popen.wait(seconds)
        self.out.close()
        self.err.close()
        return code


@contextmanager
def running_uvicorn(*args: str) -> Iterator[Process]:
    """``tests/support/echo_app.py`` on uvicorn; ``err`` says where it listens."""
    argv = [sys.executable, "-m", "uvicorn", "tests.support.echo_app:app", "--no-access-log", *args]
    # Its tasks do not notice that their client has gone, and it waits for them.
    argv += ["--timeout-graceful-shutdown", "1"]
    # Not the default of 5 s: a POST that meets the very end of an idle connection is a 502.
    argv += ["--timeout-keep-alive", "75"]
    with Process(argv, cwd=ROOT) as process:
        process.err.wait_for("Uvicorn running on")
        yield process
        process.signal(signal.SIGINT)
        process.popen.wait(DEADLINE)


@contextmanager
def echo_on_port() -> Iterator[int]:
    """The port of a uvicorn of its own."""
    with running_uvicorn("--port", "0") as process:
        yield int(process.err.wait_for(r"running on http://127.0.0.1:(\d+)")[1])


def children(of: int | None = None) -> set[int]:
    """Process ids of the children of a process, of this one without an id, zombies included."""
    parent = os.getpid() if of is None else of
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        if int(after_name[1]) == parent:
            found.add(int(stat.parent.name))
    return found


def open_descriptors() -> dict[int, str]:
    """This process's open files, by number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the directory itself
            continue
    return found


@contextmanager
def no_descriptor_left(pid: int) -> Iterator[None]:
    """Let the process open nothing more."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = set(map(int, os.listdir(f"/proc/{pid}/fd")))
    lowest_free = next(number for number in range(len(used) + 1) if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
