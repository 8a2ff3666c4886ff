"""Listeners on real sockets, TCP and unix."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

import trio

from trio_proxy.http.addresses import Address, TcpAddress, UnixAddress
from trio_proxy.net.epoll import PeerWatch
from trio_proxy.net.epoll_stream import stream_of
from trio_proxy.net.sockets import SocketStream, family_and_sockaddr

#: What an operating system calls "no connection waiting", or "it went away again" (accept(2)).
_ACCEPT_AGAIN = frozenset(
    (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.EPROTO, errno.EINTR, errno.EPERM)
)

#: Everybody who can reach the path may connect, as with nginx; the folder's mode says who can.
UNIX_SOCKET_MODE = 0o666

#: Connections that wait in the kernel to be accepted; the kernel caps it at net.core.somaxconn.
BACKLOG = 4096


class SocketFile:
    """The file of a unix socket: whoever bound it takes it away in the end."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._inode = os.stat(path).st_ino

    def remove(self) -> None:
        """Unlink it, unless a successor has put its own socket in this place."""
        with contextlib.suppress(OSError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)


class SocketListener:
    """A listening socket as a `Listener`. ``file`` goes with it."""

    def __init__(
        self,
        sock: socket.socket,
        address: Address,
        watch: PeerWatch,
        file: SocketFile | None = None,
    ) -> None:
        self._socket = sock
        self._watch = watch
        self._file = file
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
        if self._file is not None:
            self._file.remove()


def bind(address: Address, watch: PeerWatch) -> SocketListener:
    """Bind and listen. Raises OSError with the address in it (taken, not ours, no permission)."""
    (sock,), address, file = bind_many(address, 1)
    return SocketListener(sock, address, watch, file)


def bind_many(
    address: Address, count: int
) -> tuple[list[socket.socket], Address, SocketFile | None]:
    """Listen with so many sockets on one address, each of which gets a share of the connections.

    A unix socket is the only one of its path, whatever ``count`` says. The address that is
    returned has the real port. Raises OSError with the address in it.
    """
    opened: list[socket.socket] = []
    file: SocketFile | None = None
    try:
        if isinstance(address, UnixAddress):
            opened.append(_bind_unix(address.path))
            file = SocketFile(address.path)
        else:
            opened.append(_bind_tcp(address, first_of=count))
            address = TcpAddress(address.host, opened[0].getsockname()[1])
            opened += [_bind_tcp(address, first_of=0) for _ in range(count - 1)]
        for sock in opened:
            sock.listen(BACKLOG)
            sock.setblocking(False)
    except OSError as exc:
        for sock in opened:
            sock.close()
        text = exc.strerror or str(exc)
        raise OSError(exc.errno, f"cannot listen on {address}: {text}") from exc
    return opened, address, file


def _bind_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale_socket(path)
        sock.bind(path)
        os.chmod(path, UNIX_SOCKET_MODE)
    except OSError:
        sock.close()
        raise
    return sock


def _bind_tcp(address: TcpAddress, *, first_of: int) -> socket.socket:
    """A bound socket; ``first_of`` is 0 for one that joins others of ours on their port.

    SO_REUSEPORT alone would join those of any other program of this user too: two proxies that are
    started by mistake would share the clients, and nobody be told. So the first one binds without
    it, which fails if anybody listens there, and is opened for the others only then.
    """
    family, where = family_and_sockaddr(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if first_of == 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(where)
        if first_of > 1:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        sock.close()
        raise
    return sock


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
