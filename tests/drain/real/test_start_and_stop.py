"""Signals in the middle of the start, unix clients that leave, and a lack of descriptors."""

from __future__ import annotations

import signal
import stat
import threading
import time
from pathlib import Path

import pytest

from support.processes import DEADLINE, no_descriptor_left, wait_until
from support.proxy_process import running_proxy
from support.rawhttp import RawClient, connect, get, request
from support.stopping import DELAYS, starting
from support.upstreams import ScriptedUpstream, UpstreamConnection

# Signals during the start


@pytest.mark.parametrize("delay", DELAYS)
def test_an_interrupt_during_the_start(tmp_path: Path, delay: float) -> None:
    """The process ends, by the signal or after a drain of nobody, and says nothing of Python."""
    with starting(tmp_path, delay) as proxy:
        proxy.signal(signal.SIGINT)
        code = proxy.wait_for_end()
        assert code in (-signal.SIGINT, 0)
        assert "KeyboardInterrupt" not in proxy.err.text()
        assert "Exception" not in proxy.err.text()
        if code == 0:
            proxy.err.wait_for("stopped")


@pytest.mark.parametrize("delay", DELAYS)
def test_a_hangup_signal_during_the_start(tmp_path: Path, delay: float) -> None:
    """It is ignored or obeyed, and the process serves and stops as ever."""
    with starting(tmp_path, delay) as proxy:
        proxy.signal(signal.SIGHUP)
        proxy.wait_until_started()
        assert get(proxy.where, "/").status == 502
    assert proxy.err.matching("stopped")
    assert not proxy.err.matching("refused: ")


def test_many_hangup_signals_during_the_start(tmp_path: Path) -> None:
    """One every 5 ms until it serves, and some more."""
    with starting(tmp_path, 0) as proxy:
        while not proxy.err.matching("started from"):
            proxy.signal(signal.SIGHUP)
            time.sleep(0.005)
        proxy.reload()
        assert get(proxy.where, "/").status == 502


# Clients on unix sockets


def hold(connection: UpstreamConnection) -> None:
    """Answer nobody."""
    connection.read_request()
    connection.wait_for_end()


@pytest.mark.parametrize("pause", [0.0, 0.03])
def test_a_unix_client_that_leaves_is_noticed(
    tmp_path: Path, unix_path: Path, pause: float
) -> None:
    """Long before any deadline, also one that was gone before it had been accepted."""
    minute = {"read_ms": 60_000, "total_ms": 60_000}
    with (
        ScriptedUpstream(hold) as upstream,
        running_proxy(
            tmp_path, [upstream.port], listen=[f"unix:{unix_path}"], timeouts=minute
        ) as proxy,
    ):
        for number in range(10):
            with connect(str(unix_path)) as sock:
                sock.sendall(request(["GET", "POST"][number % 2], "/", body=b"abc"[: number % 2]))
                time.sleep(pause)
        ended = r'" 499 .* error=client_gone '
        wait_until(lambda: len(proxy.err.matching(ended)) == 10, "all are noticed")
        assert len(proxy.err.matching("trio_proxy.access")) == 10
        proxy.wait_until_quiet()


def test_a_unix_client_that_half_closes_gets_its_answer(tmp_path: Path, unix_path: Path) -> None:
    """Only a full close is a departure."""

    def handler(connection: UpstreamConnection) -> None:
        connection.read_request()
        time.sleep(0.05)
        connection.answer(b"late")

    with (
        ScriptedUpstream(handler) as upstream,
        running_proxy(tmp_path, [upstream.port], listen=[f"unix:{unix_path}"]),
        RawClient(str(unix_path)) as client,
    ):
        client.send(request("GET", "/"))
        client.half_close()
        assert client.read_response().body == b"late"


def test_everybody_may_connect_to_a_unix_listener(
    tmp_path: Path, unix_path: Path, echo_port: int
) -> None:
    """Its mode is 0666 whatever the umask of the process."""
    prefix = ("sh", "-c", 'umask 077; exec "$@"', "sh")
    with running_proxy(tmp_path, [echo_port], listen=[f"unix:{unix_path}"], prefix=prefix):
        assert stat.S_IMODE(unix_path.stat().st_mode) == 0o666
        assert get(str(unix_path), "/status/200").status == 200


# Out of descriptors


def test_a_dial_without_descriptors_is_the_proxys_fault(tmp_path: Path) -> None:
    """503, no error of the upstream's, and all is well once there are some again."""

    def answer_once(connection: UpstreamConnection) -> None:
        connection.read_request()
        connection.answer(b"ok", "Connection: close")
        connection.wait_for_end()
        let_go.set()

    let_go = threading.Event()
    with (
        ScriptedUpstream(answer_once) as upstream,
        running_proxy(tmp_path, [upstream.port]) as proxy,
        RawClient(proxy.where) as client,
    ):
        assert client.get("/").status == 200
        assert let_go.wait(DEADLINE)
        with no_descriptor_left(proxy.pid):
            for _ in range(3):
                answer = client.get("/")
                assert answer.status == 503
                assert answer.header("proxy-status") == "trio-proxy; error=proxy_internal_error"
                assert answer.header("retry-after") == "1"
        assert client.get("/").status == 200
        values = proxy.metrics()
        errors = {k: n for k, n in values.items() if k.startswith("proxy_upstream_errors_total")}
        assert len(errors) >= 3
        assert not any(errors.values())
        assert values['proxy_responses_total{status_class="5xx"}'] == 3
        refused = r'" 503 .* phase=connect error=out_of_resources '
        wait_until(lambda: len(proxy.err.matching(refused)) == 3, "all three are in the log")
