"""A plain client: is the server up, does it do the same work as the others."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Collection
from pathlib import Path

import upstream
from processes import Process

#: A server that does not answer by then is given up.
START_SECONDS = 10.0

REQUEST = b"GET /idle HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class NotEqual(Exception):
    """A server does not start, or does not do what all others do."""


def wait_for_answer(port: int, process: Process) -> None:
    """Return when a request is answered. Raises NotEqual if the process ends or time runs out."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and not process.has_ended:
        with contextlib.suppress(OSError), connect(port) as sock:
            ask(sock)
            return
        time.sleep(0.001)
    raise NotEqual(f"it did not start: {process.tail()}")


def wait_for_listener(port: int, process: Process) -> None:
    """Return when it can be connected to. Raises NotEqual like `wait_for_answer`."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and not process.has_ended:
        with contextlib.suppress(OSError), connect(port):
            return
        time.sleep(0.005)
    raise NotEqual(f"it did not start: {process.tail()}")


def connect(port: int) -> socket.socket:
    """A connection to a loopback port; what is sent on it leaves at once."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def ask(sock: socket.socket, request: bytes = REQUEST) -> None:
    """One exchange of the small answer. Raises OSError if it is not whole or not 200."""
    sock.sendall(request)
    data = b""
    while not data.endswith(upstream.SMALL.encode()):
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError("a connection was closed")
        data += piece
        if not data.startswith(b"HTTP/1.1 200"[: len(data)]):
            raise ConnectionError(f"answered {data[:40]!r}")


def check_work(port: int, log: Path, *, lacks: Collection[str]) -> None:
    """Raises NotEqual unless it does what all are said to do: see `proxies`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    if len(_get(connection, "/big")) != upstream.MIB:
        raise NotEqual("a download is not whole")
    if _post(connection, "/upload", bytes(upstream.MIB)) != b"stored":
        raise NotEqual("an upload is not whole")
    seen = _get(connection, "/seen", {"X-Forwarded-For": "192.0.2.1"})
    forwarded, requests, protocol = seen.decode().split("|")
    if protocol != "HTTP/1.1" or int(requests) < 2:
        raise NotEqual("upstream connections are not kept")
    if "features" in lacks:
        return
    if not forwarded.endswith("127.0.0.1"):
        raise NotEqual(f"X-Forwarded-For is {forwarded!r}")
    until = time.monotonic() + 2  # some write it late
    while "/seen" not in log.read_text(errors="replace"):
        if time.monotonic() > until:
            raise NotEqual("no access log")
        time.sleep(0.02)


def _get(
    connection: http.client.HTTPConnection, path: str, headers: dict[str, str] | None = None
) -> bytes:
    connection.request("GET", path, headers=headers or {})
    return connection.getresponse().read()


def _post(connection: http.client.HTTPConnection, path: str, body: bytes) -> bytes:
    connection.request("POST", path, body=body)
    return connection.getresponse().read()
