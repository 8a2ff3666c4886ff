"""Several workers: all of them serve, under the limits of one proxy, with the counters of one."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from support.crews import clients_of_all, is_running, owner_of, pids_of
from support.processes import Curl, children, wait_until
from support.proxy_process import PROXY, ProxyProcess, config_text, running_proxy
from support.rawhttp import RawClient, get, many_clients, request
from support.upstreams import ScriptedUpstream, UpstreamConnection, named
from trio_proxy.server.cores import usable_cores


def test_clients_are_dealt_out_among_the_workers(tmp_path: Path, echo_port: int) -> None:
    """Each worker serves some of them, at the one address that is logged once."""
    with running_proxy(tmp_path, [echo_port], workers=3) as proxy:
        proxy.err.wait_for(rf"started from \S+proxy.toml \(pid {proxy.pid}\)")
        with clients_of_all(proxy) as clients:
            assert len(clients) == 3
            for client in clients.values():
                assert client.get("/status/200").status == 200
        assert len(proxy.err.matching("listening on ")) == 1
        assert len(proxy.err.matching("metrics on ")) == 1
        pids = pids_of(proxy).values()
    assert not any(map(is_running, pids))
    assert len(proxy.err.matching("stopped$")) == 1


def test_counters_add_up(tmp_path: Path, echo_port: int) -> None:
    """To exactly what was asked of all workers, right after the last answer."""
    with running_proxy(tmp_path, [echo_port], workers=2) as proxy, ExitStack() as stack:
        clients = stack.enter_context(clients_of_all(proxy))
        for number in range(1, 31):
            assert clients[1 + number % 2].get("/status/200").status == 200
            assert clients[1].get("/status/404").status == 404
            assert proxy.metrics()["proxy_requests_total"] == 2 * number
        values = proxy.metrics()
        assert values["proxy_client_connections"] >= 2
    assert values['proxy_responses_total{status_class="2xx"}'] == 30
    assert values['proxy_responses_total{status_class="4xx"}'] == 30
    assert values["proxy_request_duration_seconds_count"] == 60
    upstream = f'upstream="127.0.0.1:{echo_port}"'
    assert values[f'proxy_upstream_requests_total{{pool="default",{upstream}}}'] == 60
    assert values[f'proxy_upstream_up{{pool="default",{upstream}}}'] == 1
    assert values[f'proxy_upstream_connections{{pool="default",state="idle",{upstream}}}'] == 2
    assert values["proxy_workers"] == 2
    assert values["proxy_worker_restarts_total"] == 0


def test_a_unix_socket_is_served_by_all(tmp_path: Path, unix_path: Path) -> None:
    """Each takes what comes; the socket's file goes with the supervisor."""
    limits = {"max_client_conns": 2}
    with (
        ScriptedUpstream() as upstream,
        running_proxy(
            tmp_path, [upstream.port], listen=[f"unix:{unix_path}"], workers=2, limits=limits
        ) as proxy,
    ):
        proxy.err.wait_for(f"listening on unix:{unix_path}")
        # One client each: a worker that has one takes no other.
        with many_clients(str(unix_path), 2) as clients:
            for client in clients:
                assert client.get("/").status == 200
        proxy.wait_until_quiet()
        assert get(str(unix_path), "/").status == 200
    assert not unix_path.exists()


def test_a_name_and_several_ports_of_the_systems_choice(
    tmp_path: Path, echo_port: int, curl: Curl
) -> None:
    """Each address is bound once for all workers, and told by its real port."""
    listen = ["127.0.0.1:0", "127.0.0.1:0", "localhost:0"]
    with running_proxy(tmp_path, [echo_port], listen=listen, workers=2) as proxy:
        urls = [line.rpartition(" ")[2] for line in proxy.err.matching("listening on http:")]
        assert len(set(urls)) == 3
        for url in urls:
            assert curl("-g", f"{url}/status/200").stdout == b"status 200\n"


def test_a_port_that_is_taken_is_not_shared(tmp_path: Path, echo_port: int) -> None:
    """Two proxies of one user do not share a port by mistake: status 1 and one line."""
    with running_proxy(tmp_path, [echo_port], workers=2) as proxy:
        path = tmp_path / "second.toml"
        path.write_text(
            config_text([echo_port], listen=[f"127.0.0.1:{proxy.port}"], metrics=False, workers=2)
        )
        with ProxyProcess("run", path, cwd=tmp_path) as second:
            assert second.wait_for_end() == 1
        assert re.fullmatch(
            rf"trio-proxy: cannot listen on 127.0.0.1:{proxy.port}: Address already in use",
            second.err.text(),
        )


def test_as_many_workers_as_cores(tmp_path: Path, echo_port: int) -> None:
    """`auto` counts the cores that there are to use."""
    with running_proxy(tmp_path, [echo_port], workers="auto") as proxy:
        assert get(proxy.where, "/status/200").status == 200
        count = len(pids_of(proxy)) if usable_cores() > 1 else 1
    assert count == usable_cores()


def test_one_worker_is_the_one_process(tmp_path: Path, echo_port: int) -> None:
    """It has no children, and not even loads what several need."""
    with running_proxy(tmp_path, [echo_port]) as proxy:
        parents = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split()
        assert parents == []
        assert "proxy_workers" not in proxy.metrics()
    program = (
        "import sys, trio_proxy.cli.commands\n"
        "names = ('supervisor', 'crew', 'worker', 'worker_process', 'control', 'division')\n"
        "sys.exit(any(f'trio_proxy.server.{name}' in sys.modules for name in names))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# What is divided, and what is shared


def test_a_sticky_cookie_is_understood_by_all_workers(tmp_path: Path) -> None:
    """Although no secret is configured: who has the cookie meets the same upstream everywhere."""
    balance = {"sticky_cookie": "route"}
    with (
        ScriptedUpstream(named(b"one")) as one,
        ScriptedUpstream(named(b"two")) as two,
        running_proxy(tmp_path, [one.port, two.port], workers=2, balance=balance) as proxy,
        clients_of_all(proxy) as clients,
    ):
        first = clients[1].get("/")
        cookie = (first.header("set-cookie") or "").partition(";")[0]
        assert cookie.startswith("route=")
        for client in clients.values():
            for _ in range(4):
                answer = client.get("/", f"Cookie: {cookie}")
                assert answer.body == first.body
                assert answer.header("set-cookie") is None


def test_the_rate_limit_is_that_of_the_whole(tmp_path: Path, echo_port: int) -> None:
    """Each of two workers grants half of the burst, whoever asks."""
    limit = {"rate": 0.001, "burst": 20, "key": "global"}
    with (
        running_proxy(tmp_path, [echo_port], workers=2, rate_limit=limit) as proxy,
        clients_of_all(proxy) as clients,
    ):
        for client in clients.values():
            answers = [client.get("/status/200").status for _ in range(15)]
            assert Counter(answers) == {200: 10, 429: 5}
        assert proxy.metrics()['proxy_rejected_total{reason="rate_limited"}'] == 10


def answer_nobody(connection: UpstreamConnection) -> None:
    connection.wait_for_end()


def test_the_cap_on_connections_to_an_upstream_is_divided(tmp_path: Path) -> None:
    """Of four, two for each worker: its third request waits, with the other worker's idle."""
    with (
        ScriptedUpstream(answer_nobody) as upstream,
        running_proxy(
            tmp_path,
            [{"host": "127.0.0.1", "port": upstream.port, "max_conns": 4}],
            workers=2,
            timeouts={"drain_ms": 100},
        ) as proxy,
        ExitStack() as stack,
    ):
        clients: list[RawClient] = []
        chosen = pids_of(proxy)[1]
        while len(clients) < 3:
            client = stack.enter_context(RawClient(proxy.where))
            if owner_of(proxy, client) == chosen:
                client.send(request("GET", "/"))
                clients.append(client)
        key = 'proxy_queue_length{pool="default"}'
        wait_until(lambda: proxy.metrics()[key] == 1, "one is in the queue")
        wait_until(lambda: upstream.connections == 2, "two have a connection")


def test_a_cap_smaller_than_the_number_of_workers_is_told(tmp_path: Path, echo_port: int) -> None:
    """In the log, by its key, at the start and at a reload."""
    limits = {"max_queue": 2}
    with running_proxy(tmp_path, [echo_port], workers=3, limits=limits) as proxy:
        line = "limits.max_queue is 2: each of 3 workers has 1"
        proxy.err.wait_for(line)
        proxy.reload()
        wait_until(lambda: len(proxy.err.matching(line)) == 2, "it is told again")


# The log


def test_lines_of_any_length_stay_whole_in_a_pipe(tmp_path: Path, echo_port: int) -> None:
    """Lines of many kilobytes, by two processes at once: none has another in its middle."""
    limits = {"max_target_bytes": 30_000}
    # Bytes that the log writes as four characters each.
    target = "/status/200?" + "\\" * 20_000
    with (
        running_proxy(tmp_path, [echo_port], workers=2, limits=limits) as proxy,
        clients_of_all(proxy) as clients,
    ):
        for _ in range(100):
            for client in clients.values():
                client.send(request("GET", target) + request("GET", "/status/200"))
            for client in clients.values():
                assert [client.read_response().status for _ in range(2)] == [200, 200]
        done = r'"GET /status/200\S* HTTP/1\.1" 200 .* phase=stream$'
        wait_until(lambda: len(proxy.err.matching(done)) == 400, "every line is written")
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - trio_proxy\.\w+ - [A-Z]+ - "
    lines = proxy.err.text().splitlines()
    assert [line[:200] for line in lines if not re.match(stamp, line)] == []
    assert [line[:200] for line in lines if len(re.findall(stamp, line)) != 1] == []


def test_messages_say_of_which_worker_they_are(tmp_path: Path) -> None:
    """What each finds out by itself, each logs by itself; access lines are as ever."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        down = nobody.getsockname()[1]
        with (
            ScriptedUpstream() as upstream,
            running_proxy(tmp_path, [upstream.port, down], workers=2) as proxy,
            clients_of_all(proxy) as clients,
        ):
            for number, client in clients.items():
                while not proxy.err.matching(rf" - WARNING - worker {number}: upstream \S+ .*down"):
                    assert client.get("/").status == 200
            proxy.err.wait_for(r"trio_proxy\.access - INFO - 127\.0\.0\.1 \"GET ")


def test_no_stderr_at_all(tmp_path: Path, unix_path: Path, echo_port: int) -> None:
    """Started with descriptor 2 closed, workers serve all the same."""
    before = children()
    (tmp_path / "proxy.toml").write_text(
        config_text([echo_port], listen=[f"unix:{unix_path}"], metrics=False, workers=2)
    )
    argv = ["sh", "-c", 'exec "$@" 2>&-', "sh", *PROXY, "run", "proxy.toml"]
    with subprocess.Popen(argv, cwd=tmp_path) as process:
        wait_until(unix_path.exists, "it listens")
        with RawClient(str(unix_path)) as client:
            assert client.get("/status/200").status == 200
        process.terminate()
        assert process.wait() == 0
    assert children() == before
