"""SIGHUP: a new configuration while clients come and go, and nobody notices but by its effect."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from websockets.sync.client import connect as connect_websocket

from support.processes import DEADLINE, echo_on_port, wait_until
from support.proxy_process import running_proxy, write_config
from support.rawhttp import RawClient, connect, get, request
from support.traffic import Traffic
from support.upstreams import ScriptedUpstream, UpstreamConnection, named


def test_upstreams_change(tmp_path: Path) -> None:
    """The next request goes to the new upstreams, also on a connection that was open before."""
    with (
        ScriptedUpstream(named(b"old")) as old,
        ScriptedUpstream(named(b"new")) as new,
        running_proxy(tmp_path, [old.port]) as proxy,
        RawClient(proxy.where) as client,
    ):
        assert client.get("/").body == b"old"
        write_config(tmp_path, [new.port])
        proxy.reload()
        assert client.get("/").body == b"new"
        assert get(proxy.where, "/").body == b"new"
        names = {key for key in proxy.metrics() if key.startswith("proxy_upstream_requests_t")}
        assert names == {
            f'proxy_upstream_requests_total{{pool="default",upstream="127.0.0.1:{new.port}"}}'
        }
        write_config(tmp_path, [new.port, old.port])
        proxy.reload()
        assert {client.get("/").body for _ in range(2)} == {b"old", b"new"}


def test_exchange_under_way_keeps_its_upstream(tmp_path: Path) -> None:
    """A request whose upstream is taken away is answered by it all the same."""

    def handler(connection: UpstreamConnection) -> None:
        connection.read_request()
        arrived.set()
        assert go_on.wait(DEADLINE)
        connection.answer(b"late")

    arrived, go_on = threading.Event(), threading.Event()
    with (
        ScriptedUpstream(handler) as old,
        ScriptedUpstream(named(b"new")) as new,
        running_proxy(tmp_path, [old.port]) as proxy,
        RawClient(proxy.where) as client,
    ):
        client.send(request("GET", "/"))
        assert arrived.wait(DEADLINE)
        write_config(tmp_path, [new.port])
        proxy.reload()
        proxy.err.wait_for(f"upstream 127.0.0.1:{old.port} removed, 1 exchange")
        go_on.set()
        assert client.read_response().body == b"late"
        assert client.get("/").body == b"new"


def test_removed_upstream_has_the_drains_time(tmp_path: Path) -> None:
    """An exchange that does not end within `drain_ms` is cut, and only that."""

    def handler(connection: UpstreamConnection) -> None:
        connection.read_request()
        arrived.set()
        connection.wait_for_end()

    arrived = threading.Event()
    timeouts = {"drain_ms": 100}
    with (
        ScriptedUpstream(handler) as old,
        ScriptedUpstream(named(b"new")) as new,
        running_proxy(tmp_path, [old.port], timeouts=timeouts) as proxy,
        RawClient(proxy.where) as client,
    ):
        client.send(request("GET", "/"))
        assert arrived.wait(DEADLINE)
        write_config(tmp_path, [new.port], timeouts=timeouts)
        proxy.reload()
        assert client.read_response().status == 503
        assert client.get("/").body == b"new"


def test_log_level_and_format_change(tmp_path: Path, echo_port: int) -> None:
    """Level, format and the access log's switch take effect at once."""
    with running_proxy(tmp_path, [echo_port]) as proxy:
        write_config(tmp_path, [echo_port], logging={"format": "json", "level": "debug"})
        proxy.signal(signal.SIGHUP)
        proxy.err.wait_for(
            r'"message": "Config reloaded from \S*proxy.toml \(logging level=debug\)"'
        )
        assert get(proxy.where, "/as-json").status == 200
        line = proxy.err.wait_for(r"^\{.*/as-json.*\}$")[0]
        assert json.loads(line)["status"] == 200
        write_config(tmp_path, [echo_port], logging={"access": False})
        proxy.reload()
        assert get(proxy.where, "/unlogged").status == 200
        write_config(tmp_path, [echo_port])
        proxy.reload()
        assert get(proxy.where, "/logged").status == 200
        proxy.err.wait_for(r' - trio_proxy.access - INFO - 127.0.0.1 "GET /logged HTTP/1.1" 200 ')
        assert not proxy.err.matching("/unlogged")


def test_listeners_come_and_go(tmp_path: Path, unix_path: Path, echo_port: int) -> None:
    """A new listener serves, a removed one refuses, the one that stays keeps its port."""
    with running_proxy(tmp_path, [echo_port]) as proxy, RawClient(proxy.where) as client:
        assert client.get("/one").status == 200
        listen = ["127.0.0.1:0", "127.0.0.2:0", f"unix:{unix_path}"]
        write_config(tmp_path, [echo_port], listen=listen)
        proxy.reload()
        port = int(proxy.err.wait_for(r"listening on http://127.0.0.2:(\d+)")[1])
        assert get(("127.0.0.2", port), "/two").status == 200
        assert get(str(unix_path), "/three").status == 200
        assert get(proxy.where, "/still").status == 200
        write_config(tmp_path, [echo_port])
        proxy.reload()
        proxy.err.wait_for(f"no longer listening on http://127.0.0.2:{port}")
        with pytest.raises(ConnectionRefusedError):
            connect(("127.0.0.2", port))
        assert not unix_path.exists()
        assert get(proxy.where, "/still").status == 200
        assert client.get("/same-connection").status == 200
        assert len(proxy.err.matching(r"listening on http://127.0.0.1:")) == 1


def test_metrics_port_comes_and_goes(tmp_path: Path, echo_port: int) -> None:
    """`metrics_listen` is taken on and given up like any listener."""
    with running_proxy(tmp_path, [echo_port], metrics=False) as proxy:
        write_config(tmp_path, [echo_port])
        proxy.reload()
        assert proxy.metrics()['proxy_config_reloads_total{result="success"}'] == 1
        port = proxy.metrics_port
        write_config(tmp_path, [echo_port], metrics=False)
        proxy.reload()
        with pytest.raises(ConnectionRefusedError):
            connect(("127.0.0.1", port))


def test_invalid_file_changes_nothing(tmp_path: Path, echo_port: int) -> None:
    """Each mistake is logged, everything goes on as it was, and a mended file is taken."""
    path = tmp_path / "proxy.toml"
    with running_proxy(tmp_path, [echo_port]) as proxy, RawClient(proxy.where) as client:
        assert client.get("/before").status == 200
        path.write_text("listen = [")
        assert "is not valid TOML" in proxy.refused_reload()
        write_config(tmp_path, [1], timeouts={"raed_ms": 1, "write_ms": -1})
        proxy.refused_reload()
        proxy.err.wait_for(r"reload refused: .*timeouts\.raed_ms: .*read_ms")
        proxy.err.wait_for(r"reload refused: .*timeouts\.write_ms: ")
        path.unlink()
        assert "cannot be read: No such file" in proxy.refused_reload()
        write_config(tmp_path, [1], listen=["127.0.0.1:0", f"127.0.0.1:{echo_port}"])
        assert f"cannot listen on 127.0.0.1:{echo_port}" in proxy.refused_reload()
        assert client.get("/after").status == 200
        assert get(proxy.where, "/after").status == 200
        values = proxy.metrics()
        assert values['proxy_config_reloads_total{result="failure"}'] == 4
        write_config(tmp_path, [echo_port])
        proxy.reload()
        assert client.get("/mended").status == 200


def test_open_websocket_survives(tmp_path: Path, echo_port: int) -> None:
    """A WebSocket lives through reloads, even through one that removes its upstream."""
    with echo_on_port() as other, running_proxy(tmp_path, [echo_port]) as proxy:
        url = f"ws://127.0.0.1:{proxy.port}/ws"
        with connect_websocket(url, proxy=None, close_timeout=DEADLINE) as websocket:
            for number, upstreams in enumerate([[echo_port], [echo_port, other], [other]]):
                write_config(tmp_path, upstreams, logging={"level": ["info", "debug"][number % 2]})
                proxy.reload()
                websocket.send(f"after reload {number}")
                assert websocket.recv(DEADLINE) == f"after reload {number}"


def reload_under_traffic(tmp_path: Path, ports: tuple[int, int], reloads: int) -> None:
    """Upstreams, listeners, level and format change under two loops of requests."""

    def new_connection() -> None:
        assert get(where, "/status/200").status == 200

    def kept_connection() -> None:
        assert client.get("/status/200").status == 200

    one, two = ports
    quiet = {"access": False}
    with running_proxy(tmp_path, [one], logging=quiet) as proxy, RawClient(proxy.where) as client:
        where = proxy.where
        files = proxy.open_files()
        with Traffic(new_connection) as fresh, Traffic(kept_connection) as kept:
            for number in range(reloads):
                asked = fresh.asked, kept.asked
                listen = ["127.0.0.1:0", "127.0.0.2:0"][: 1 + number % 2]
                upstreams = [[one], [one, two], [two]][number % 3]
                style = {"format": ["text", "json"][number % 2], "access": False}
                write_config(tmp_path, upstreams, listen=listen, logging=style)
                proxy.reload()
                wait_until(
                    lambda asked=asked: fresh.asked > asked[0] + 5 and kept.asked > asked[1] + 5,
                    "traffic goes on",
                )
        assert fresh.failures == []
        assert kept.failures == []
        values = proxy.metrics()
        assert values['proxy_config_reloads_total{result="success"}'] == reloads
        assert values["proxy_requests_total"] == fresh.asked + kept.asked
        # A second listener, and idle connections to either upstream.
        assert proxy.open_files() < files + 10


def test_20_reloads_under_traffic(tmp_path: Path, echo_port: int) -> None:
    """No connection is refused and no request fails."""
    with echo_on_port() as other:
        reload_under_traffic(tmp_path, (echo_port, other), 20)


@pytest.mark.slow
def test_300_reloads_under_traffic(tmp_path: Path, echo_port: int) -> None:
    """The same for longer."""
    with echo_on_port() as other:
        reload_under_traffic(tmp_path, (echo_port, other), 300)


def test_a_configuration_that_cannot_be_read_to_its_end_delays_no_stop(tmp_path: Path) -> None:
    """A FIFO that nobody writes to: the reload hangs in its thread, signals are heard as ever."""
    with ScriptedUpstream(named(b"up")) as up, running_proxy(tmp_path, [up.port]) as proxy:
        path = tmp_path / "proxy.toml"
        path.unlink()
        os.mkfifo(path)
        proxy.signal(signal.SIGHUP)
        assert get(proxy.where, "/").body == b"up"
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0


def test_two_listeners_on_port_0_survive_reloads(tmp_path: Path) -> None:
    with ScriptedUpstream(named(b"up")) as up:
        listen = ["127.0.0.1:0", "127.0.0.1:0"]
        with running_proxy(tmp_path, [up.port], listen=listen) as proxy:
            lines = proxy.err.matching("listening on http:")
            ports = [int(line.rpartition(":")[2]) for line in lines]
            assert len(set(ports)) == 2
            proxy.reload()
            for port in ports:
                assert get(("127.0.0.1", port), "/").body == b"up"
