"""What a running proxy says of itself: a line for each request, numbers that add up."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.processes import DEADLINE
from support.proxy_process import running_proxy
from support.rawhttp import RawClient, Where, get, request
from support.upstreams import ScriptedUpstream, UpstreamConnection

UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"


def test_text_line_of_a_request(tmp_path: Path, echo_port: int) -> None:
    """The line is the documented one, and its trace id is the client's."""
    with running_proxy(tmp_path, [echo_port]) as proxy:
        answer = get(proxy.where, "/status/200?x=1")
        line = proxy.err.wait_for("trio_proxy.access.*").string
        assert re.fullmatch(
            rf'{STAMP} - trio_proxy\.access - INFO - 127\.0\.0\.1 "GET /status/200\?x=1 HTTP/1\.1"'
            rf" 200 11B \d+\.\dms upstream=127\.0\.0\.1:{echo_port} trace_id=({UUID}) in=\d+B"
            r" tries=1 phase=stream",
            line,
        )
        assert f"trace_id={answer.header('x-trace-id')} " in line
        for text in ("listening on http://127.0.0.1:", "started from "):
            assert re.match(
                rf"{STAMP} - trio_proxy\.server - INFO - {text}", proxy.err.matching(text)[0]
            )


def test_trace_id_from_end_to_end(tmp_path: Path) -> None:
    """Client, upstream and log have the same id: a new one, or that of a trusted peer."""
    seen: list[str | None] = []

    def handler(connection: UpstreamConnection) -> None:
        while True:
            seen.append(connection.read_request().header("x-trace-id"))
            connection.answer()

    with ScriptedUpstream(handler) as upstream:
        for trusted in ([], ["127.0.0.0/8"]):
            headers = {"trusted_proxies": trusted}
            with running_proxy(tmp_path, [upstream.port], headers=headers) as proxy:
                answer = get(proxy.where, "/", "X-Trace-ID: from-outside")
                assert answer.header("x-trace-id") == seen[-1]
                proxy.err.wait_for(f"trace_id={seen[-1]} ")
    assert re.fullmatch(UUID, seen[0] or "")
    assert seen[1] == "from-outside"


def _refused(where: Where, upstream: Faulty) -> None:
    assert get(where, "/refused").status == 502


def _reset(where: Where, upstream: Faulty) -> None:
    upstream.mode = "reset"
    assert get(where, "/reset").status == 502


def _too_slow(where: Where, upstream: Faulty) -> None:
    upstream.mode = "silent"
    assert get(where, "/too-slow").status == 504


def _malformed(where: Where, upstream: Faulty) -> None:
    with RawClient(where) as client:
        client.send(b"BAD REQUEST\r\n\r\n")
        assert client.read_response().status == 400


def _client_left(where: Where, upstream: Faulty) -> None:
    upstream.mode = "silent"
    with RawClient(where) as client:
        client.send(b"POST /left HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        assert upstream.arrived.wait(DEADLINE)


def _truncated(where: Where, upstream: Faulty) -> None:
    upstream.mode = "truncate"
    with RawClient(where) as client:
        client.send(request("GET", "/truncated"))
        client.read_until(b"begin")
        with pytest.raises((EOFError, ConnectionResetError)):
            client.read_exactly(100)


Act = Callable[[Where, "Faulty"], None]

FAILURES: list[tuple[Act, int, str, str]] = [
    (_refused, 502, "connection_refused", "connect"),
    (_reset, 502, "connection_reset", "await_head"),
    (_too_slow, 504, "read_timeout", "await_head"),
    (_malformed, 400, "malformed_request", "read_head"),
    (_client_left, 499, "client_gone", "send"),
    (_truncated, 200, "response_truncated", "stream"),
]


class Faulty:
    """An upstream's handler that misbehaves as it is told."""

    def __init__(self) -> None:
        self.mode = "silent"
        self.arrived = threading.Event()

    def __call__(self, connection: UpstreamConnection) -> None:
        connection.read_request_head()
        self.arrived.set()
        if self.mode == "reset":
            connection.reset()
        elif self.mode == "truncate":
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin")
        else:
            connection.wait_for_end()


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize(("act", "status", "reason", "phase"), FAILURES)
def test_failure_has_its_line_too(
    tmp_path: Path, act: Act, status: int, reason: str, phase: str, style: str
) -> None:
    """One line per request whatever became of it: status, phase, reason, what each try came to."""
    config = {
        "timeouts": {"read_ms": 200 if act is _too_slow else 60_000},
        "logging": {"format": style},
        "retry": {"attempts": 1},
    }
    faulty = Faulty()
    with socket.socket() as nobody, ScriptedUpstream(faulty) as upstream:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1] if act is _refused else upstream.port
        with running_proxy(tmp_path, [port], **config) as proxy:
            act(proxy.where, faulty)
            proxy.wait_until_quiet()
            values = proxy.metrics()
    lines = proxy.err.matching(r"trio_proxy\.access")
    assert len(lines) == 1
    tries = 0 if phase == "read_head" else 1
    if style == "json":
        facts = json.loads(lines[0])
        assert (facts["status"], facts["error"], facts["phase"]) == (status, reason, phase)
        assert len(facts["tries"]) == tries
    else:
        assert f" {status} " in lines[0]
        assert f" phase={phase} error={reason}" in lines[0]
        assert len(re.findall(rf" tried=127\.0\.0\.1:{port}:\w+", lines[0])) == tries
    _check_numbers(values, reason, f"127.0.0.1:{port}")


def _check_numbers(values: dict[str, float], reason: str, upstream: str) -> None:
    """Each failure shows in the counters that are there for it, and nowhere else."""
    kind = {"connection_refused": "connection_refused", "read_timeout": "timeout"}
    kind |= {"connection_reset": "other", "response_truncated": "other"}
    for each in ("timeout", "connection_refused", "other"):
        key = f'proxy_upstream_errors_total{{pool="default",type="{each}",upstream="{upstream}"}}'
        assert values[key] == (each == kind.get(reason)), key
    assert values["proxy_requests_parse_errors_total"] == (reason == "malformed_request")
    assert values['proxy_timeout_errors_total{type="read"}'] == (reason == "read_timeout")
    left = sum(n for key, n in values.items() if key.startswith("proxy_client_disconnects_total"))
    assert left == (reason == "client_gone")
    assert values["proxy_requests_total"] == 1


def test_json_line_of_a_request(tmp_path: Path, echo_port: int) -> None:
    """Every line of a JSON log is JSON, and the access line has the facts as fields."""
    with running_proxy(tmp_path, [echo_port], logging={"format": "json"}) as proxy:
        with RawClient(proxy.where) as client:
            client.send(request("POST", '/upload?"quoted"', body=b"12345"))
            answer = client.read_response()
        facts = json.loads(proxy.err.wait_for("trio_proxy.access").string)
    assert facts["method"] == "POST"
    assert facts["target"] == '/upload?"quoted"'
    assert (facts["status"], facts["phase"]) == (200, "stream")
    assert facts["bytes_in"] == len(request("POST", '/upload?"quoted"', body=b"12345"))
    assert facts["body_bytes"] == len(answer.body) < facts["bytes_out"]
    assert facts["upstream"] == f"127.0.0.1:{echo_port}"
    assert 0 < facts["upstream_ms"] <= facts["duration_ms"] < DEADLINE * 1000
    assert facts["trace_id"] == answer.header("x-trace-id")
    assert [one["outcome"] for one in facts["tries"]] == ["200"]
    messages = [json.loads(line) for line in proxy.err.text().splitlines()]
    assert {"time", "logger", "level"} <= set.intersection(*[set(each) for each in messages])


def test_log_injection_is_escaped(tmp_path: Path, echo_port: int) -> None:
    """What a client sends cannot make a line of its own, or end the quotes."""
    with running_proxy(tmp_path, [echo_port]) as proxy:
        get(proxy.where, '/x"-200-forged')
        line = proxy.err.wait_for("trio_proxy.access").string
    assert '"GET /x\\x22-200-forged HTTP/1.1"' in line


def test_metrics_add_up(tmp_path: Path, echo_port: int) -> None:
    """After traffic that is known, Prometheus's parser reads exactly that."""
    with running_proxy(tmp_path, [echo_port]) as proxy:
        before = proxy.metrics()
        assert before["proxy_requests_total"] == 0
        with RawClient(proxy.where) as client:
            for _ in range(5):
                assert client.get("/big?bytes=1000").status == 200
            for status in (301, 404, 503):
                assert client.get(f"/status/{status}").status == status
            sent = len(request("POST", "/upload", body=bytes(5000)))
            client.send(request("POST", "/upload", body=bytes(5000)))
            assert client.read_response().status == 200
            during = proxy.metrics()
        with RawClient(proxy.where) as client:
            client.send(b"nonsense\r\n\r\n")
            assert client.read_response().status == 400
        proxy.wait_until_quiet()
        after = proxy.metrics()
    assert during["proxy_client_connections"] == 1
    assert during["proxy_requests_in_flight"] == 0
    assert after["proxy_client_connections"] == 0
    assert after["proxy_requests_total"] == 10
    classes = [after[f'proxy_responses_total{{status_class="{n}xx"}}'] for n in (2, 3, 4, 5)]
    assert classes == [6, 1, 2, 1]
    assert after["proxy_requests_parse_errors_total"] == 1
    assert after["proxy_request_duration_seconds_count"] == 10
    assert 0 < after["proxy_request_duration_seconds_sum"] < DEADLINE
    assert after['proxy_request_duration_seconds_bucket{le="+Inf"}'] == 10
    assert 5000 < after["proxy_bytes_sent_total"] < 20_000
    assert sent < after["proxy_bytes_received_total"] < sent + 2000
    name = f'upstream="127.0.0.1:{echo_port}"'
    assert after[f'proxy_upstream_requests_total{{pool="default",{name}}}'] == 9
    assert after[f'proxy_upstream_duration_seconds_count{{pool="default",{name}}}'] == 9
    assert after[f'proxy_upstream_up{{pool="default",{name}}}'] == 1
    assert after[f'proxy_upstream_connections{{pool="default",state="active",{name}}}'] == 0
    assert after[f'proxy_upstream_connections{{pool="default",state="idle",{name}}}'] == 1
    assert after['proxy_queue_length{pool="default"}'] == 0
    assert after["proxy_orphaned_upstreams"] == 0
    assert after["process_resident_memory_bytes"] > 1_000_000


def test_metrics_port_serves_nothing_else(tmp_path: Path, echo_port: int) -> None:
    """Other paths are 404, other methods 405; none of it counts as traffic."""
    with running_proxy(tmp_path, [echo_port]) as proxy:
        where = ("127.0.0.1", proxy.metrics_port)
        assert get(where, "/").status == 404
        assert get(where, "/metrics?x=1").status == 200
        with RawClient(where) as client:
            client.send(request("HEAD", "/metrics"))
            assert client.read_response("HEAD").status == 200
            client.send(request("POST", "/metrics", body=b"x"))
            assert client.read_response().status == 405
        assert proxy.metrics()["proxy_requests_total"] == 0
