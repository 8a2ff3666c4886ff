"""Words that the tests of starts and stops share, be it of one process or of many."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.processes import DEADLINE, wait_until
from support.proxy_process import ProxyProcess, write_config
from support.rawhttp import RawClient, connect
from support.upstreams import UpstreamConnection

#: Seconds behind the moment in which the process has set its signals right, which is about when
#: it begins to import; it serves after some 300 ms.
DELAYS = [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]


class Gate:
    """An upstream's handler that holds its answers back until told."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, connection: UpstreamConnection) -> None:
        connection.read_request()
        self.arrived.set()
        assert self.go_on.wait(DEADLINE)
        connection.answer(b"finished\n")
        connection.wait_for_end()


def endless(connection: UpstreamConnection) -> None:
    """A stream that never ends, or a tunnel if one is asked for."""
    if connection.read_request().header("upgrade") is None:
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.send_until_refused(b"400\r\n" + b"x" * 1024 + b"\r\n")
    else:
        connection.send(b"HTTP/1.1 101 Ok\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n")
        connection.wait_for_end()


class Reader(threading.Thread):
    """Takes what a client gets until that ends."""

    def __init__(self, client: RawClient) -> None:
        super().__init__()
        self.client = client
        self.start()

    def run(self) -> None:
        self.client.wait_for_end()


def refuses(proxy: ProxyProcess) -> bool:
    try:
        connect(proxy.where).close()
    except ConnectionRefusedError:
        return True
    return False


def _ignores_hangups(pid: int) -> bool:
    """Whether SIGHUP is ignored, which is the first thing that the program does."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":\t") for line in lines if line.startswith("Sig"))
    return bool((int(fields["SigIgn"], 16) | int(fields["SigCgt"], 16)) >> signal.SIGHUP - 1 & 1)


@contextmanager
def starting(tmp_path: Path, delay: float, workers: int = 1) -> Iterator[ProxyProcess]:
    """A process that many seconds into its start."""
    path = write_config(tmp_path, [1], metrics=False, workers=workers)
    with ProxyProcess("run", path, cwd=tmp_path) as proxy:
        wait_until(lambda: _ignores_hangups(proxy.pid), "the program begins")
        time.sleep(delay)
        yield proxy
