"""SIGHUP with several workers: one reads the file, all take it, and nobody is turned away."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.crews import asking, clients_of_all, pids_of, wait_for_successor
from support.processes import echo_on_port, wait_until
from support.proxy_process import ProxyProcess, running_proxy, write_config
from support.rawhttp import RawClient, connect, get
from support.traffic import Traffic
from support.upstreams import ScriptedUpstream, named

SUCCESS = 'proxy_config_reloads_total{result="success"}'
FAILURE = 'proxy_config_reloads_total{result="failure"}'


def rewrite(tmp_path: Path, upstreams: list[int], **config: Any) -> None:
    config.setdefault("workers", 2)
    write_config(tmp_path, upstreams, **config)


def test_all_workers_take_the_new_settings(tmp_path: Path) -> None:
    """Upstreams, log level and format: the next request of each client finds them in force."""
    with (
        ScriptedUpstream(named(b"old")) as old,
        ScriptedUpstream(named(b"new")) as new,
        running_proxy(tmp_path, [old.port], workers=2) as proxy,
        clients_of_all(proxy) as clients,
    ):
        assert {client.get("/").body for client in clients.values()} == {b"old"}
        pids = pids_of(proxy)
        rewrite(tmp_path, [new.port], logging={"format": "json", "level": "debug"})
        proxy.signal(signal.SIGHUP)
        proxy.err.wait_for('"Config reloaded from ')
        assert {client.get("/json").body for client in clients.values()} == {b"new"}
        wait_until(lambda: len(proxy.err.matching(r"^\{.*/json")) == 2, "both log as told")
        for line in proxy.err.matching("/json"):
            assert json.loads(line)["status"] == 200
        assert len(proxy.err.matching("Config reloaded")) == 1
        assert proxy.metrics()[SUCCESS] == 1
        names = {key for key in proxy.metrics() if key.startswith("proxy_upstream_requests_t")}
        assert names == {
            f'proxy_upstream_requests_total{{pool="default",upstream="127.0.0.1:{new.port}"}}'
        }
        assert pids_of(proxy) == pids


def test_reloads_under_traffic(tmp_path: Path, echo_port: int) -> None:
    """No connection is refused and no request fails, also while listeners come and go."""

    def new_connection() -> None:
        assert get(where, "/status/200").status == 200

    quiet = {"access": False}
    with (
        echo_on_port() as other,
        running_proxy(tmp_path, [echo_port], workers=2, logging=quiet) as proxy,
        clients_of_all(proxy) as clients,
        ExitStack() as stack,
    ):
        where = proxy.where
        asks = [new_connection, *map(asking, clients.values())]
        loops = [stack.enter_context(Traffic(ask)) for ask in asks]
        for number in range(12):
            rewrite(
                tmp_path,
                [[echo_port], [echo_port, other], [other]][number % 3],
                listen=["127.0.0.1:0", "127.0.0.2:0"][: 1 + number % 2],
                logging={**quiet, "format": ["text", "json"][number % 2]},
            )
            proxy.reload()
            for loop in loops:
                loop.wait_for_more()
        stack.close()
        assert [loop.failures for loop in loops] == [[], [], []]
        values = proxy.metrics()
        assert values[SUCCESS] == 12
        assert values["proxy_requests_total"] == sum(loop.asked for loop in loops)
        assert values["proxy_worker_restarts_total"] == 0


def test_listeners_come_and_go(tmp_path: Path, unix_path: Path, echo_port: int) -> None:
    """For all workers at once; the one that stays keeps its port, and it is all logged once."""
    with running_proxy(tmp_path, [echo_port], workers=2) as proxy:
        rewrite(tmp_path, [echo_port], listen=["127.0.0.1:0", "127.0.0.2:0", f"unix:{unix_path}"])
        proxy.reload()
        port = int(proxy.err.wait_for(r"listening on http://127.0.0.2:(\d+)")[1])
        for _ in range(20):
            assert get(("127.0.0.2", port), "/two").status == 200
            assert get(str(unix_path), "/three").status == 200
        rewrite(tmp_path, [echo_port])
        proxy.reload()
        proxy.err.wait_for(f"no longer listening on http://127.0.0.2:{port}")
        with pytest.raises(ConnectionRefusedError):
            connect(("127.0.0.2", port))
        assert not unix_path.exists()
        assert get(proxy.where, "/still").status == 200
        assert len(proxy.err.matching(r"listening on http://127.0.0.1:")) == 1
        assert len(proxy.err.matching(r" - listening on unix:")) == 1


def test_the_metrics_port_comes_and_goes(tmp_path: Path, echo_port: int) -> None:
    """It is the supervisor's, and moves as ever."""
    with running_proxy(tmp_path, [echo_port], workers=2, metrics=False) as proxy:
        rewrite(tmp_path, [echo_port])
        proxy.reload()
        assert proxy.metrics()[SUCCESS] == 1
        port = proxy.metrics_port
        rewrite(tmp_path, [echo_port], metrics=False)
        proxy.reload()
        with pytest.raises(ConnectionRefusedError):
            connect(("127.0.0.1", port))


def test_a_bad_file_changes_nothing(tmp_path: Path, echo_port: int) -> None:
    """It is refused once, before any worker hears of it."""
    with (
        running_proxy(tmp_path, [echo_port], workers=2) as proxy,
        clients_of_all(proxy) as clients,
    ):
        rewrite(tmp_path, [1], timeouts={"raed_ms": 1})
        assert "timeouts.raed_ms" in proxy.refused_reload()
        rewrite(tmp_path, [1], listen=["127.0.0.1:0", f"127.0.0.1:{echo_port}"])
        assert f"cannot listen on 127.0.0.1:{echo_port}" in proxy.refused_reload()
        for client in clients.values():
            assert client.get("/status/200").status == 200
        assert proxy.metrics()[FAILURE] == 2
        assert len(proxy.err.matching("reload refused")) == 2


def test_what_a_worker_cannot_do_changes_nothing(tmp_path: Path, echo_port: int) -> None:
    """One tries it before the others; new listeners are closed again."""
    with (
        running_proxy(tmp_path, [echo_port], workers=2) as proxy,
        clients_of_all(proxy) as clients,
    ):
        store = "rediss://127.0.0.1/0?ssl_ca_certs=/nowhere"
        listen = ["127.0.0.1:0", "127.0.0.2:39199"]
        rewrite(tmp_path, [1], listen=listen, rate_limit={"store": store})
        assert "rate_limit.store: " in proxy.refused_reload()
        with pytest.raises(ConnectionRefusedError):
            connect(("127.0.0.2", 39199))
        for client in clients.values():
            assert client.get("/status/200").status == 200
        assert proxy.metrics()[FAILURE] == 1
        rewrite(tmp_path, [echo_port])
        proxy.reload()
        for client in clients.values():
            assert client.get("/status/200").status == 200
        assert proxy.metrics()["proxy_worker_restarts_total"] == 0


@pytest.mark.parametrize(("before", "after"), [(2, 3), (2, 1), (1, 2)])
def test_the_number_of_workers_changes_at_the_next_start(
    tmp_path: Path, echo_port: int, before: int, after: int
) -> None:
    """The log says so, and everything else is taken."""
    with running_proxy(tmp_path, [echo_port], workers=before) as proxy:
        rewrite(tmp_path, [echo_port], workers=after)
        proxy.reload()
        proxy.err.wait_for("workers: a change takes effect at the next start")
        assert get(proxy.where, "/status/200").status == 200
        assert proxy.metrics().get("proxy_workers", 1) == before


def test_a_worker_that_was_not_there_starts_with_the_new_settings(tmp_path: Path) -> None:
    """One is held back while the others reload; both old and new listeners are served meanwhile."""
    with (
        ScriptedUpstream(named(b"old")) as old,
        ScriptedUpstream(named(b"new")) as new,
        running_proxy(tmp_path, [old.port], workers=2) as proxy,
    ):
        pid = _held_back(proxy)
        rewrite(tmp_path, [new.port], listen=["127.0.0.1:0", "127.0.0.2:0"])
        proxy.reload()
        port = int(proxy.err.wait_for(r"listening on http://127.0.0.2:(\d+)")[1])
        for _ in range(20):
            assert get(proxy.where, "/").body == b"new"
            assert get(("127.0.0.2", port), "/").body == b"new"
        wait_for_successor(proxy, 2, pid)
        with clients_of_all(proxy) as clients:
            assert {client.get("/").body for client in clients.values()} == {b"new"}
        for _ in range(20):
            assert get(("127.0.0.2", port), "/").body == b"new"


def _held_back(proxy: ProxyProcess) -> int:
    """Kill a worker until its successor has to wait for two seconds; its last process id."""
    pauses = ("at once", "in 0.5 s", "in 1 s", "in 2 s")
    for pause in pauses:
        pid = pids_of(proxy)[2]
        os.kill(pid, signal.SIGKILL)
        proxy.err.wait_for(rf"worker 2 \(pid {pid}\) died: signal 9, restarting {pause}$")
        if pause != pauses[-1]:
            wait_for_successor(proxy, 2, pid)
    return pid


def test_hangups_without_end(tmp_path: Path, echo_port: int) -> None:
    """Many SIGHUPs, and a worker dies among them: all is well in the end."""
    with running_proxy(tmp_path, [echo_port], workers=2) as proxy:
        pid = pids_of(proxy)[1]
        for number in range(20):
            proxy.signal(signal.SIGHUP)
            if number == 5:
                os.kill(pid, signal.SIGKILL)
        wait_for_successor(proxy, 1, pid)
        proxy.reload()
        with clients_of_all(proxy) as clients, RawClient(proxy.where) as another:
            for client in (*clients.values(), another):
                assert client.get("/status/200").status == 200
        assert not proxy.err.matching("refused")
