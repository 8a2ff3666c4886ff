"""A log that nobody takes, or that has nowhere to go, never stops the proxy."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from support.processes import DEADLINE, environment, wait_until
from support.proxy_process import PROXY, write_config
from support.rawhttp import RawClient
from support.upstreams import ScriptedUpstream


def _never_read(write_end: int, read_end: int) -> None:
    """Nobody takes what is written: the pipe fills up."""


def _reader_gone(write_end: int, read_end: int) -> None:
    os.close(read_end)


@pytest.mark.parametrize("what", [_never_read, _reader_gone])
def test_stuck_or_closed_stderr_stops_nothing(
    tmp_path: Path, unix_path: Path, echo_port: int, what: Callable[[int, int], None]
) -> None:
    """With a log that nobody takes the proxy goes on serving, and it can be stopped."""
    path = write_config(tmp_path, [echo_port], listen=[f"unix:{unix_path}"])
    read_end, write_end = os.pipe()
    argv = [*PROXY, "run", path]
    process = subprocess.Popen(argv, cwd=tmp_path, env=environment(), stderr=write_end)
    os.close(write_end)
    what(write_end, read_end)
    try:
        _serve_and_stop(process, unix_path, requests=1500)
    finally:
        if what is _never_read:
            os.close(read_end)


def test_no_stderr_at_all(tmp_path: Path, unix_path: Path, echo_port: int) -> None:
    """Started with descriptor 2 closed (`2>&-`), it serves all the same."""
    path = write_config(tmp_path, [echo_port], listen=[f"unix:{unix_path}"])
    argv = ["sh", "-c", 'exec "$@" 2>&-', "sh", *PROXY, "run", path]
    process = subprocess.Popen(argv, cwd=tmp_path, env=environment())
    _serve_and_stop(process, unix_path, requests=20)


def _listens(unix: Path) -> bool:
    """Whether a connection is taken: the file is there a moment before that."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(unix)) == 0


def _serve_and_stop(process: subprocess.Popen[bytes], unix: Path, requests: int) -> None:
    try:
        wait_until(lambda: _listens(unix) or process.poll() is not None, "the proxy listens")
        assert process.poll() is None, f"it ended with status {process.returncode}"
        with RawClient(str(unix)) as client:
            for _ in range(requests):
                assert client.get("/status/200").status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_lost_log_lines_are_counted(tmp_path: Path) -> None:
    """A reader that sleeps and comes back learns how many lines it missed, and gets the rest."""
    with ScriptedUpstream() as upstream:
        path = write_config(tmp_path, [upstream.port])
        read_end, write_end = os.pipe()
        process = subprocess.Popen([*PROXY, "run", path], env=environment(), stderr=write_end)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as log:
            try:
                _flood_the_log(log, process)
            finally:
                process.kill()
                process.wait()


def _flood_the_log(log: BinaryIO, process: subprocess.Popen[bytes]) -> None:
    seen = b""
    while b"started from" not in seen:
        seen += log.readline()
    port = int(re.search(rb"listening on http://127.0.0.1:(\d+)", seen)[1])  # type: ignore[index]
    garbage = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 200
    with RawClient(("127.0.0.1", port)) as client:
        for _ in range(75):
            client.send(garbage)
            for _ in range(200):
                assert client.read_response().status == 200
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    text = log.read()
    assert time.monotonic() - started < DEADLINE
    found = re.search(rb"(\d+) log lines dropped", text)
    assert found is not None
    written = text.count(b"trio_proxy.access") + seen.count(b"trio_proxy.access")
    assert 15_000 - int(found[1]) <= written + 10
