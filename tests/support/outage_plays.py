"""Sections of the page "When upstreams fail", played with real processes.

The configuration is the page's, with other ports and shorter times. Every line of the log that it
shows for it has to come, and every metric has to be 0, or not, as it is shown.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.documents import SHOWN_LINE, Document, blocks, line_pattern
from support.processes import reserve_port, running_uvicorn, wait_until
from support.proxy_process import ProxyProcess, parse_metrics
from support.rawhttp import RawClient, get, request
from support.upstreams import UpstreamConnection

PAGE = Document("docs/when-upstreams-fail.md")


class Server:
    """A uvicorn that comes back to its port."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.port: int = stack.enter_context(reserve_port()).getsockname()[1]
        self.start()

    def signal(self, number: signal.Signals) -> None:
        self._process.signal(number)

    def kill(self) -> None:
        """``kill -9``."""
        self.signal(signal.SIGKILL)
        self._process.popen.wait()

    def start(self) -> None:
        """Start it, or start it again; it is up when this returns."""
        self._process = self._stack.enter_context(running_uvicorn("--port", str(self.port)))


@contextmanager
def two_servers() -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        one, other = Server(stack), Server(stack)
        yield one, other
        one.kill()
        other.kill()


class Play:
    """One section of the page, and a proxy that is configured as it says."""

    def __init__(self, directory: Path, title: str, ports: Sequence[int]) -> None:
        self._text = PAGE.section(title)
        self._ports = {9001 + index: port for index, port in enumerate(ports)}
        self.path = directory / "proxy.toml"
        self.shown = blocks("text", self._text)
        self.proxy: ProxyProcess

    @contextmanager
    def running(self, *changes: tuple[str, str], block: int = 0) -> Iterator[Play]:
        """A proxy with one of the section's configurations."""
        self.configure(*changes, block=block)
        with ProxyProcess("run", self.path, cwd=self.path.parent) as self.proxy:
            self.proxy.wait_until_started()
            yield self

    def configure(self, *changes: tuple[str, str], block: int = 0) -> None:
        """Write the file; each change is of text that has to be there."""
        text = blocks("toml", self._text)[block]
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        if "[[upstreams]]" not in text:
            servers = (f'[[upstreams]]\nhost = "127.0.0.1"\nport = {p}\n' for p in self._ports)
            text = "".join(servers) + text
        text = f'listen = "127.0.0.1:0"\nmetrics_listen = "127.0.0.1:0"\n{self.real(text)}'
        self.path.write_text(text)

    def real(self, text: str) -> str:
        """The text with the ports that there are instead of the page's."""
        return re.sub(r"\b900\d\b", lambda port: str(self._ports.get(int(port[0]), 9)), text)

    def get(self, target: str = "/status/200", *fields: str) -> int:
        return get(self.proxy.where, target, *fields).status

    def upload(self, method: str, size: int) -> int:
        with RawClient(self.proxy.where) as client:
            client.send(request(method, "/upload", body=bytes(size)))
            return client.read_response().status

    def together(self, target: str, count: int) -> list[int]:
        """The statuses of so many requests at once."""
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda _: self.get(target), range(count)))

    def says(self, block: int) -> None:
        """The log has every line of that block."""
        lines = [line for line in self.shown[block].splitlines() if SHOWN_LINE.fullmatch(line)]
        assert lines
        for line in lines:
            self.proxy.err.wait_for(line_pattern(self.real(line)))

    def shows(self, block: int) -> None:
        """The metrics are 0 where that block says so, and nowhere else."""
        shown = parse_metrics(self.real(self.shown[block]))
        assert shown

        def agrees() -> bool:
            real = self.proxy.metrics()
            return all((real.get(key, 0.0) > 0) == (value > 0) for key, value in shown.items())

        wait_until(agrees, f"metrics as in {self.shown[block]}")


class Moody:
    """An upstream that does what the test says."""

    def __init__(self) -> None:
        self.mood: Callable[[UpstreamConnection], None] = self.fine

    def __call__(self, connection: UpstreamConnection) -> None:
        while True:
            connection.read_request()
            self.mood(connection)

    def fine(self, connection: UpstreamConnection) -> None:
        connection.answer()

    def busy(self, connection: UpstreamConnection) -> None:
        connection.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nbusy\n")

    def busy_for_a_second(self, connection: UpstreamConnection) -> None:
        connection.send(b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
        self.mood = self.fine

    def busy_for_long(self, connection: UpstreamConnection) -> None:
        connection.send(b"HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n")

    def failing(self, connection: UpstreamConnection) -> None:
        connection.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")

    def reset(self, connection: UpstreamConnection) -> None:
        connection.reset()
        raise EOFError

    def cut(self, connection: UpstreamConnection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789")
        raise EOFError

    def close_once(self, connection: UpstreamConnection) -> None:
        self.mood = self.fine
        raise EOFError
