"""A plain client: is the server up, does it do the same work as the others, what does idle cost."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import time
from pathlib import Path

import upstream
from processes import Process

#: A server that does not answer by then is given up.
START_SECONDS = 10.0

#: Requests over one connection before memory is looked at, so that lazy parts are loaded.
WARM_UP_REQUESTS = 200

#: Lets allocators and garbage collectors settle before memory is read.
SETTLE_SECONDS = 0.5


class NotEqual(Exception):
    """A server does not start, or does not do what all others do."""


def wait_for_answer(port: int, process: Process) -> None:
    """Return when a request is answered. Raises NotEqual if the process ends or time runs out."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and not process.has_ended:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if _get(_connection(port), "/")[0] == http.HTTPStatus.OK:
                return
        time.sleep(0.005)
    raise NotEqual(f"it did not start: {process.tail()}")


def check_work(port: int, log: Path, *, has_features: bool) -> None:
    """Raises NotEqual unless it does what all are said to do: see `proxies`."""
    connection = _connection(port)
    if len(_get(connection, "/big")[1]) != upstream.MIB:
        raise NotEqual("a download is not whole")
    if _post(connection, "/upload", bytes(upstream.MIB)) != b"stored":
        raise NotEqual("an upload is not whole")
    _, body = _get(connection, "/seen", {"X-Forwarded-For": "192.0.2.1"})
    forwarded, requests, protocol = body.decode().split("|")
    if protocol != "HTTP/1.1" or int(requests) < 2:
        raise NotEqual("upstream connections are not kept")
    if has_features and not forwarded.endswith("127.0.0.1"):
        raise NotEqual(f"X-Forwarded-For is {forwarded!r}")
    until = time.monotonic() + 2  # some write it late
    while has_features and "/seen" not in log.read_text(errors="replace"):
        if time.monotonic() > until:
            raise NotEqual("no access log")
        time.sleep(0.02)


def _connection(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=5)


def _get(
    connection: http.client.HTTPConnection, path: str, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    connection.request("GET", path, headers=headers or {})
    response = connection.getresponse()
    return response.status, response.read()


def _post(connection: http.client.HTTPConnection, path: str, body: bytes) -> bytes:
    connection.request("POST", path, body=body)
    return connection.getresponse().read()


def idle_kib(port: int, process: Process, connections: int) -> float:
    """KiB of resident memory for each idle keep-alive connection that has had one request.

    Best asked of a fresh process: memory that a load has left free is used again.
    """
    request = f"GET /idle HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        first = _open(stack, port)
        for _ in range(WARM_UP_REQUESTS):
            _exchange(first, request)
        time.sleep(SETTLE_SECONDS)
        before = process.rss_kib()
        opened = []
        for _ in range(connections):
            opened.append(_open(stack, port))
            _exchange(opened[-1], request)
        time.sleep(SETTLE_SECONDS)
        after = process.rss_kib()
        for sock in (opened[0], opened[-1]):
            _exchange(sock, request)  # they were idle, not closed
    return (after - before) / connections


def _open(stack: contextlib.ExitStack, port: int) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))


def _exchange(sock: socket.socket, request: bytes) -> None:
    """Raises OSError if the answer is not whole or not 200."""
    sock.sendall(request)
    data = b""
    while not data.rstrip().endswith(upstream.SMALL.rstrip().encode()):
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError("an idle connection was closed")
        data += piece
    if not data.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"answered {data[:40]!r}")


def empty(log: Path) -> None:
    """Access logs grow by tens of MB each run; all servers append, so they can be cut."""
    with contextlib.suppress(FileNotFoundError):
        os.truncate(log, 0)
