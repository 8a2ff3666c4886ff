"""A real redis-server on a port of its own, that a test can stop, kill and start again."""

from __future__ import annotations

import shutil
import signal
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from support.processes import DEADLINE, Process, lacking, reserve_port

Reply = bytes | int | list["Reply"] | None


def need_coredis() -> None:
    """Skip or fail the test without the package by which the proxy speaks to Redis."""
    if not find_spec("coredis"):
        lacking("coredis is not installed")


class RedisServer:
    """Keeps its port over restarts and nothing else; a context manager that ends it."""

    def __init__(self, directory: Path, *options: str) -> None:
        path = shutil.which("redis-server")
        if path is None:
            lacking("redis-server is not installed")
        self._reserved = reserve_port()
        self.port: int = self._reserved.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._argv = [path, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *options]
        self._process: Process | None = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        self._reserved.close()

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        assert self._process is None
        self._process = Process(self._argv, cwd=self._directory)
        self._process.out.wait_for("Ready to accept connections")

    def kill(self) -> None:
        """As ``kill -9`` does, even if it is stopped."""
        if self._process is not None:
            with self._process:
                self._process = None

    def stop(self) -> None:
        """SIGSTOP: the kernel accepts connections and bytes for it, and nothing ever answers."""
        assert self._process is not None
        self._process.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.signal(signal.SIGCONT)

    def ask(self, *words: str | bytes | int) -> Reply:
        """One command on a connection of its own. Raises AssertionError for an error reply."""
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        with socket.create_connection(("127.0.0.1", self.port), DEADLINE) as sock:
            sock.sendall(b"*%d\r\n" % len(parts))
            sock.sendall(b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
            with sock.makefile("rb") as file:
                return _read_reply(file)

    def clients(self) -> int:
        """Connections besides the one that asks."""
        listed = self.ask("CLIENT", "LIST")
        assert isinstance(listed, bytes)
        return len(listed.splitlines()) - 1


def _read_reply(file: IO[bytes]) -> Reply:
    line = file.readline().rstrip(b"\r\n")
    kind, rest = line[:1], line[1:]
    assert kind != b"-", line
    if kind == b":":
        return int(rest)
    if kind == b"*":
        return [_read_reply(file) for _ in range(int(rest))]
    if kind == b"$":
        return None if rest == b"-1" else file.read(int(rest) + 2)[:-2]
    assert kind == b"+", line
    return rest
