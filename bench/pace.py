"""Latency at a fixed rate: half of what each proxy can do, and the same rate without a proxy.

Requests are due at fixed times, however slow the answers are, and their latency counts from then
(otherwise a stall would hide the requests that it delays). A timer in the kernel says when they are
due: to look at the clock all the time would keep the upstream, on the same core, from working.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence

import client
import load
from compare import SCENARIOS
from contest import Server, in_turn, rest
from load import LoadError
from plan import Run, new_section
from results import Sample, Section, median
from upstream import SMALL

CONNECTIONS = 32

#: The share of its saturated rate that a proxy gets.
SHARE = 0.5

#: Of a round whose rate must be found first, in seconds.
SATURATED_SECONDS = 0.5

#: What the last answers may be late, in seconds.
STALL_SECONDS = 5.0

#: The head that wrk.lua sends.
HEAD = (
    b"GET /articles/%d/comments?page=%08x HTTP/1.1\r\n"
    b"Host: 127.0.0.1\r\n"
    b'sec-ch-ua: "Chromium";v="126", "Google Chrome";v="126", "Not-A.Brand";v="8"\r\n'
    b"sec-ch-ua-mobile: ?0\r\n"
    b'sec-ch-ua-platform: "Linux"\r\n'
    b"Upgrade-Insecure-Requests: 1\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/126.0.0.0 Safari/537.36\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
    b"*/*;q=0.8\r\n"
    b"Sec-Fetch-Site: same-origin\r\n"
    b"Sec-Fetch-Mode: navigate\r\n"
    b"Referer: http://127.0.0.1/articles/\r\n"
    b"Accept-Encoding: gzip, deflate, br\r\n"
    b"Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n"
    b"Cookie: theme=dark; consent=1; session=%016x\r\n\r\n"
)


class Pace:
    """A constant rate of requests to one port."""

    def __init__(self, stack: contextlib.ExitStack, port: int, rate: float) -> None:
        self._interval = 1 / rate
        self._poll = stack.enter_context(contextlib.closing(select.epoll()))
        sockets = [stack.enter_context(client.connect(port)) for _ in range(CONNECTIONS)]
        self._sockets = {sock.fileno(): sock for sock in sockets}
        self._free = deque(sockets)
        self._due_at: dict[int, float] = {}
        self._data = dict.fromkeys(self._sockets, b"")
        for sock in sockets:
            self._poll.register(sock, select.EPOLLIN)
        #: How long each answered request took, in seconds.
        self.taken: list[float] = []
        self.errors = 0

    def run(self, count: int) -> None:
        """Send so many requests and wait for the answers. Raises OSError if they stop coming."""
        due = sent = 0
        with _timer(self._interval) as timer:
            begun = time.monotonic()
            until = begun + count * self._interval + STALL_SECONDS
            self._poll.register(timer, select.EPOLLIN)
            while len(self.taken) < count:
                for number, _ in self._poll.poll():
                    if number == timer:
                        due += int.from_bytes(os.read(timer, 8), "little")
                    else:
                        self._receive(self._sockets[number])
                if time.monotonic() > until:
                    raise TimeoutError(f"{count - len(self.taken)} of {count} answers are missing")
                while self._free and sent < min(due, count):
                    sent += 1
                    self._send(sent, begun + sent * self._interval)
            self._poll.unregister(timer)

    def _send(self, number: int, due_at: float) -> None:
        sock = self._free.popleft()
        self._due_at[sock.fileno()] = due_at
        mixed = number * 2654435761
        sock.send(HEAD % (number, mixed % 2**32, mixed % 2**64))

    def _receive(self, sock: socket.socket) -> None:
        number = sock.fileno()
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError("a connection was closed")
        data = self._data[number] = self._data[number] + piece
        if data.endswith(SMALL.encode()):
            self.taken.append(time.monotonic() - self._due_at.pop(number))
            self.errors += not data.startswith(b"HTTP/1.1 200")
            self._data[number] = b""
            self._free.append(sock)


@contextlib.contextmanager
def _timer(seconds: float) -> Iterator[int]:
    """A descriptor that is readable each time so much time has passed: timerfd_create(2).

    `os` has it from Python 3.13 on.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    number = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    if number < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    whole, fraction = divmod(round(seconds * 1e9), 10**9)
    times = (ctypes.c_long * 4)(whole, fraction, whole, fraction)
    libc.timerfd_settime(number, 0, times, None)
    try:
        yield number
    finally:
        os.close(number)


def latency(port: int, rate: float, seconds: float) -> tuple[float, float, int]:
    """p50 and p99 in ms, and errors. Raises OSError if answers stop coming."""
    with contextlib.ExitStack() as stack:
        pace = Pace(stack, port, rate)
        gc.disable()
        try:
            pace.run(max(1, round(rate * seconds)))
        finally:
            gc.enable()
    taken = sorted(pace.taken)
    p50, p99 = (taken[int(share * (len(taken) - 1))] * 1000 for share in (0.5, 0.99))
    return p50, p99, pace.errors


def measure(run: Run) -> Section:
    """Each round: a proxy at half its rate, and the upstream itself at the same rate."""
    seconds = run.sizes.seconds / 2
    section = new_section(runs=f"{run.sizes.rounds} of {seconds:g} s")
    with run.contest.servers(run.proxies, run.setup()) as servers:
        rates = {server: _saturated(run, server, section) * SHARE for server in servers}
        for number in run.rounds():
            for server in in_turn([one for one in servers if rates[one]], number):
                try:
                    sample = _compare(server, run.upstream.port, rates[server], seconds)
                except OSError as exc:
                    section.notes.append(f"{server.name}: {exc}")
                else:
                    section.add(server.name, {"round": number, **sample})
                rest(server)
    return section


def _compare(server: Server, upstream_port: int, rate: float, seconds: float) -> Sample:
    p50, p99, errors = latency(server.port, rate, seconds)
    direct_p50, direct_p99, _ = latency(upstream_port, rate, seconds)
    return {
        "rate": rate,
        "p50_ms": p50,
        "p99_ms": p99,
        "direct_p50_ms": direct_p50,
        "direct_p99_ms": direct_p99,
        "added_p50_ms": p50 - direct_p50,
        "added_p99_ms": p99 - direct_p99,
        "errors": errors,
    }


def _saturated(run: Run, server: Server, section: Section) -> float:
    """What this run has found in small-32, or a short look; 0 if it fails."""
    known: Sequence[Sample] = run.results.section("small-32").of(server.name)
    if known:
        return median(known, "requests_per_second")
    try:
        sample = load.run(
            SCENARIOS["small-32"], server, run.upstream, run.load_core, SATURATED_SECONDS
        )
    except (LoadError, OSError) as exc:
        section.notes.append(f"{server.name}: {exc}")
        return 0.0
    rest(server)
    return sample["requests_per_second"]
