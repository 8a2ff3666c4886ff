"""WebSocket messages through a proxy: both ends are here, in one loop, on the core of the load.

A client sends a message of 1 KiB, the other end answers with one, and so on, on many connections.
After the handshake and one message that is compared byte by byte only lengths are looked at: the
loop must be quicker than the proxies.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import select
import socket
import time
from collections.abc import Sequence

import client
from contest import Server, in_turn, rest
from plan import Run, new_section
from proxies import Setup
from results import Sample, Section

CONNECTIONS = 32
MESSAGE = 1024
SETTLE_SECONDS = 0.3

#: RFC 6455, section 1.3.
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

#: Nothing for so long means that messages got lost, in seconds.
STALL_SECONDS = 5.0

_PAYLOAD = os.urandom(MESSAGE)
_LENGTH = MESSAGE.to_bytes(2, "big")
#: A binary message in one frame; that of a client is masked (with zeros, so it is its payload).
QUESTION = b"\x82\xfe" + _LENGTH + bytes(4) + _PAYLOAD
ANSWER = b"\x82\x7e" + _LENGTH + _PAYLOAD


class TunnelError(OSError):
    """The tunnel was not opened, or broke."""


class End:
    """One end of one tunnel: what it waits for and what it sends then."""

    __slots__ = ("left", "receive", "send", "sends", "size", "sock")

    def __init__(self, sock: socket.socket, *, waits_for: bytes, sends: bytes) -> None:
        self.sock = sock
        self.size = self.left = len(waits_for)
        self.sends = sends
        self.receive = sock.recv
        self.send = sock.send


class Tunnels:
    """Open tunnels through one proxy."""

    def __init__(self, stack: contextlib.ExitStack, listener: socket.socket, port: int) -> None:
        self.messages = 0
        self._poll = stack.enter_context(contextlib.closing(select.epoll()))
        self._ends: dict[int, End] = {}
        self._clients: list[End] = []
        for _ in range(CONNECTIONS):
            near, far = _open(stack, listener, port)
            one = End(near, waits_for=ANSWER, sends=QUESTION)
            self._clients.append(one)
            for end in (one, End(far, waits_for=QUESTION, sends=ANSWER)):
                self._ends[end.sock.fileno()] = end
                self._poll.register(end.sock, select.EPOLLIN)

    def begin(self) -> None:
        for one in self._clients:
            one.send(one.sends)

    def relay(self, seconds: float) -> None:
        """Answer every message with one. Raises TunnelError if they get lost."""
        ends, poll = self._ends, self._poll.poll
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            ready = poll(STALL_SECONDS)
            if not ready:
                raise TunnelError("messages got lost")
            for number, _ in ready:
                end = ends[number]
                size = len(end.receive(4096))
                if not size:
                    raise TunnelError("a tunnel was closed")
                end.left -= size
                if end.left <= 0:
                    end.left = end.size
                    end.send(end.sends)
                    self.messages += 1


def _open(
    stack: contextlib.ExitStack, listener: socket.socket, port: int
) -> tuple[socket.socket, socket.socket]:
    """Both ends of a new tunnel, after a handshake and a message each way."""
    near = stack.enter_context(client.connect(port))
    key = base64.b64encode(os.urandom(16))
    near.sendall(
        b"GET /tunnel HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
    far = stack.enter_context(listener.accept()[0])
    far.settimeout(STALL_SECONDS)
    far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    fields = _head(far)
    accept = base64.b64encode(hashlib.sha1(fields[b"sec-websocket-key"] + GUID).digest())
    far.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    expected = base64.b64encode(hashlib.sha1(key + GUID).digest())
    if _head(near).get(b"sec-websocket-accept") != expected:
        raise TunnelError("the handshake failed")
    _pass(near, far, QUESTION)
    _pass(far, near, ANSWER)
    return near, far


def _head(sock: socket.socket) -> dict[bytes, bytes]:
    """The fields of a head, read byte by byte up to its end; names in lower case."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            raise TunnelError(f"no tunnel: {data[:40]!r}")
        data += byte
    lines = (line.partition(b":") for line in data.split(b"\r\n")[1:-2])
    return {name.lower(): value.strip() for name, _, value in lines}


def _pass(source: socket.socket, target: socket.socket, message: bytes) -> None:
    source.sendall(message)
    frame = target.recv(len(message), socket.MSG_WAITALL)
    if len(frame) != len(message) or _payload(frame) != _PAYLOAD:
        raise TunnelError("a message was changed")


def _payload(frame: bytes) -> bytes:
    """Without its mask: who relays messages instead of bytes chooses one of his own."""
    data = frame[-MESSAGE:]
    if len(frame) != len(QUESTION):
        return data
    mask = frame[4:8] * (MESSAGE // 4)
    return bytes(one ^ other for one, other in zip(data, mask, strict=True))


def _load(server: Server, listener: socket.socket, seconds: float) -> Sample:
    with contextlib.ExitStack() as stack:
        tunnels = Tunnels(stack, listener, server.port)
        tunnels.begin()
        tunnels.relay(SETTLE_SECONDS)
        before, first = tunnels.messages, server.process.reading()
        tunnels.relay(seconds)
        messages, last = tunnels.messages - before, server.process.reading()
    used = first.until(last)
    return {
        "messages_per_second": messages / used["seconds"],
        "cpu_us": (last.cpu - first.cpu) / max(1, messages) * 1e6,
        "busy": used["busy"],
        "others": used["others"],
    }


def measure(run: Run) -> Section:
    section = new_section(runs=f"{run.sizes.rounds} of {run.sizes.seconds:g} s")
    proxies = [proxy for proxy in run.proxies if "tunnel" not in proxy.lacks]
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        listener.settimeout(STALL_SECONDS)
        setup = Setup(upstreams=[f"127.0.0.1:{listener.getsockname()[1]}"])
        with run.contest.servers(proxies, setup, ready=client.wait_for_listener) as servers:
            _rounds(run, servers, listener, section)
    return section


def _rounds(run: Run, servers: Sequence[Server], listener: socket.socket, section: Section) -> None:
    for number in run.rounds():
        for server in in_turn(servers, number):
            try:
                sample = _load(server, listener, run.sizes.seconds)
            except OSError as exc:
                section.notes.append(f"{server.name}: {exc}")
            else:
                section.add(server.name, {"round": number, **sample})
            rest(server)
