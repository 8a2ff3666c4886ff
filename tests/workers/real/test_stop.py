"""SIGTERM with several workers: all drain, nobody is left, and the end is bounded."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from support.crews import beginning_workers, clients_of_all, is_running, pids_of
from support.processes import DEADLINE, wait_until
from support.proxy_process import ProxyProcess, running_proxy, write_config
from support.rawhttp import RawClient, request
from support.stopping import DELAYS, Gate, Reader, endless, refuses, starting
from support.upstreams import ScriptedUpstream

#: Far below every `drain_ms` here, and generous for a busy machine.
AT_ONCE = 10.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_under_way_are_finished_by_all(tmp_path: Path, number: signal.Signals) -> None:
    """One on each worker is answered; idle connections end, new ones are refused; status 0."""
    gate, pid_file = Gate(), tmp_path / "proxy.pid"
    with (
        ScriptedUpstream(gate) as upstream,
        running_proxy(tmp_path, [upstream.port], workers=2, pid_file=str(pid_file)) as proxy,
    ):
        assert pid_file.read_text() == f"{proxy.pid}\n"
        pids = pids_of(proxy).values()
        with clients_of_all(proxy) as clients, RawClient(proxy.where) as idle:
            for client in clients.values():
                client.send(request("GET", "/"))
            wait_until(lambda: upstream.connections == 2, "both requests arrive")
            proxy.signal(number)
            proxy.err.wait_for(f"{number.name}: draining 2 workers")
            assert idle.read_to_end() == b""
            wait_until(lambda: refuses(proxy), "new connections are refused")
            assert proxy.metrics()["proxy_requests_in_flight"] == 2
            gate.go_on.set()
            for client in clients.values():
                answer = client.read_response()
                assert (answer.status, answer.body) == (200, b"finished\n")
                assert answer.header("connection") == "close"
        assert proxy.wait_for_end() == 0
        assert proxy.err.text().endswith("- stopped")
        assert not any(map(is_running, pids))
        assert not pid_file.exists()
        assert not proxy.err.matching("died|killed|restarting")


def test_a_signal_to_every_process_is_one_drain(tmp_path: Path) -> None:
    """As a service manager sends it; requests under way are finished all the same."""
    gate = Gate()
    with (
        ScriptedUpstream(gate) as upstream,
        running_proxy(tmp_path, [upstream.port], workers=2) as proxy,
        clients_of_all(proxy) as clients,
    ):
        for client in clients.values():
            client.send(request("GET", "/"))
        wait_until(lambda: upstream.connections == 2, "both requests arrive")
        proxy.signal(signal.SIGTERM)
        for number, pid in pids_of(proxy).items():
            proxy.err.wait_for(f"worker {number}: draining")
            os.kill(pid, signal.SIGTERM)
        gate.go_on.set()
        for client in clients.values():
            assert client.read_response().body == b"finished\n"
        assert proxy.wait_for_end() == 0


def test_a_drain_is_bounded(tmp_path: Path) -> None:
    """`drain_ms` for what never ends, on each worker; all get their access lines."""
    timeouts = {"drain_ms": 300}
    with (
        ScriptedUpstream(endless) as upstream,
        running_proxy(tmp_path, [upstream.port], workers=2, timeouts=timeouts) as proxy,
        clients_of_all(proxy) as clients,
    ):
        for client in clients.values():
            client.send(request("GET", "/stream"))
            client.read_until(b"xxx")
        readers = [Reader(client) for client in clients.values()]
        started = time.monotonic()
        proxy.signal(signal.SIGTERM)
        assert proxy.wait_for_end() == 0
        assert 0.3 <= time.monotonic() - started < AT_ONCE
        for reader in readers:
            reader.join()
    assert len(proxy.err.matching("worker [12]: drain_ms is over: cutting 1 connections")) == 2
    assert len(proxy.err.matching(r"- trio_proxy.access - .*error=shutting_down")) == 2


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    """A drain of half a minute is cut short, on all workers."""
    with (
        ScriptedUpstream(endless) as upstream,
        running_proxy(tmp_path, [upstream.port], workers=2) as proxy,
        clients_of_all(proxy) as clients,
    ):
        pids = pids_of(proxy).values()
        for client in clients.values():
            client.send(request("GET", "/stream"))
            client.read_until(b"xxx")
        readers = [Reader(client) for client in clients.values()]
        proxy.signal(signal.SIGTERM)
        proxy.err.wait_for("worker 1: draining")
        proxy.err.wait_for("worker 2: draining")
        started = time.monotonic()
        proxy.signal(signal.SIGTERM)
        assert proxy.wait_for_end() == 0
        assert time.monotonic() - started < AT_ONCE
        for reader in readers:
            reader.join()
        assert not any(map(is_running, pids))
    assert len(proxy.err.matching(r"- trio_proxy.access - .* 200 ")) == 2


def test_a_drain_ends_workers_that_are_held_back_too(tmp_path: Path, echo_port: int) -> None:
    """One has died a moment ago; nobody waits for its successor."""
    with running_proxy(tmp_path, [echo_port], workers=2) as proxy:
        for pid in pids_of(proxy).values():
            os.kill(pid, signal.SIGKILL)
        proxy.err.wait_for("died: signal 9")
        proxy.signal(signal.SIGTERM)
        assert proxy.wait_for_end() == 0


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_the_start(tmp_path: Path, delay: float, number: signal.Signals) -> None:
    """The process ends by the signal or after a drain of nobody, and leaves none behind."""
    with starting(tmp_path, delay, workers=2) as proxy:
        proxy.signal(number)
        assert proxy.wait_for_end(2 * DEADLINE) in (-number, 0)
        assert "Exception" not in proxy.err.text()


def test_a_stop_while_workers_hang_in_their_start(tmp_path: Path, echo_port: int) -> None:
    """Nobody waits for them: they are ended at once, with status 0."""
    path = write_config(tmp_path, [echo_port], metrics=False, workers=2)
    with ProxyProcess("run", path, cwd=tmp_path) as proxy:
        wait_until(lambda: len(beginning_workers(proxy)) == 2, "there are two workers")
        workers = beginning_workers(proxy)
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            proxy.signal(signal.SIGTERM)
            assert proxy.wait_for_end() == 0
            proxy.err.wait_for("SIGTERM: ending the start")
            assert not any(map(is_running, workers))
        finally:
            for pid in filter(is_running, workers):
                os.kill(pid, signal.SIGKILL)


def test_hangups_during_the_start(tmp_path: Path) -> None:
    """One every 10 ms until it serves: they are ignored or obeyed."""
    with starting(tmp_path, 0, workers=2) as proxy:
        while not proxy.err.matching("started from"):
            proxy.signal(signal.SIGHUP)
            time.sleep(0.01)
        proxy.reload()
        with clients_of_all(proxy) as clients:
            assert {client.get("/").status for client in clients.values()} == {502}


def test_an_unwritable_pid_file_is_status_1(tmp_path: Path, echo_port: int) -> None:
    """The workers have begun by then, and are ended again."""
    path = write_config(tmp_path, [echo_port], pid_file="/nowhere/at.all", workers=2)
    with ProxyProcess("run", path, cwd=tmp_path) as proxy:
        assert proxy.wait_for_end() == 1
        assert "cannot write pid_file /nowhere/at.all" in proxy.err.text()
        assert not any(map(is_running, pids_of(proxy).values()))
