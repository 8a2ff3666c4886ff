"""Listening sockets that one process makes and others serve.

The supervisor binds each address once for all workers and keeps the sockets for as long as the
address is listened on. So a worker that dies takes no connection with it that it had not accepted:
they wait in the kernel, in the queue of a socket that is still open, for whoever is given the
socket next.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping, Sequence

from trio_proxy.http.addresses import Address, UnixAddress
from trio_proxy.net.dial import SocketNetwork
from trio_proxy.net.listen import SocketFile, SocketListener, bind_many
from trio_proxy.net.network import Listener


class SharedListener:
    """One address, and a socket on it for each worker, or one for all if it is a unix socket.

    The kernel deals TCP connections out among the sockets, by a hash of both ends' addresses
    (SO_REUSEPORT, socket(7)). From a unix socket each worker takes what it can.
    """

    def __init__(
        self, address: Address, sockets: Sequence[socket.socket], file: SocketFile | None
    ) -> None:
        self.address = address
        self._sockets = sockets
        self._file = file

    def __repr__(self) -> str:
        return f"<SharedListener {self.address} sockets={len(self._sockets)}>"

    @property
    def is_dealt(self) -> bool:
        """Whether a worker's connections come to its own socket and to no other."""
        return not isinstance(self.address, UnixAddress)

    def descriptor_for(self, worker: int) -> int:
        """The file descriptor that a worker listens with, by its index."""
        return self._sockets[worker % len(self._sockets)].fileno()

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
        if self._file is not None:
            self._file.remove()
            self._file = None


class Sharer:
    """Binds for so many workers."""

    def __init__(self, network: SocketNetwork, workers: int) -> None:
        self._network = network
        self._workers = workers

    async def listen(self, address: Address) -> SharedListener:
        """Bind an address for all workers. Raises OSError."""
        sockets, bound, file = bind_many(await self._network.literal(address), self._workers)
        return SharedListener(bound, sockets, file)


class InheritingNetwork(SocketNetwork):
    """A worker's: it binds nothing, but listens with the sockets that it was handed."""

    def __init__(self) -> None:
        super().__init__()
        self._handed: dict[Address, socket.socket] = {}

    def hand_over(self, sockets: Mapping[Address, socket.socket]) -> None:
        """Have `listen` use these; what it did not use of the last ones is closed."""
        self.close_unused()
        self._handed = dict(sockets)

    async def listen(self, address: Address) -> Listener:
        sock = self._handed.pop(address, None)
        if sock is None:
            raise OSError(errno.EADDRNOTAVAIL, f"no socket for {address} was handed over")
        return self.listener_on(sock, address)

    def listener_on(self, sock: socket.socket, address: Address) -> Listener:
        """Listen with a socket; the file of a unix socket is left alone, it is shared."""
        sock.setblocking(False)
        return SocketListener(sock, address, self._watch)

    def close_unused(self) -> None:
        """Close what `hand_over` was given and `listen` was not asked for."""
        close_sockets(self._handed.values())
        self._handed = {}

    def close(self) -> None:
        self.close_unused()
        super().close()


def close_sockets(sockets: Iterable[socket.socket]) -> None:
    """Close what came over a channel and is of no use."""
    for sock in sockets:
        sock.close()
