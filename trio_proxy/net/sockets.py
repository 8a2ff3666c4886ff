"""Streams on real sockets, TCP and unix."""

from __future__ import annotations

import array
import contextlib
import fcntl
import select
import socket
import struct
import termios

import trio

from trio_proxy.exchange.streams import PIECE_BYTES, HangupCallback
from trio_proxy.http.addresses import Address, UnixAddress
from trio_proxy.net.epoll import PeerWatch

#: What Linux knows of the memory that a socket holds (socket(7) leaves it out, ss(8) shows it):
#: nine numbers, of which those about sending are bytes allocated, the limit, and bytes queued.
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("9I")


class SocketStream:
    """A connected non-blocking socket as a `Stream`; see there for the contract."""

    __slots__ = (
        "__weakref__",
        "_closed",
        "_eof_sent",
        "_missed",
        "_on_hangup",
        "_poller",
        "_socket",
        "_watch",
        "hangup_lag",
        "peer",
        "piece_bytes",
    )

    def __init__(self, sock: socket.socket, peer: str, watch: PeerWatch) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._watch = watch
        self._closed = False
        self._eof_sent = False
        self.peer = peer
        self.piece_bytes = PIECE_BYTES
        self.hangup_lag = watch.lag
        self._on_hangup: HangupCallback | None = None
        self._missed: tuple[bool, ...] = ()
        self._poller: select.poll | None = None
        self._register(watch)

    def _register(self, watch: PeerWatch) -> None:
        watch.add(self._socket, self._hangup)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"fd={self._socket.fileno()}"
        return f"<SocketStream {self.peer} {state}>"

    def _hangup(self, reset: bool) -> None:
        if reset and self._eof_sent:
            return  # both sides have sent a FIN: the system says full close, but it is no reset
        if self._on_hangup is None:
            self._missed = (*self._missed, reset)
        else:
            self._tell(self._on_hangup, reset)

    def _tell(self, callback: HangupCallback, reset: bool) -> None:
        """One that fails costs this connection, and nobody else anything."""
        try:
            callback(reset)
        except Exception:  # noqa: BLE001 - logged, with its traceback
            self._watch.faults.fault("internal error as %s hung up", self.peer)
            self.abort()

    @property
    def on_hangup(self) -> HangupCallback | None:
        """See `Stream.on_hangup`; a callback that is set late is told what it missed."""
        return self._on_hangup

    @on_hangup.setter
    def on_hangup(self, callback: HangupCallback | None) -> None:
        self._on_hangup = callback
        if callback is not None:
            missed, self._missed = self._missed, ()
            for reset in missed:
                self._tell(callback, reset)

    def receive_nowait(self, limit: int) -> bytes | None:
        try:
            return self._socket.recv(limit)
        except BlockingIOError:
            return None

    def receive_into_nowait(self, buffer: memoryview) -> int | None:
        try:
            return self._socket.recv_into(buffer)
        except BlockingIOError:
            return None

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def wait_readable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        await trio.lowlevel.wait_readable(self._socket)

    async def wait_writable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        await trio.lowlevel.wait_writable(self._socket)

    def is_readable(self) -> bool:
        if self._closed:
            return True
        poller = self._poller
        if poller is None:
            poller = self._poller = select.poll()
            poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(0))

    def room_bytes(self) -> int:
        waiting = array.array("i", [0])
        try:
            facts = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
            numbers: tuple[int, ...] = _MEMINFO.unpack(facts)
            fcntl.ioctl(self._socket, termios.TIOCOUTQ, waiting)
        except (OSError, ValueError, struct.error):  # another system, or closed
            return 0
        used, limit = max(numbers[2], numbers[5]), numbers[3]
        if used >= limit:
            return 0
        # Bytes in small segments, as a peer with a small window gets them, take more memory than
        # their number: as much more as those that wait already. Down to a quarter has been seen.
        return (limit - used) * max(waiting[0], used // 4) // used if used else limit // 2

    def unread_bytes(self) -> int:
        size = array.array("i", [0])
        fcntl.ioctl(self._socket, termios.FIONREAD, size)
        return size[0]

    def send_eof(self) -> None:
        if not self._eof_sent and not self._closed:
            self._eof_sent = True
            with contextlib.suppress(OSError):  # the peer may be gone already
                self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._on_hangup = None
            self._poller = None  # it knows a number, which may soon be another socket's
            self._watch.remove(self._socket)
            self._wake_waiters()
            self._socket.close()

    def _wake_waiters(self) -> None:
        trio.lowlevel.notify_closing(self._socket)

    def abort(self) -> None:
        if not self._closed:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            self.close()


def family_and_sockaddr(address: Address) -> tuple[int, str | tuple[str, int]]:
    if isinstance(address, UnixAddress):
        return socket.AF_UNIX, address.path
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return family, (address.host, address.port)
