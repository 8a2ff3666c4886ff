"""Upstreams on bare sockets that do what a test tells them to, each connection in a thread."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from support.processes import DEADLINE
from support.rawhttp import Where, Wire


@dataclass
class Request:
    """A request as it came over the wire."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1, f"{name} is there {len(found)} times"
        return found[0] if found else None


class UpstreamConnection(Wire):
    """The upstream's end of a connection; ``number`` counts them from 1."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        super().__init__(sock)
        self.number = number

    def read_request_head(self) -> Request:
        line, headers = self.read_head()
        method, target, _ = line.split(" ")
        return Request(method, target, headers)

    def read_request(self) -> Request:
        """The next request with its body. Raises EOFError at the end of the connection."""
        request = self.read_request_head()
        request.body, request.trailers = self.read_body(request.headers)
        return request

    def answer(self, body: bytes = b"ok\n", *fields: str) -> None:
        lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *fields, "", ""]
        self.send("\r\n".join(lines).encode("latin-1") + body)

    def send_until_refused(self, piece: bytes) -> float:
        """Send for ever; when the peer's end of the connection showed."""
        try:
            while True:
                self.send(piece)
        except (ConnectionResetError, BrokenPipeError):
            return time.monotonic()


Handler = Callable[[UpstreamConnection], None]


def answer_all(connection: UpstreamConnection) -> None:
    """Answer every request with ``ok`` and keep the connection."""
    while True:
        connection.read_request()
        connection.answer()


def named(name: bytes) -> Handler:
    """An upstream that answers with its name."""

    def handler(connection: UpstreamConnection) -> None:
        while True:
            connection.read_request()
            connection.answer(name)

    return handler


class ScriptedUpstream:
    """Listens, and has the handler see to each connection; a context manager.

    The handler may end by EOFError or OSError, as when the peer is gone; anything else that it
    raises comes out of the block.
    """

    def __init__(self, handler: Handler = answer_all, where: Where = ("127.0.0.1", 0)) -> None:
        self._handler = handler
        unix = isinstance(where, str)
        self._listener = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        self._listener.bind(where)
        self._listener.listen(512)
        self.port: int = 0 if unix else self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._failures: list[BaseException] = []
        #: Connections accepted so far.
        self.connections = 0

    def __enter__(self) -> ScriptedUpstream:
        self._start(self._accept)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for sock in self._open:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:  # the peer was faster
                    continue
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive(), "a handler does not end"
        self._listener.close()
        if self._failures and exc_type is None:
            raise self._failures[0]

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(DEADLINE)
            self.connections += 1
            with self._lock:
                self._open.add(sock)
            self._start(self._serve, UpstreamConnection(sock, self.connections))

    def _serve(self, connection: UpstreamConnection) -> None:
        try:
            self._handler(connection)
        except (EOFError, OSError):
            pass
        except BaseException as exc:  # noqa: BLE001 - raised again where the block ends
            self._failures.append(exc)
        finally:
            with self._lock:
                self._open.discard(connection.sock)
                connection.sock.close()
