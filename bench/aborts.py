"""Clients that leave: in every phase of an exchange, with a FIN or with a reset."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

import client
from upstream import BODIES

#: Clients that are there at the same time.
BATCH = 100

#: Every second batch stays so long before it leaves, so that its requests reach the upstream. A
#: proxy may take a FIN that comes with the request for a half-close.
LINGER_SECONDS = 0.02

#: Sockets that were closed keep their port for a minute; each address has its own 28,000.
SOURCES = tuple(f"127.0.0.{number}" for number in range(2, 34))

#: close(2) resets the connection.
RESET = struct.pack("ii", 1, 0)

#: So that the kernel does not take megabytes of an answer for a client that has read none of it.
RECEIVE_BUFFER = 16384

HOST = b"Host: 127.0.0.1\r\n"


@dataclass(frozen=True)
class Abort:
    """What a client sends before it leaves, and whether it waits for the answer to begin."""

    data: bytes
    reads: bool = False


#: In the head, in the body, while waiting, in a slow answer, and in one that is larger than what it
#: reads of it.
ABORTS = (
    Abort(b"GET /cut HTTP/1.1\r\n" + HOST + b"Accept: text/h"),
    Abort(
        b"POST /upload HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n" + bytes(50_000),
    ),
    Abort(b"GET /never HTTP/1.1\r\n" + HOST + b"\r\n"),
    Abort(b"GET /slow HTTP/1.1\r\n" + HOST + b"\r\n", reads=True),
    Abort(b"GET /body/%d HTTP/1.1\r\n" % max(BODIES) + HOST + b"\r\n", reads=True),
)


class Leavers:
    """An endless mix of clients that leave."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._kinds: Iterator[tuple[Abort, bool]] = itertools.cycle(
            itertools.product(ABORTS, (False, True))
        )
        self._sources = itertools.cycle(SOURCES)
        self._lingers = itertools.cycle((False, True))
        #: How many have left.
        self.count = 0

    def run(self, count: int) -> None:
        """Let so many come and go."""
        for first in range(0, count, BATCH):
            self._batch(min(BATCH, count - first))

    def _batch(self, count: int) -> None:
        with contextlib.ExitStack() as stack:
            reading = []
            for abort, resets in itertools.islice(self._kinds, count):
                sock = stack.enter_context(self._connect())
                sock.sendall(abort.data)
                if abort.reads:
                    reading.append(sock)
                if resets:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                self.count += 1
            for sock in reading:
                sock.recv(65536)
            if next(self._lingers):
                time.sleep(LINGER_SECONDS)

    def _connect(self) -> socket.socket:
        sock = socket.socket()
        sock.settimeout(client.START_SECONDS)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind((next(self._sources), 0))
        sock.connect(("127.0.0.1", self._port))
        return sock
