"""A worker dies: those of the others notice nothing, and another takes its place."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.crews import (
    asking,
    clients_of_all,
    is_running,
    owner_of,
    pids_of,
    wait_for_successor,
    wait_until_gone,
)
from support.processes import no_descriptor_left, wait_until
from support.proxy_process import ProxyProcess, running_proxy, write_config
from support.rawhttp import RawClient, get, request
from support.stopping import Gate
from support.traffic import Traffic
from support.upstreams import ScriptedUpstream


def kill(proxy: ProxyProcess, number: int) -> int:
    """End a worker at once, and wait until the supervisor has noticed; its process id."""
    pid = pids_of(proxy)[number]
    os.kill(pid, signal.SIGKILL)
    proxy.err.wait_for(rf"worker {number} \(pid {pid}\) died: signal 9, restarting")
    return pid


@contextmanager
def under_traffic(proxy: ProxyProcess, spared: RawClient) -> Iterator[list[Traffic]]:
    """One loop on a kept connection, two with a new connection for each request."""

    def new_connection() -> None:
        assert get(where, "/status/200").status == 200

    where = proxy.where
    with ExitStack() as stack:
        asks = [asking(spared), new_connection, new_connection]
        loops = [stack.enter_context(Traffic(ask)) for ask in asks]
        for loop in loops:
            loop.wait_for_more()
        yield loops


def test_who_is_connected_to_another_worker_notices_nothing(tmp_path: Path, echo_port: int) -> None:
    """kill -9 under load: not one failure on the other worker's connection, from first to last.

    Of the new connections only one that the dead worker had accepted can fail, and none after.
    """
    with (
        running_proxy(tmp_path, [echo_port], workers=2, logging={"access": False}) as proxy,
        clients_of_all(proxy) as clients,
        under_traffic(proxy, clients[2]) as (kept, *fresh),
    ):
        for kills in (1, 2):
            pid = kill(proxy, 1)
            for loop in (kept, *fresh):
                loop.wait_for_more()
            failed = [len(loop.failures) for loop in fresh]
            assert max(failed) <= kills
            wait_for_successor(proxy, 1, pid)
            for loop in (kept, *fresh):
                loop.wait_for_more()
            assert [len(loop.failures) for loop in fresh] == failed
        assert kept.failures == []


def test_all_workers_serve_again(tmp_path: Path, echo_port: int) -> None:
    """The successor has the place of the one that died; what that one counted is not lost."""
    with running_proxy(tmp_path, [echo_port], workers=2) as proxy:
        with clients_of_all(proxy) as clients:
            for client in clients.values():
                for _ in range(5):
                    assert client.get("/status/200").status == 200
            assert proxy.metrics()["proxy_requests_total"] == 10
            pid = kill(proxy, 1)
            values = proxy.metrics()
            assert values["proxy_requests_total"] == 10
            assert values["proxy_client_connections"] < len(clients) * 40
            assert clients[2].get("/status/200").status == 200
        wait_for_successor(proxy, 1, pid)
        wait_until(lambda: proxy.metrics()["proxy_workers"] == 2, "both are counted")
        with clients_of_all(proxy) as clients:
            assert clients[1].get("/status/200").status == 200
        values = proxy.metrics()
        assert values["proxy_requests_total"] == 12
        assert values["proxy_worker_restarts_total"] == 1
        assert len(proxy.err.matching(rf"worker 1 \(pid {pid}\) died")) == 1


def test_one_that_dies_again_and_again_is_held_back(tmp_path: Path, echo_port: int) -> None:
    """At once, then after ever longer pauses; meanwhile the other serves whoever comes."""
    with running_proxy(tmp_path, [echo_port], workers=2) as proxy:
        for pause in ("at once", "in 0.5 s", "in 1 s", "in 2 s"):
            pid = kill(proxy, 2)
            proxy.err.wait_for(rf"worker 2 \(pid {pid}\) died: signal 9, restarting {pause}$")
            if pause != "in 2 s":
                wait_for_successor(proxy, 2, pid)
        # The kernel deals half of them to the socket of the one that is not there.
        for _ in range(40):
            assert get(proxy.where, "/status/200").status == 200
        assert proxy.metrics()["proxy_workers"] == 1
        wait_for_successor(proxy, 2, pid)
        other = pids_of(proxy)[1]
        with clients_of_all(proxy) as clients:
            assert owner_of(proxy, clients[1]) == other
            assert clients[2].get("/status/200").status == 200


def test_with_all_workers_dead_clients_wait(tmp_path: Path, echo_port: int) -> None:
    """Nobody is refused: the first one that is back serves who came in the meantime."""
    with running_proxy(tmp_path, [echo_port], workers=2) as proxy, ExitStack() as stack:
        for pid in pids_of(proxy).values():
            os.kill(pid, signal.SIGKILL)
        clients = [stack.enter_context(RawClient(proxy.where)) for _ in range(20)]
        for client in clients:
            client.send(request("GET", "/status/200"))
        for client in clients:
            assert client.read_response().status == 200


def test_who_has_no_descriptors_to_stand_in_serves_on(tmp_path: Path, echo_port: int) -> None:
    """Its own connections have nothing to do with the death of another."""
    with (
        running_proxy(tmp_path, [echo_port], workers=2) as proxy,
        clients_of_all(proxy) as clients,
    ):
        assert clients[1].get("/status/200").status == 200
        one, other = pids_of(proxy)[1], pids_of(proxy)[2]
        with no_descriptor_left(one):
            kill(proxy, 2)
            why = r"cannot stand in for worker 2: .*Too many open files"
            proxy.err.wait_for(rf"worker 1 \(pid {one}\) {why}")
            wait_for_successor(proxy, 2, other)
            assert clients[1].get("/status/200").status == 200
        assert pids_of(proxy)[1] == one


def test_a_worker_that_is_told_to_end_finishes_and_is_replaced(tmp_path: Path) -> None:
    """SIGTERM for one of them is a drain of that one."""
    gate = Gate()
    with (
        ScriptedUpstream(gate) as upstream,
        running_proxy(tmp_path, [upstream.port], workers=2) as proxy,
        clients_of_all(proxy) as clients,
    ):
        clients[1].send(request("GET", "/"))
        gate.arrived.wait()
        pid = pids_of(proxy)[1]
        os.kill(pid, signal.SIGTERM)
        proxy.err.wait_for(r"worker 1: draining \d+ client connections")
        wait_until(lambda: proxy.metrics()["proxy_workers"] == 1, "it is known to leave")
        other = pids_of(proxy)[2]
        # The kernel deals half of these to the one that accepts nobody.
        for _ in range(40):
            with RawClient(proxy.where) as client:
                assert owner_of(proxy, client) == other
        gate.go_on.set()
        assert clients[1].read_response().body == b"finished\n"
        proxy.err.wait_for(rf"worker 1 \(pid {pid}\) ended: status 0, restarting at once")
        wait_for_successor(proxy, 1, pid)
        assert clients[2].get("/").body == b"finished\n"


def test_workers_do_not_outlive_their_supervisor(tmp_path: Path) -> None:
    """kill -9 of the supervisor: they finish what is under way, accept nobody, and end."""
    gate = Gate()
    with ScriptedUpstream(gate) as upstream:
        write_config(tmp_path, [upstream.port], workers=2)
        with ProxyProcess("run", "proxy.toml", cwd=tmp_path) as proxy:
            proxy.wait_until_started()
            pids = pids_of(proxy).values()
            with clients_of_all(proxy) as clients:
                clients[1].send(request("GET", "/"))
                gate.arrived.wait()
                proxy.signal(signal.SIGKILL)
                for number in (1, 2):
                    proxy.err.wait_for(f"worker {number}: the supervisor has gone")
                assert clients[2].read_to_end() == b""
                gate.go_on.set()
                assert clients[1].read_response().body == b"finished\n"
            wait_until_gone(*pids)
            assert proxy.wait() == -signal.SIGKILL


def test_no_worker_can_serve(tmp_path: Path) -> None:
    """Status 1 and the reason, once more than one try would come to nothing."""
    store = "rediss://127.0.0.1/0?ssl_ca_certs=/nowhere"
    write_config(tmp_path, [1], workers=2, rate_limit={"store": store})
    with ProxyProcess("run", "proxy.toml", cwd=tmp_path) as proxy:
        assert proxy.wait_for_end() == 1
    last = proxy.err.text().splitlines()[-1]
    assert last.startswith("trio-proxy: rate_limit.store: ")
    assert not proxy.err.matching("restarting|listening")


def test_workers_that_crash_at_their_start(tmp_path: Path) -> None:
    """Status 1, and which of them ended how."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'trio_proxy.server.workers.worker' in sys.orig_argv:\n    os._exit(3)\n"
    )
    write_config(tmp_path, [1], workers=2)
    env = {"PYTHONPATH": str(tmp_path)}
    with ProxyProcess("run", "proxy.toml", cwd=tmp_path, env=env) as proxy:
        assert proxy.wait_for_end() == 1
    (line,) = proxy.err.text().splitlines()
    assert line.startswith("trio-proxy: worker 1 (pid ")
    assert line.endswith(") ended: status 3")


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed(tmp_path: Path, echo_port: int) -> None:
    """It has not reported for half a minute; meanwhile metrics are answered without it."""
    with (
        running_proxy(tmp_path, [echo_port], workers=2) as proxy,
        clients_of_all(proxy) as clients,
    ):
        assert clients[1].get("/status/200").status == 200
        proxy.wait_until_started()
        pid = pids_of(proxy)[1]
        before = proxy.metrics()["proxy_requests_total"]
        os.kill(pid, signal.SIGSTOP)
        assert proxy.metrics()["proxy_requests_total"] == before
        proxy.err.wait_for(rf"worker 1 \(pid {pid}\) hangs: killed", seconds=60)
        wait_for_successor(proxy, 1, pid)
        assert not is_running(pid)
