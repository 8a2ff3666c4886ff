"""Tells when a peer hangs up, at no cost for those who do not, and when its stream can be used.

A proxy that waits for an upstream must learn that its client has gone, but a second task that
reads the client costs every request more than the request itself. Here every socket is put once,
for its whole life, into an epoll set, edge-triggered, so it is told of every change once; one task
waits for that set's own descriptor, which trio can wait for like a socket. Unlike a read, it also
sees a FIN behind bytes that nobody has read yet (``EPOLLRDHUP``).

The same events say when there is something to read or room to write. So a stream waits for these,
too (`net.epoll_stream`): trio's own wait registers the socket anew each time, which is a system
call.

Where there is no epoll, one task looks at every socket in turn, `SWEEP_SECONDS` apart. It cannot
see a FIN behind unread bytes, so there such a departure is noticed when the bytes are read.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
from collections.abc import Callable
from typing import Protocol

import trio

from trio_proxy.exchange.complaint import Complaint

log = logging.getLogger("trio_proxy.net")

#: How often the fallback looks; half of the 100 ms in which a departure should be noticed.
SWEEP_SECONDS = 0.05

#: How many sockets' news is told at once. When all of a crowd have some, who is told goes to work
#: before the rest are; and the event loop has a look at who else is there in between.
EVENTS_PER_ROUND = 64


class PeerWatch(Protocol):
    """Calls ``callback(reset)`` once for a FIN (False), once for a reset or full close (True).

    One that raises is logged, and the others are called as ever: all connections share the watch.
    """

    #: By how many seconds a call can lag behind the event.
    lag: float

    #: Where errors in callbacks are logged.
    faults: Complaint

    def add(self, sock: socket.socket, callback: Callable[[bool], None]) -> None: ...

    def remove(self, sock: socket.socket) -> None: ...

    async def run(self) -> None: ...

    def close(self) -> None: ...


class EpollPeerWatch:
    """`PeerWatch` for Linux; `edges.EdgeStream` asks it for all that happens to a socket."""

    lag = 0.0

    def __init__(self) -> None:
        self.faults = Complaint(log)
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}

    def add(self, sock: socket.socket, callback: Callable[[bool], None]) -> None:
        self._register(sock, lambda events: callback(bool(events & GONE)), select.EPOLLRDHUP)

    def add_edges(self, sock: socket.socket, callback: Callable[[int], None]) -> None:
        """Call ``callback(events)``, epoll's, whenever the socket's state has changed."""
        self._register(sock, callback, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP)

    def _register(self, sock: socket.socket, callback: Callable[[int], None], mask: int) -> None:
        fd = sock.fileno()
        self._callbacks[fd] = callback
        self._epoll.register(fd, mask | select.EPOLLET)

    def remove(self, sock: socket.socket) -> None:
        if self._callbacks.pop(sock.fileno(), None) is not None and not self._epoll.closed:
            with contextlib.suppress(OSError):
                self._epoll.unregister(sock.fileno())

    async def run(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for fd, events in self._epoll.poll(0, EVENTS_PER_ROUND):
                callback = self._callbacks.get(fd)
                if callback is None:
                    continue
                try:
                    callback(events)
                except Exception:  # noqa: BLE001 - logged, with its traceback
                    self.faults.fault("internal error in telling what happened to a socket")

    def close(self) -> None:
        self._epoll.close()


#: A reset, or a full close by both sides.
GONE = getattr(select, "EPOLLHUP", 0) | getattr(select, "EPOLLERR", 0)


class SweepingPeerWatch:
    """`PeerWatch` for systems without epoll."""

    lag = SWEEP_SECONDS

    def __init__(self) -> None:
        self.faults = Complaint(log)
        self._callbacks: dict[socket.socket, Callable[[bool], None]] = {}
        self._ended: set[socket.socket] = set()

    def add(self, sock: socket.socket, callback: Callable[[bool], None]) -> None:
        self._callbacks[sock] = callback

    def remove(self, sock: socket.socket) -> None:
        self._callbacks.pop(sock, None)
        self._ended.discard(sock)

    async def run(self) -> None:
        while True:
            await trio.sleep(SWEEP_SECONDS)
            for sock, callback in list(self._callbacks.items()):
                if sock not in self._callbacks:
                    continue
                try:
                    self._look(sock, callback)
                except Exception:  # noqa: BLE001 - logged, with its traceback
                    self.faults.fault("internal error in telling what happened to a socket")

    def _look(self, sock: socket.socket, callback: Callable[[bool], None]) -> None:
        try:
            ended = sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return
        except OSError:
            del self._callbacks[sock]
            callback(True)
            return
        if ended and sock not in self._ended:
            self._ended.add(sock)
            callback(False)

    def close(self) -> None:
        self._callbacks.clear()


def new_peer_watch() -> PeerWatch:
    """The best that this system has."""
    return EpollPeerWatch() if hasattr(select, "epoll") else SweepingPeerWatch()
