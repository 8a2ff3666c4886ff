"""A proxy of several workers: which process serves whom, and whether one is left."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from support.processes import children, wait_until
from support.proxy_process import ProxyProcess
from support.rawhttp import RawClient

#: Tries to meet a certain worker, or all of a few; that it takes more happens once in 10**12 runs.
TRIES = 40


def pids_of(proxy: ProxyProcess) -> dict[int, int]:
    """The last known process id of each worker, by its number."""
    first = proxy.err.wait_for(r"started \d+ workers \(pids ([\d, ]+)\)")[1]
    found = dict(enumerate(map(int, first.split(", ")), 1))
    for line in proxy.err.matching(r"worker \d+ \(pid \d+\) started"):
        number, pid = re.findall(r"\d+", line.partition("worker ")[2])
        found[int(number)] = int(pid)
    return found


def wait_for_successor(proxy: ProxyProcess, number: int, pid: int) -> int:
    """The process id of a worker that has taken the place of another."""
    wait_until(lambda: pids_of(proxy)[number] != pid, f"worker {number} is there again")
    return pids_of(proxy)[number]


def beginning_workers(proxy: ProxyProcess) -> set[int]:
    """The process ids of workers, as soon as their program is loaded and long before they serve."""
    found = set()
    for pid in children(proxy.pid):
        with suppress(OSError):
            if b"trio_proxy.server.workers.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until_gone(*pids: int) -> None:
    wait_until(lambda: not any(map(is_running, pids)), f"the processes {pids} end")


def owner_of(proxy: ProxyProcess, client: RawClient) -> int:
    """The process id of the worker that has accepted this TCP connection."""
    return int(wait_until(lambda: _maybe_owner(proxy, client.sock), "somebody accepts the client"))


def _maybe_owner(proxy: ProxyProcess, sock: socket.socket) -> int:
    ours, theirs = _hex(sock.getsockname()), _hex(sock.getpeername())
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        row = line.split()
        if (row[1], row[2]) == (theirs, ours):
            holders = (pid for pid in pids_of(proxy).values() if _holds(pid, row[9]))
            return next(holders, 0)
    return 0


def _hex(address: tuple[str, int]) -> str:
    """As in ``/proc/net/tcp`` of a little-endian machine."""
    return f"{socket.inet_aton(address[0])[::-1].hex().upper()}:{address[1]:04X}"


def _holds(pid: int, inode: str) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        return any(_is_socket(f"{folder}/{name}", inode) for name in os.listdir(folder))
    except FileNotFoundError:
        return False


def _is_socket(path: str, inode: str) -> bool:
    try:
        return os.readlink(path) == f"socket:[{inode}]"
    except FileNotFoundError:
        return False


@contextmanager
def clients_of_all(proxy: ProxyProcess) -> Iterator[dict[int, RawClient]]:
    """A connected client of each worker, by the worker's number."""
    numbers = {pid: number for number, pid in pids_of(proxy).items()}
    found: dict[int, RawClient] = {}
    with ExitStack() as stack:
        for _ in range(TRIES * len(numbers)):
            client = stack.enter_context(RawClient(proxy.where))
            found.setdefault(numbers[owner_of(proxy, client)], client)
            if len(found) == len(numbers):
                break
        assert len(found) == len(numbers), f"only workers {[*found]} have a client"
        yield found


def asking(client: RawClient, target: str = "/status/200") -> Callable[[], None]:
    """One request after another on a connection that is kept."""

    def ask() -> None:
        assert client.get(target).status == 200

    return ask
