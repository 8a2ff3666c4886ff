"""Streams and listeners on real sockets, TCP and unix."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
import struct
import termios

import trio

from trio_proxy.addresses import Address, TcpAddress, UnixAddress
from trio_proxy.net.peerwatch import PeerWatch
from trio_proxy.net.streams import HangupCallback

#: What an operating system calls "no connection waiting", or "it went away again" (accept(2)).
_ACCEPT_AGAIN = frozenset(
    (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.EPROTO, errno.EINTR, errno.EPERM)
)

#: Everybody who can reach the path may connect, as with nginx; the folder's mode says who can.
UNIX_SOCKET_MODE = 0o666

#: Connections that wait in the kernel to be accepted; the kernel caps it at net.core.somaxconn.
BACKLOG = 4096


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
    )

    def __init__(self, sock: socket.socket, peer: str, watch: PeerWatch) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._watch = watch
        self._closed = False
        self._eof_sent = False
        self.peer = peer
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
            self._on_hangup(reset)

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
                callback(reset)

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
        poller = self._poller
        if poller is None:
            poller = self._poller = select.poll()
            poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(0))

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


class SocketListener:
    """A listening socket as a `Listener`. A unix socket's file goes with it."""

    def __init__(self, sock: socket.socket, address: Address, watch: PeerWatch) -> None:
        self._socket = sock
        self._watch = watch
        self._inode = os.stat(address.path).st_ino if isinstance(address, UnixAddress) else 0
        self.address = address

    async def wait_readable(self) -> None:
        self._check_open()
        await trio.lowlevel.wait_readable(self._socket)

    def _check_open(self) -> None:
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("this listener was closed")

    def accept_nowait(self) -> SocketStream | None:
        self._check_open()
        try:
            sock, _ = self._socket.accept()
        except OSError as exc:
            if exc.errno in _ACCEPT_AGAIN:
                return None
            raise
        try:
            from trio_proxy.net.edges import stream_of

            return stream_of(sock, self._watch)
        except OSError as exc:
            sock.close()
            if exc.errno == errno.ENOTCONN:
                return None
            raise

    def close(self) -> None:
        if self._socket.fileno() < 0:
            return
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        if isinstance(self.address, UnixAddress):
            with contextlib.suppress(OSError):
                # A successor may have put its own socket in this place.
                if os.stat(self.address.path).st_ino == self._inode:
                    os.unlink(self.address.path)


def bind(address: Address, watch: PeerWatch) -> SocketListener:
    """Bind and listen. Raises OSError with the address in it (taken, not ours, no permission)."""
    family, where = family_and_sockaddr(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if isinstance(address, UnixAddress):
            _remove_stale_socket(address.path)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        if isinstance(address, UnixAddress):
            os.chmod(address.path, UNIX_SOCKET_MODE)
        sock.listen(BACKLOG)
        sock.setblocking(False)
        if isinstance(address, TcpAddress):
            address = TcpAddress(address.host, sock.getsockname()[1])
        return SocketListener(sock, address, watch)
    except OSError as exc:
        sock.close()
        text = exc.strerror or str(exc)
        raise OSError(exc.errno, f"cannot listen on {address}: {text}") from exc


def family_and_sockaddr(address: Address) -> tuple[int, str | tuple[str, int]]:
    if isinstance(address, UnixAddress):
        return socket.AF_UNIX, address.path
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return family, (address.host, address.port)


def _remove_stale_socket(path: str) -> None:
    """Remove a socket file that nobody listens on, as a killed predecessor leaves it.

    Raises OSError (EADDRINUSE) if somebody does; a file that is no socket is left to bind's error.
    """
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise OSError(errno.EADDRINUSE, "Address already in use")
