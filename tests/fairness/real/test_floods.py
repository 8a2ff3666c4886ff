"""Floods that a simulated network cannot show: a unix socket that is away, and a signal."""

from __future__ import annotations

import re
import signal
import threading
import time
from pathlib import Path

import trio

from support.fairness import FLOOD, most_between_steps
from support.processes import DEADLINE
from support.proxy_process import running_proxy
from support.rawhttp import RawClient, request
from trio_proxy import Settings, TcpAddress, UpstreamSettings, open_proxy
from trio_proxy.exchange.exchange import Exchange

#: Within which a process under a flood has to end: generous, and far below the drain's time.
AT_ONCE = 5.0

LOOP = ("Via: " + ", ".join(["1.1 trio-proxy"] * 10),)


async def take_all(stream: trio.SocketStream) -> None:
    while await stream.receive_some():
        pass


async def test_a_unix_socket_that_is_away(unix_path: Path) -> None:
    """Its dials fail without a wait: after each of them the others have a turn."""
    seen: list[Exchange] = []
    settings = Settings(
        listen=(TcpAddress("127.0.0.1", 0),),
        upstreams=(UpstreamSettings(unix=str(unix_path), max_fails=0),),
    )
    with trio.fail_after(DEADLINE):
        async with open_proxy(settings, on_exchange=seen.append) as proxy:
            address = proxy.address
            assert isinstance(address, TcpAddress)
            async with (
                await trio.open_tcp_stream(address.host, address.port) as stream,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(take_all, stream)
                await stream.send_all(request("GET", "/") * FLOOD)
                most = await most_between_steps(lambda: len(seen), FLOOD)
                nursery.cancel_scope.cancel()
    assert {each.status for each in seen} == {502}
    assert most <= 2


class Flood(threading.Thread):
    """Sends refused requests as fast as they are taken, until told to stop."""

    def __init__(self, client: RawClient) -> None:
        super().__init__()
        self.client = client
        self.stopped = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            while not self.stopped.is_set():
                self.client.send(request("GET", "/", *LOOP) * 100)
            self.client.half_close()
        except OSError:
            return  # the proxy has closed the connection, as it may


def test_a_stop_under_a_flood_of_refusals(tmp_path: Path) -> None:
    """SIGTERM is heeded at once, and each answer has its line in the log, or is counted as lost."""
    timeouts = {"drain_ms": 30_000}
    with (
        running_proxy(tmp_path, [1], timeouts=timeouts) as proxy,
        RawClient(proxy.where) as client,
    ):
        flood = Flood(client)
        answers, is_last, signalled_at = 0, False, 0.0
        while not is_last:
            answer = client.read_response()
            assert answer.status == 508
            answers += 1
            is_last = answer.header("connection") == "close"
            if answers == 3000:
                signalled_at = time.monotonic()
                proxy.signal(signal.SIGTERM)
        flood.stopped.set()
        assert client.read_to_end() == b""
        flood.join()
        assert proxy.wait_for_end() == 0
        took = time.monotonic() - signalled_at
    assert took < AT_ONCE
    lines = len(proxy.err.matching(r"- trio_proxy.access - .* 508 "))
    lost = sum(int(n) for n in re.findall(r"(\d+) log lines dropped", proxy.err.text()))
    assert lines + lost == answers
