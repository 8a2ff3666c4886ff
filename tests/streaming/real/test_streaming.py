"""Bodies on their way: unbuffered, bounded, and dropped when nobody wants them any more."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.processes import DEADLINE, Curl, wait_until
from support.proxy_process import running_proxy
from support.rawhttp import RawClient, request
from support.upstreams import ScriptedUpstream, UpstreamConnection
from trio_proxy.front.h1_session import HALF_CLOSE_SECONDS

MIB = 1024 * 1024

#: A departed client is noticed within 100 ms; this is for a busy machine, and far below `read_ms`.
NOTICED_SECONDS = 7.0

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def outlive_half_close_grace() -> None:
    """Let a request grow older than a FIN that the proxy would take for a half-close."""
    time.sleep(5 * HALF_CLOSE_SECONDS)


@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
def test_each_piece_arrives_before_the_next_is_sent(tmp_path: Path, framing: str) -> None:
    """The upstream goes on only when the client has what was sent: nothing is held back."""

    def handler(connection: UpstreamConnection) -> None:
        connection.read_request()
        extra = {"length": b"Content-Length: 25\r\n", "chunked": b"Transfer-Encoding: chunked\r\n"}
        connection.send(b"HTTP/1.1 200 OK\r\n" + extra.get(framing, b"") + b"\r\n")
        for number in range(5):
            piece = b"tick%d" % number
            connection.send(b"5\r\n%s\r\n" % piece if framing == "chunked" else piece)
            assert arrived.acquire(timeout=DEADLINE)
        if framing == "chunked":
            connection.send(b"0\r\n\r\n")

    arrived = threading.Semaphore(0)
    with (
        ScriptedUpstream(handler) as upstream,
        running_proxy(tmp_path, [upstream.port]) as proxy,
        RawClient(proxy.where) as client,
    ):
        client.send(request("GET", "/"))
        client.read_head()
        for number in range(5):
            client.read_until(b"tick%d" % number)
            arrived.release()


def test_events_reach_curl_one_by_one(echo_port: int, tmp_path: Path, curl: Curl) -> None:
    """Server-sent events: the first is there long before the last is sent."""
    with running_proxy(tmp_path, [echo_port]) as proxy:
        argv = ["curl", "-q", "-sSN", f"{proxy.url}/sse?n=1000&delay_ms=100"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                for number in range(3):
                    assert process.stdout.readline() == b"data: event %d\n" % number
                    assert process.stdout.readline() == b"\n"
            finally:
                process.kill()
        proxy.wait_until_quiet()


def test_body_is_sent_on_before_it_is_complete(tmp_path: Path) -> None:
    """An upload reaches the upstream piece by piece, and its answer may come in between."""

    def handler(connection: UpstreamConnection) -> None:
        connection.read_request_head()
        connection.send(CHUNKED)
        for number in range(5):
            connection.read_until(b"piece%d" % number)
            connection.send(b"3\r\ngot\r\n")
        connection.read_until(b"\r\n0\r\n\r\n")
        connection.send(b"0\r\n\r\n")

    with (
        ScriptedUpstream(handler) as upstream,
        running_proxy(tmp_path, [upstream.port]) as proxy,
        RawClient(proxy.where) as client,
    ):
        client.send(request("POST", "/", "Transfer-Encoding: chunked"))
        client.read_head()
        for number in range(5):
            client.send(b"6\r\npiece%d\r\n" % number)
            client.read_until(b"got")
        client.send(b"0\r\n\r\n")
        client.read_until(b"0\r\n\r\n")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_client_that_does_not_read_costs_no_memory(tmp_path: Path, framing: str) -> None:
    """64 MiB for a client that takes none: the upstream is held back, the proxy does not grow."""
    size = 64 * MIB
    piece = bytes(65536)

    def handler(connection: UpstreamConnection) -> None:
        connection.read_request()
        if framing == "length":
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        else:
            connection.send(CHUNKED)
        for _ in range(size // len(piece)):
            _send(connection, piece if framing == "length" else b"10000\r\n%s\r\n" % piece)
        if framing == "chunked":
            connection.send(b"0\r\n\r\n")

    def _send(connection: UpstreamConnection, data: bytes) -> None:
        view = memoryview(data)
        connection.sock.settimeout(1)
        while view:
            try:
                view = view[connection.sock.send(view) :]
            except TimeoutError:
                stalled.set()
                connection.sock.settimeout(DEADLINE)

    stalled = threading.Event()
    with ScriptedUpstream(handler) as upstream, running_proxy(tmp_path, [upstream.port]) as proxy:
        for _ in range(2):
            with RawClient(proxy.where) as client:
                client.send(request("GET", "/warm-up"))
                assert len(client.read_response().body) == size
        proxy.wait_until_quiet()
        stalled.clear()
        before = proxy.rss()
        with RawClient(proxy.where) as client:
            client.send(request("GET", "/"))
            assert stalled.wait(DEADLINE)
            growth = proxy.rss() - before
        proxy.wait_until_quiet()
    print(f"grew by {growth / 1024:.0f} KiB")
    assert growth < 2 * MIB


def test_upstream_that_does_not_read_costs_no_memory(tmp_path: Path) -> None:
    """The same the other way: an upload that nobody takes holds its client back."""

    def handler(connection: UpstreamConnection) -> None:
        while connection.read_request_head().target == "/warm-up":
            connection.read_exactly(8 * MIB)
            connection.answer()
        assert done.wait(DEADLINE)

    done = threading.Event()
    with ScriptedUpstream(handler) as upstream, running_proxy(tmp_path, [upstream.port]) as proxy:
        with RawClient(proxy.where) as client:
            client.send(request("POST", "/warm-up", body=bytes(8 * MIB)))
            assert client.read_response().status == 200
        before = proxy.rss()
        with RawClient(proxy.where, seconds=1) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
            with pytest.raises(TimeoutError):
                client.send(bytes(64 * MIB))
            growth = proxy.rss() - before
        done.set()
    print(f"grew by {growth / 1024:.0f} KiB")
    assert growth < 2 * MIB


def _await_head(connection: UpstreamConnection) -> float:
    return connection.wait_for_end()


def _mid_body(connection: UpstreamConnection) -> float:
    connection.send(CHUNKED + b"5\r\nhello\r\n")
    return connection.wait_for_end()


def _full_speed(connection: UpstreamConnection) -> float:
    connection.send(CHUNKED)
    return connection.send_until_refused(b"10000\r\n" + bytes(65536) + b"\r\n")


@pytest.mark.parametrize("phase", [_await_head, _mid_body, _full_speed])
def test_killed_curl_ends_the_upstream_work(
    tmp_path: Path, curl: Curl, phase: Callable[[UpstreamConnection], float]
) -> None:
    """SIGKILL of a client, while the upstream is slow or sending, is soon seen by the upstream."""

    def handler(connection: UpstreamConnection) -> None:
        connection.read_request()
        arrived.set()
        ended.append(phase(connection))

    arrived = threading.Event()
    ended: list[float] = []
    with ScriptedUpstream(handler) as upstream, running_proxy(tmp_path, [upstream.port]) as proxy:
        argv = ["curl", "-q", "-sSN", "--limit-rate", "10M", proxy.url]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            assert arrived.wait(DEADLINE)
            if phase is not _await_head:
                assert process.stdout is not None
                assert process.stdout.read(5)
            outlive_half_close_grace()
            killed = time.monotonic()
            process.kill()
        wait_until(lambda: ended, "the upstream sees the end")
        proxy.wait_until_quiet()
        proxy.err.wait_for(r"error=client_gone")
        values = proxy.metrics()
    print(f"noticed after {(ended[0] - killed) * 1000:.1f} ms")
    assert ended[0] - killed < NOTICED_SECONDS
    assert sum(n for key, n in values.items() if "proxy_client_disconnects_total" in key) == 1
    assert values["proxy_orphaned_upstreams"] == 0


@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_that_leaves_in_mid_upload(tmp_path: Path, how: str) -> None:
    """The upstream of an upload that will never be complete is let go at once."""

    def handler(connection: UpstreamConnection) -> None:
        connection.read_request_head()
        connection.read_exactly(5)
        arrived.set()
        ended.append(connection.wait_for_end())

    arrived = threading.Event()
    ended: list[float] = []
    with ScriptedUpstream(handler) as upstream, running_proxy(tmp_path, [upstream.port]) as proxy:
        with RawClient(proxy.where) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nfirst")
            assert arrived.wait(DEADLINE)
            left = time.monotonic()
            if how == "reset":
                client.reset()
        wait_until(lambda: ended, "the upstream sees the end")
        proxy.wait_until_quiet()
    print(f"noticed after {(ended[0] - left) * 1000:.1f} ms")
    assert ended[0] - left < NOTICED_SECONDS


def test_client_that_leaves_the_queue(tmp_path: Path) -> None:
    """A client that leaves while it waits for a connection frees its place in the queue."""

    def handler(connection: UpstreamConnection) -> None:
        seen.append(connection.read_request().target)
        assert go_on.wait(DEADLINE)
        connection.answer()
        while True:
            seen.append(connection.read_request().target)
            connection.answer()

    seen: list[str] = []
    go_on = threading.Event()
    limits = {"max_conns_per_upstream": 1}
    with (
        ScriptedUpstream(handler) as upstream,
        running_proxy(tmp_path, [upstream.port], limits=limits) as proxy,
        RawClient(proxy.where) as first,
        RawClient(proxy.where) as last,
    ):
        first.send(request("GET", "/first"))
        wait_until(lambda: seen, "the first request arrives")
        with RawClient(proxy.where) as leaver:
            leaver.send(request("GET", "/leaver"))
            _wait_for_queue(proxy.metrics, 1)
            outlive_half_close_grace()
            leaver.sock.shutdown(socket.SHUT_RDWR)
        _wait_for_queue(proxy.metrics, 0)
        last.send(request("GET", "/last"))
        _wait_for_queue(proxy.metrics, 1)
        go_on.set()
        assert first.read_response().status == 200
        assert last.read_response().status == 200
    assert seen == ["/first", "/last"]


def _wait_for_queue(metrics: Callable[[], dict[str, float]], length: int) -> None:
    key = 'proxy_queue_length{pool="default"}'
    wait_until(lambda: metrics()[key] == length, f"{length} in the queue")
