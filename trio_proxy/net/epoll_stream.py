"""Streams that are told when they can be used, instead of asking each time.

Edge-triggered events come once for each change (epoll(7)). So a stream keeps what the last ones
said: it may have something to read until a read finds nothing, or less than it had room for. After
the end of a stream nothing changes any more, so from then on it stays readable.
"""

from __future__ import annotations

import select
import socket

import outcome
import trio

from trio_proxy.net.epoll import GONE, EpollPeerWatch, PeerWatch
from trio_proxy.net.sockets import SocketStream

_ENDED = getattr(select, "EPOLLRDHUP", 0) | GONE
_READABLE = getattr(select, "EPOLLIN", 0) | _ENDED
_WRITABLE = getattr(select, "EPOLLOUT", 0) | GONE

#: What `EdgeStream` has told of the peer's departure so far.
_NOTHING, _FIN, _RESET = range(3)


class EdgeStream(SocketStream):
    """`SocketStream` on an `EpollPeerWatch`."""

    __slots__ = ("_may_read", "_may_write", "_reader", "_told", "_writer")

    def _register(self, watch: PeerWatch) -> None:
        assert isinstance(watch, EpollPeerWatch)
        self._may_read = False
        self._may_write = True
        self._told = _NOTHING
        self._reader: trio.lowlevel.Task | None = None
        self._writer: trio.lowlevel.Task | None = None
        watch.add_edges(self._socket, self._on_events)

    def _on_events(self, events: int) -> None:
        if events & _READABLE:
            self._may_read = True
            if self._reader is not None:
                task, self._reader = self._reader, None
                trio.lowlevel.reschedule(task)
        if events & _WRITABLE:
            self._may_write = True
            if self._writer is not None:
                task, self._writer = self._writer, None
                trio.lowlevel.reschedule(task)
        if events & _ENDED:
            news = _RESET if events & GONE else _FIN
            if news > self._told:
                self._told = news
                self._hangup(news == _RESET)

    def receive_nowait(self, limit: int) -> bytes | None:
        try:
            data = self._socket.recv(limit)
        except BlockingIOError:
            self._may_read = False
            return None
        if len(data) < limit:
            self._may_read = self._told != _NOTHING
        return data

    def receive_into_nowait(self, buffer: memoryview) -> int | None:
        try:
            size = self._socket.recv_into(buffer)
        except BlockingIOError:
            self._may_read = False
            return None
        if size < len(buffer):
            self._may_read = self._told != _NOTHING
        return size

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._may_write = False
        return sent

    async def wait_readable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        if self._may_read:
            await trio.lowlevel.checkpoint()
            return
        if self._reader is not None:
            raise trio.BusyResourceError("another task waits for this stream")
        self._reader = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._stop_reading)

    def _stop_reading(self, _: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def wait_writable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        if self._may_write:
            await trio.lowlevel.checkpoint()
            return
        if self._writer is not None:
            raise trio.BusyResourceError("another task waits for this stream")
        self._writer = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._stop_writing)

    def _stop_writing(self, _: object) -> trio.lowlevel.Abort:
        self._writer = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake_waiters(self) -> None:
        for task in (self._reader, self._writer):
            if task is not None:
                error = trio.ClosedResourceError("this stream was closed")
                trio.lowlevel.reschedule(task, outcome.Error(error))
        self._reader = self._writer = None


def stream_of(sock: socket.socket, watch: PeerWatch) -> SocketStream:
    """Wrap a connected socket; raises OSError if the peer has already gone."""
    kind = EdgeStream if isinstance(watch, EpollPeerWatch) else SocketStream
    if sock.family == socket.AF_UNIX:
        return kind(sock, "unix:", watch)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    host: str = sock.getpeername()[0]
    return kind(sock, host.removeprefix("::ffff:").partition("%")[0], watch)
