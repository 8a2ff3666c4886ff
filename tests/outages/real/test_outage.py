"""Ten thousand requests to two real servers while one is killed, stopped, and comes back."""

from __future__ import annotations

import http.client
import itertools
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.processes import DEADLINE, reserve_port, running_uvicorn, wait_until
from support.proxy_process import ProxyProcess, running_proxy
from support.rawhttp import get

REQUESTS = 10_000
CLIENTS = 8
#: Of the server that goes on, none of 10,000 answers may take longer.
FAST = {"try_timeout_ms": 2000}
SOON = {"max_fails": 1, "fail_timeout_ms": 500}


class Load:
    """Clients that ask one after the other on keep-alive connections, until all is asked."""

    def __init__(self, port: int, total: int) -> None:
        self.answers: Counter[str] = Counter()
        self._port = port
        self._numbers = itertools.count()
        self._total = total
        self._events: dict[int, Callable[[], None]] = {}
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def at(self, number: int, event: Callable[[], None]) -> None:
        """Do this right before the request of that number."""
        self._events[number] = event

    def run(self) -> Counter[str]:
        """What the clients saw, once all have finished."""
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()
        return self.answers

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE)
        while (number := next(self._numbers)) < self._total:
            if number in self._events:
                self._events[number]()
            self.answers[self._get(connection, number)] += 1
        connection.close()

    @staticmethod
    def _get(connection: http.client.HTTPConnection, number: int) -> str:
        try:
            connection.request("GET", f"/status/200?{number}")
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as exc:
            connection.close()
            return repr(exc)
        return str(answer.status)


class Server:
    """A uvicorn on a port that it can come back to."""

    def __init__(self, stack: ExitStack) -> None:
        self.port: int = stack.enter_context(reserve_port()).getsockname()[1]
        self._stack = stack
        self.start()

    def start(self) -> None:
        """Start it, or start it again; it is up when this returns."""
        self.process = self._stack.enter_context(running_uvicorn("--port", str(self.port)))

    def kill(self) -> None:
        """As the kernel does when memory runs out."""
        self.process.signal(signal.SIGKILL)


@contextmanager
def two_servers(tmp_path: Path) -> Iterator[tuple[ProxyProcess, Server, Server]]:
    with ExitStack() as stack:
        one, other = Server(stack), Server(stack)
        upstreams = [{"host": "127.0.0.1", "port": each.port, **SOON} for each in (one, other)]
        with running_proxy(tmp_path, upstreams, retry=FAST) as proxy:
            yield proxy, one, other
            proxy.wait_until_quiet()


@pytest.mark.slow
def test_no_get_fails_while_one_of_two_is_killed_and_restarted(tmp_path: Path) -> None:
    """10,000 GETs, 10,000 answers of 200; the survivor took the load, the other came back."""
    with two_servers(tmp_path) as (proxy, one, _):
        load = Load(proxy.port, REQUESTS)
        load.at(2000, one.kill)
        load.at(4000, one.start)
        load.at(6000, one.kill)
        load.at(8000, one.start)
        assert load.run() == {"200": REQUESTS}
        proxy.err.wait_for(rf"upstream 127.0.0.1:{one.port} down: connection_")
        up = f'proxy_upstream_up{{pool="default",upstream="127.0.0.1:{one.port}"}}'
        # The last request of the load may have come before the last start was over.
        wait_until(lambda: get(proxy.where, "/").status == 200 and proxy.metrics()[up], "it is up")
        proxy.err.wait_for(rf"upstream 127.0.0.1:{one.port} up: a request succeeded")


@pytest.mark.slow
def test_no_get_fails_while_one_of_two_is_stopped_and_goes_on(tmp_path: Path) -> None:
    """A server that accepts and never answers costs each client one try_timeout_ms at most."""
    with two_servers(tmp_path) as (proxy, one, _):
        load = Load(proxy.port, REQUESTS)
        load.at(2000, lambda: one.process.signal(signal.SIGSTOP))
        load.at(6000, lambda: one.process.signal(signal.SIGCONT))
        assert load.run() == {"200": REQUESTS}
        proxy.err.wait_for(rf"upstream 127.0.0.1:{one.port} down: try_timeout")
        proxy.err.wait_for(rf"upstream 127.0.0.1:{one.port} up: a request succeeded")
