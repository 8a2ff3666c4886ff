"""Messages with descriptors between two processes of one proxy, over a pair of unix sockets.

A message is its length in four bytes, network order, and its bytes; the descriptors travel with the
first of them (SCM_RIGHTS, unix(7)). Nobody else can reach the sockets: they have no name, and are
inherited by the one process that they are meant for.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from collections.abc import Sequence
from typing import TypeAlias

import trio

#: More is refused on either side. The settings of a file of 1 MiB come to some megabytes.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024

#: What Linux passes along with one message (SCM_MAX_FD).
MAX_DESCRIPTORS = 253

#: What comes along with a message.
Socket: TypeAlias = socket.socket

_LENGTH = struct.Struct("!I")
_ANCILLARY_BYTES = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)


class DescriptorsLost(OSError):
    """A message has arrived whole, its ``data``, but there was no room for what came with it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(errno.EMFILE, os.strerror(errno.EMFILE))
        self.data = data


class Channel:
    """One end. Its methods raise OSError when the other end is gone or breaks the rules.

    A message that was cancelled half-way cannot be followed by another, so the channel is of no
    more use to whoever sends then.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._sending = trio.Lock()
        self._is_cut = False

    @classmethod
    def from_descriptor(cls, number: int) -> Channel:
        """The end that this process inherited."""
        sock = socket.socket(fileno=number)
        sock.set_inheritable(False)
        return cls(sock)

    async def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send one message with open files; the receiver gets copies, ours stay open."""
        if len(data) > MAX_MESSAGE_BYTES:
            raise OSError(f"a message of {len(data)} bytes is too long")
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        view = memoryview(_LENGTH.pack(len(data)) + data)
        async with self._sending:
            if self._is_cut:
                raise OSError("the last message was cut off")
            while view:
                try:
                    sent = self._socket.sendmsg([view], ancillary if descriptors else ())
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._socket)
                    continue
                view, descriptors = view[sent:], ()
                self._is_cut = bool(view)

    async def receive(self) -> tuple[bytes, list[socket.socket]]:
        """The next message, and the sockets that came with it. Raises `trio.EndOfChannel`.

        Raises DescriptorsLost too, after which the channel is as good as before. One that is
        cancelled may leave the channel in the middle of a message.
        """
        sockets: list[socket.socket] = []
        try:
            head, has_lost = await self._receive_head(sockets)
            (length,) = _LENGTH.unpack(head)
            if length > MAX_MESSAGE_BYTES:
                raise OSError(f"a message of {length} bytes is too long")
            data = await self._receive_exactly(length)
            if has_lost:
                raise DescriptorsLost(data)
            return data, sockets
        except BaseException as exc:
            for sock in sockets:
                sock.close()
            if isinstance(exc, ConnectionResetError):
                raise trio.EndOfChannel from exc
            raise

    async def _receive_head(self, sockets: list[socket.socket]) -> tuple[bytes, bool]:
        """And whether sockets that came with it were lost."""
        head, has_lost = b"", False
        while len(head) < _LENGTH.size:
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(
                    _LENGTH.size - len(head), _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
                continue
            sockets += _sockets_in(ancillary)
            has_lost |= bool(flags & socket.MSG_CTRUNC)
            if not data:
                raise trio.EndOfChannel
            head += data
        return head, has_lost

    async def _receive_exactly(self, length: int) -> bytes:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            try:
                count = self._socket.recv_into(view)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
                continue
            if not count:
                raise trio.EndOfChannel
            view = view[count:]
        return bytes(data)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


def _sockets_in(ancillary: list[tuple[int, int, bytes]]) -> list[socket.socket]:
    numbers = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return [socket.socket(fileno=number) for number in numbers]


def new_pair() -> tuple[Channel, socket.socket]:
    """Our end, and the socket of the other one, for a child process to inherit."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours), theirs
