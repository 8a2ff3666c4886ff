"""A client on a bare socket, and just enough HTTP to read what comes back.

It uses no HTTP library, so that a mistake which proxy and library share would still show.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from support.processes import DEADLINE

Where = tuple[str, int] | str


@dataclass
class Response:
    """One answer, as it came."""

    status: int
    version: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        """The value of a field that must not be there twice; None without one."""
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1, f"{name} is there {len(found)} times"
        return found[0] if found else None


def connect(where: Where, seconds: float = DEADLINE) -> socket.socket:
    """A connected socket whose every operation has a deadline."""
    if isinstance(where, str):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(seconds)
    try:
        sock.connect(where)
    except OSError:
        sock.close()
        raise
    return sock


class Wire:
    """A socket with a buffer in front: reads by line, by count, by message."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read_until(self, marker: bytes) -> bytes:
        """Everything up to and including the marker."""
        while (at := self.buffer.find(marker)) < 0:
            self._read_more()
        return self._take(at + len(marker))

    def read_exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self._read_more()
        return self._take(count)

    def _take(self, count: int) -> bytes:
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def read_to_end(self) -> bytes:
        """All that comes until the peer ends its side."""
        while data := self.sock.recv(65536):
            self.buffer += data
        return self._take(len(self.buffer))

    def _read_more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(f"the connection ended after {bytes(self.buffer[-200:])!r}")
        self.buffer += data

    def read_head(self) -> tuple[str, list[tuple[str, str]]]:
        """The start line, and the fields with names in lower case."""
        first, *lines = self.read_until(b"\r\n\r\n")[:-4].decode("latin-1").split("\r\n")
        return first, [_field(line) for line in lines]

    def read_body(self, headers: list[tuple[str, str]]) -> tuple[bytes, list[tuple[str, str]]]:
        """A body framed by Content-Length or chunks (with its trailers); b"" without either."""
        facts = dict(headers)
        if "transfer-encoding" in facts:
            return self._read_chunks()
        return self.read_exactly(int(facts.get("content-length", 0))), []

    def _read_chunks(self) -> tuple[bytes, list[tuple[str, str]]]:
        pieces = []
        while size := int(self.read_until(b"\r\n"), 16):
            pieces.append(self.read_exactly(size))
            assert self.read_exactly(2) == b"\r\n"
        trailers = []
        while line := self.read_until(b"\r\n")[:-2]:
            trailers.append(_field(line.decode("latin-1")))
        return b"".join(pieces), trailers

    def wait_for_end(self) -> float:
        """When the peer ended the connection, whatever it sent before (`time.monotonic`)."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return time.monotonic()

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close so that the peer gets a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.lower(), value.strip()


class RawClient(Wire):
    """The client's end of a connection; a context manager that closes it."""

    def __init__(self, where: Where, seconds: float = DEADLINE) -> None:
        super().__init__(connect(where, seconds))

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def get(self, target: str, *fields: str) -> Response:
        """One GET with keep-alive."""
        self.send(request("GET", target, *fields))
        return self.read_response()

    def read_response(self, method: str = "GET") -> Response:
        """The next answer; one without a length is read to the end of the connection."""
        line, headers = self.read_head()
        version, status = line.split(" ", 2)[:2]
        response = Response(int(status), version, headers)
        if method == "HEAD" or response.status in (204, 304) or response.status < 200:
            return response
        framing = {name for name, _ in headers} & {"content-length", "transfer-encoding"}
        assert len(framing) <= 1, f"framed twice: {headers}"
        if framing:
            response.body, response.trailers = self.read_body(headers)
        else:
            response.body = self.read_to_end()
        return response


def request(method: str, target: str, *fields: str, body: bytes = b"") -> bytes:
    """The bytes of a request with a Host and these further fields."""
    lines = [f"{method} {target} HTTP/1.1", "Host: test.example", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def get(where: Where, target: str, *fields: str) -> Response:
    """One GET on a connection of its own."""
    with RawClient(where) as client:
        return client.get(target, "Connection: close", *fields)


@contextmanager
def many_clients(where: Where, count: int) -> Iterator[list[RawClient]]:
    """So many open connections."""
    clients: list[RawClient] = []
    try:
        clients.extend(RawClient(where) for _ in range(count))
        yield clients
    finally:
        for client in clients:
            client.sock.close()
