"""SIGTERM: what is under way is finished, what is new is refused, and the end is bounded."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from support.processes import DEADLINE, wait_until
from support.proxy_process import ProxyProcess, running_proxy, write_config
from support.rawhttp import RawClient, request
from support.stopping import Gate, Reader, endless, refuses
from support.upstreams import ScriptedUpstream

#: A stop that is to happen at once; generous for a busy machine, far below every `drain_ms` here.
AT_ONCE = 10.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_under_way_are_finished(tmp_path: Path, number: signal.Signals) -> None:
    """The slow request is answered; idle connections end; new ones are refused; status 0."""
    gate = Gate()
    with ScriptedUpstream(gate) as upstream, running_proxy(tmp_path, [upstream.port]) as proxy:
        with RawClient(proxy.where) as busy, RawClient(proxy.where) as idle:
            busy.send(request("GET", "/"))
            assert gate.arrived.wait(DEADLINE)
            proxy.signal(number)
            proxy.err.wait_for(f"{number.name}: draining 2 client connections")
            assert idle.read_to_end() == b""
            wait_until(lambda: refuses(proxy), "new connections are refused")
            assert proxy.popen.poll() is None
            gate.go_on.set()
            answer = busy.read_response()
            assert (answer.status, answer.body) == (200, b"finished\n")
            assert answer.header("connection") == "close"
            assert busy.read_to_end() == b""
        assert proxy.wait_for_end() == 0
        assert re.search("- stopped$", proxy.err.text())


def test_metrics_are_served_during_the_drain(tmp_path: Path) -> None:
    """Who watches the proxy can watch it stop."""
    gate = Gate()
    with ScriptedUpstream(gate) as upstream, running_proxy(tmp_path, [upstream.port]) as proxy:
        with RawClient(proxy.where) as busy:
            busy.send(request("GET", "/"))
            assert gate.arrived.wait(DEADLINE)
            proxy.signal(signal.SIGTERM)
            wait_until(lambda: refuses(proxy), "new connections are refused")
            assert proxy.metrics()["proxy_requests_in_flight"] == 1
            gate.go_on.set()
            assert busy.read_response().status == 200
        assert proxy.wait_for_end() == 0


def _open_stream_and_tunnel(stream: RawClient, tunnel: RawClient) -> list[Reader]:
    stream.send(request("GET", "/stream"))
    stream.read_until(b"xxx")
    tunnel.send(request("GET", "/tunnel", "Connection: upgrade", "Upgrade: chat"))
    assert tunnel.read_response().status == 101
    return [Reader(stream), Reader(tunnel)]


def test_endless_stream_and_tunnel_are_cut(tmp_path: Path) -> None:
    """`drain_ms` bounds the stop, whatever is still open; each gets its access line."""
    timeouts = {"drain_ms": 300}
    with (
        ScriptedUpstream(endless) as upstream,
        running_proxy(tmp_path, [upstream.port], timeouts=timeouts) as proxy,
        RawClient(proxy.where) as stream,
        RawClient(proxy.where) as tunnel,
    ):
        readers = _open_stream_and_tunnel(stream, tunnel)
        started = time.monotonic()
        proxy.signal(signal.SIGTERM)
        assert proxy.wait_for_end() == 0
        took = time.monotonic() - started
        for reader in readers:
            reader.join()
    assert 0.3 <= took < AT_ONCE
    proxy.err.wait_for("drain_ms is over: cutting 2 connections")
    assert len(proxy.err.matching(r"- trio_proxy.access - .*error=shutting_down")) == 2


def test_second_signal_stops_at_once(tmp_path: Path) -> None:
    """A drain of half a minute is cut short by another SIGTERM."""
    timeouts = {"drain_ms": 30_000}
    with (
        ScriptedUpstream(endless) as upstream,
        running_proxy(tmp_path, [upstream.port], timeouts=timeouts) as proxy,
        RawClient(proxy.where) as stream,
        RawClient(proxy.where) as tunnel,
    ):
        readers = _open_stream_and_tunnel(stream, tunnel)
        proxy.signal(signal.SIGTERM)
        proxy.err.wait_for("SIGTERM: draining")
        started = time.monotonic()
        proxy.signal(signal.SIGTERM)
        assert proxy.wait_for_end() == 0
        assert time.monotonic() - started < AT_ONCE
        for reader in readers:
            reader.join()
    assert len(proxy.err.matching(r"- trio_proxy.access - .* (200|101) ")) == 2


def test_sighup_during_a_drain_does_no_harm(tmp_path: Path) -> None:
    """A late reload neither kills the process nor stops the drain."""
    gate = Gate()
    with ScriptedUpstream(gate) as upstream, running_proxy(tmp_path, [upstream.port]) as proxy:
        with RawClient(proxy.where) as busy:
            busy.send(request("GET", "/"))
            assert gate.arrived.wait(DEADLINE)
            proxy.signal(signal.SIGTERM)
            proxy.err.wait_for("SIGTERM: draining")
            proxy.signal(signal.SIGHUP)
            gate.go_on.set()
            assert busy.read_response().status == 200
        assert proxy.wait_for_end() == 0


def test_sigterm_right_after_start(tmp_path: Path, echo_port: int) -> None:
    """As soon as it listens, a SIGTERM is a graceful stop."""
    path = write_config(tmp_path, [echo_port])
    for _ in range(3):
        with ProxyProcess("run", path, cwd=tmp_path) as proxy:
            proxy.err.wait_for("listening on")
            proxy.signal(signal.SIGTERM)
            assert proxy.wait_for_end() == 0


@pytest.mark.parametrize("after", [0.0, 0.1, 0.2, 0.3])
def test_sigterm_while_it_starts(tmp_path: Path, after: float) -> None:
    """Earlier it may end by the signal itself, but never with a traceback or an error."""
    path = write_config(tmp_path, [1])
    with ProxyProcess("run", path, cwd=tmp_path) as proxy:
        time.sleep(after)  # the moments are the subject, nothing is waited for
        proxy.signal(signal.SIGTERM)
        assert proxy.wait_for_end() in (0, -signal.SIGTERM)


def test_unread_answer_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    """A client that does not take its answer is cut when the drain's time is up."""
    timeouts = {"drain_ms": 300}
    with (
        ScriptedUpstream(endless) as upstream,
        running_proxy(tmp_path, [upstream.port], timeouts=timeouts) as proxy,
        RawClient(proxy.where) as client,
    ):
        client.send(request("GET", "/stream"))
        client.read_until(b"xxx")
        started = time.monotonic()
        proxy.signal(signal.SIGTERM)
        assert proxy.wait_for_end() == 0
        assert time.monotonic() - started < AT_ONCE
