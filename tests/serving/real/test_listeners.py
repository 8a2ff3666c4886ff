"""Where clients come in: unix sockets, IPv6, a full house, and a process out of descriptors."""

from __future__ import annotations

import itertools
import json
import re
import resource
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from support.processes import DEADLINE, Curl, lacking, wait_until
from support.proxy_process import running_proxy
from support.rawhttp import RawClient, connect, get, many_clients
from support.upstreams import ScriptedUpstream, UpstreamConnection


def test_unix_socket_listener(tmp_path: Path, unix_path: Path, echo_port: int, curl: Curl) -> None:
    """curl over a unix socket; its file goes when the proxy does."""
    with running_proxy(tmp_path, [echo_port], listen=[f"unix:{unix_path}"]) as proxy:
        proxy.err.wait_for(f"listening on unix:{unix_path}")
        done = curl("--unix-socket", unix_path, "http://any.example/over-unix")
        facts = json.loads(done.stdout)
    assert facts["path"] == "/over-unix"
    assert dict(facts["headers"])["host"] == "any.example"
    assert not unix_path.exists()


def test_stale_unix_socket_is_replaced(tmp_path: Path, unix_path: Path, echo_port: int) -> None:
    """The socket file of a killed predecessor is no obstacle; a living one is."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(unix_path))
    with running_proxy(tmp_path, [echo_port], listen=[f"unix:{unix_path}"]):
        assert get(str(unix_path), "/status/200").status == 200


def test_ipv6_listener(tmp_path: Path, echo_port: int, curl: Curl) -> None:
    """IPv6 and IPv4 side by side; the client's address is passed on as it is."""
    try:
        connect(("::1", 1)).close()
    except ConnectionRefusedError:
        pass
    except OSError:
        lacking("this machine has no IPv6 loopback")
    listen = ["[::1]:0", "127.0.0.1:0"]
    with running_proxy(tmp_path, [echo_port], listen=listen) as proxy:
        port = proxy.err.wait_for(r"listening on http://\[::1\]:(\d+)")[1]
        facts = json.loads(curl("-g", f"http://[::1]:{port}/six").stdout)
        assert dict(facts["headers"])["x-forwarded-for"] == "::1"
        assert dict(facts["headers"])["host"] == f"[::1]:{port}"
        four = int(proxy.err.wait_for(r"listening on http://127.0.0.1:(\d+)")[1])
        assert get(("127.0.0.1", four), "/four").status == 200


def test_host_name_listener(tmp_path: Path, echo_port: int, curl: Curl) -> None:
    """`localhost` as a listener is resolved, and the log says to what."""
    with running_proxy(tmp_path, [echo_port], listen=["localhost:0"]) as proxy:
        address = proxy.err.wait_for(r"listening on (http://\S+)")[1]
        assert curl("-g", f"{address}/status/200").stdout == b"status 200\n"


def test_300_clients_with_room_for_100(tmp_path: Path) -> None:
    """Clients beyond the limit wait in the backlog; never more than 100 are let in, all get in."""
    state = threading.Condition()
    inside, most = 0, 0

    def full_once() -> bool:
        return most >= 100

    def handler(connection: UpstreamConnection) -> None:
        nonlocal inside, most
        while True:
            connection.read_request()
            with state:
                inside += 1
                most = max(most, inside)
                state.notify_all()
                assert state.wait_for(full_once, DEADLINE)
                inside -= 1
            connection.answer()

    limits = {"max_client_conns": 100, "max_conns_per_upstream": 300}
    with (
        ScriptedUpstream(handler) as upstream,
        running_proxy(tmp_path, [upstream.port], limits=limits) as proxy,
    ):
        where = proxy.where
        with ThreadPoolExecutor(300) as pool:
            answers = list(pool.map(lambda number: get(where, f"/{number}"), range(300)))
        proxy.wait_until_quiet()
        proxy.err.wait_for(r"limits.max_client_conns \(100\) reached")
    assert Counter(answer.status for answer in answers) == {200: 300}
    assert most == 100


@pytest.mark.slow
def test_3000_clients_with_room_for_100(tmp_path: Path, echo_port: int) -> None:
    """The same over a longer time and without a rhythm, against uvicorn."""
    limits = {"max_client_conns": 100}
    with running_proxy(tmp_path, [echo_port], limits=limits) as proxy:
        where = proxy.where
        with ThreadPoolExecutor(200) as pool:
            answers = list(pool.map(lambda number: get(where, f"/{number}"), range(3000)))
        assert Counter(answer.status for answer in answers) == {200: 3000}
        proxy.wait_until_quiet()
        assert proxy.metrics()["proxy_requests_total"] == 3000


def _logged_at(line: str) -> float:
    stamp = re.match(r"(\S+ \S+),(\d{3}) - ", line)
    assert stamp is not None
    return datetime.fromisoformat(stamp[1]).timestamp() + int(stamp[2]) / 1000


def test_out_of_file_descriptors(tmp_path: Path, echo_port: int) -> None:
    """With no descriptor left clients wait; the log says so once a second; then all is well."""
    complaint = r"cannot accept on .*: .*Too many open files"
    with running_proxy(tmp_path, [echo_port]) as proxy:
        assert get(proxy.where, "/before").status == 200
        resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (48, 48))
        cpu = _cpu_seconds(proxy.pid)
        with many_clients(proxy.where, 60):
            proxy.err.wait_for(complaint)
            wait_until(lambda: len(proxy.err.matching(complaint)) >= 3, "three complaints")
            busy = _cpu_seconds(proxy.pid) - cpu
        times = [_logged_at(line) for line in proxy.err.matching(complaint)]
        proxy.wait_until_quiet()
        assert get(proxy.where, "/after").status == 200
        with RawClient(proxy.where) as client:
            for number in range(20):
                assert client.get(f"/{number}").status == 200
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) > 0.5, gaps  # a second, but for how long it takes to write
    assert busy < 1, "it waits, and does not spin"


def test_fewer_open_files_than_the_limits_need(tmp_path: Path, echo_port: int) -> None:
    """Clients get no more than half of what there is, so that each can still be served."""
    prefix = ("sh", "-c", 'ulimit -n 64; exec "$@"', "sh")
    with running_proxy(tmp_path, [echo_port], prefix=prefix) as proxy:
        proxy.err.wait_for("open files are limited to 64 .*: limits.max_client_conns is 16 instead")
        with many_clients(proxy.where, 60):
            proxy.err.wait_for(r"limits.max_client_conns \(16\) reached")
        for number in range(40):
            assert get(proxy.where, f"/{number}").status == 200


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_client_that_says_nothing_is_closed(tmp_path: Path, echo_port: int) -> None:
    """`idle_ms` ends a silent connection, `head_ms` one that never finishes its head with a 408."""
    timeouts = {"idle_ms": 1000, "head_ms": 300}
    with running_proxy(tmp_path, [echo_port], timeouts=timeouts) as proxy:
        with RawClient(proxy.where) as silent, RawClient(proxy.where) as slow:
            slow.send(b"GET / HTTP/1.1\r\nHost:")
            started = time.monotonic()
            assert silent.read_to_end() == b""
            assert slow.read_response().status == 408
            assert slow.read_to_end() == b""
        assert time.monotonic() - started < DEADLINE / 2
        proxy.wait_until_quiet()
