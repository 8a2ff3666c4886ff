"""Access lines: literal bytes out, and one line whatever a client sends."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.exchanges import exchange_with
from trio_proxy.exchange.exchange import Exchange, Try
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.telemetry import lines
from trio_proxy.telemetry.accesslog import format_access
from trio_proxy.telemetry.lines import LogFormat

WALL = 1769035003.12
DONE: dict[str, Any] = {
    "started_at": 100.0,
    "ended_at": 100.0019,
    "started_wall": WALL - 0.0019,
    "trace_id": "4f2c",
    "method": "GET",
    "target": "/",
    "version": "1.1",
    "phase": Phase.LOG,
    "ended_in": Phase.STREAM,
    "status": 200,
    "bytes_received": 78,
    "bytes_sent": 310,
    "body_bytes_sent": 204,
    "upstream": "127.0.0.1:9001",
    "tries": [Try("127.0.0.1:9001", "200", 0.0015, head_seconds=0.0012)],
}


def done(**facts: Any) -> Exchange:
    """An exchange that has ended well, but for these facts."""
    return exchange_with(**(DONE | facts))


FAILED = done(
    status=504,
    ended_in=Phase.AWAIT_HEAD,
    upstream="127.0.0.1:9002",
    tries=[
        Try("127.0.0.1:9001", "connection_refused", 0.001),
        Try("127.0.0.1:9002", "read_timeout", 15.0),
    ],
    error=ProxyError(
        Source.UPSTREAM, Phase.AWAIT_HEAD, Reason.READ_TIMEOUT, detail='no "head" after 15 s'
    ),
)


@pytest.fixture(autouse=True)
def _timezone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    lines._local_second.cache_clear()
    yield
    monkeypatch.undo()
    time.tzset()
    lines._local_second.cache_clear()


def text(exchange: Exchange) -> str:
    return format_access(exchange, LogFormat.TEXT)


def fields(exchange: Exchange) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(format_access(exchange, LogFormat.JSON))
    return result


def test_completed_exchange() -> None:
    assert text(done()) == (
        '2026-01-21 23:36:43,120 - trio_proxy.access - INFO - 127.0.0.1 "GET / HTTP/1.1" '
        "200 204B 1.9ms upstream=127.0.0.1:9001 trace_id=4f2c in=78B"
        " tries=1 phase=stream"
    )


def test_failed_exchange_names_phase_reason_and_every_try() -> None:
    assert text(FAILED).partition("in=78B")[2] == (
        r' tries=2 phase=await_head error=read_timeout detail="no \x22head\x22 after 15 s"'
        " tried=127.0.0.1:9001:connection_refused,127.0.0.1:9002:read_timeout"
    )


def test_answer_after_a_retry_names_the_tries() -> None:
    retried = done(tries=[Try("a:1", "connection_reset"), Try("b:1", "200")])
    assert text(retried).endswith(" in=78B tries=2 phase=stream tried=a:1:connection_reset,b:1:200")


def test_refused_head_has_placeholders() -> None:
    refused = exchange_with(
        started_wall=WALL,
        status=400,
        error=ProxyError(Source.CLIENT, Phase.READ_HEAD, Reason.MALFORMED_REQUEST),
    )
    assert text(refused).endswith(
        '127.0.0.1 "- - -" 400 0B 0.0ms upstream=- trace_id=- in=0B'
        " tries=0 phase=read_head error=malformed_request"
    )


def test_exchange_that_ended_with_neither_answer_nor_error_names_its_phase() -> None:
    assert text(done(status=0)).endswith(" phase=stream")
    assert " 000 204B " in text(done(status=0))


@pytest.mark.parametrize("version", ["1.0", "HTTP/1.0"])
def test_version_with_and_without_the_protocol_name(version: str) -> None:
    assert '"GET / HTTP/1.0"' in text(done(version=version))


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ('/a"b', r"/a\x22b"),
        ("/a\\b", r"/a\x5Cb"),
        ("/a\r\nb", r"/a\x0D\x0Ab"),
        ("/\xe9", r"/\xE9"),
        ("/\udce9", r"/\xE9"),
        ("/\u20ac", r"/\xE2\x82\xAC"),
        ("/\ud800", r"/\xED\xA0\x80"),
        ("/\x7f", r"/\x7F"),
    ],
)
def test_target_escapes(target: str, shown: str) -> None:
    assert f'"GET {shown} HTTP/1.1"' in text(done(target=target))


def test_a_trace_id_cannot_add_pairs() -> None:
    assert r" trace_id=1\x20error=none in=" in text(done(trace_id="1 error=none"))


def test_json_of_a_failure() -> None:
    assert fields(FAILED) == {
        "time": "2026-01-21T22:36:43.120Z",
        "logger": "trio_proxy.access",
        "level": "INFO",
        "client": "127.0.0.1",
        "method": "GET",
        "target": "/",
        "version": "HTTP/1.1",
        "status": 504,
        "bytes_in": 78,
        "bytes_out": 310,
        "body_bytes": 204,
        "duration_ms": 1.9,
        "upstream": "127.0.0.1:9002",
        "upstream_ms": None,
        "tries": [
            {"upstream": "127.0.0.1:9001", "outcome": "connection_refused", "ms": 1.0},
            {"upstream": "127.0.0.1:9002", "outcome": "read_timeout", "ms": 15000.0},
        ],
        "trace_id": "4f2c",
        "phase": "await_head",
        "error": "read_timeout",
        "source": "upstream",
        "detail": 'no "head" after 15 s',
    }


def test_json_of_a_success_has_no_error() -> None:
    assert fields(done())["upstream_ms"] == 1.2
    assert "error" not in fields(done())


any_text = st.text(st.characters(exclude_categories=()))
exchanges = st.builds(
    exchange_with,
    started_at=st.just(1.0),
    ended_at=st.floats(1.0, 1e6),
    started_wall=st.floats(0, 4e9),
    peer=any_text,
    client_ip=any_text,
    trace_id=any_text,
    method=any_text,
    target=any_text,
    version=any_text,
    upstream=any_text,
    status=st.integers(0, 999),
    tries=st.lists(st.builds(Try, any_text, any_text, st.floats(0, 1e6)), max_size=3),
    error=st.none()
    | st.builds(
        ProxyError,
        st.sampled_from(Source),
        st.sampled_from(Phase),
        st.sampled_from(Reason),
        detail=any_text,
    ),
)

LINE = re.compile(
    r'[-\d]{10} [:\d]{8},\d{3} - trio_proxy\.access - INFO - [!-~]+ "[ -~]+" \d{3} \d+B \d+\.\dms'
    r"(?: (?!detail)[a-z_]+=[^ \"]+)+(?: detail=\"[^\"]*\")?(?: tried=[^ \"]+)?"
)


@given(exchanges)
def test_any_exchange_is_one_parsable_line(exchange: Exchange) -> None:
    line = text(exchange)
    assert LINE.fullmatch(line)
    assert line.isascii()
    assert line.isprintable()
    assert line.count('"') == (4 if ' detail="' in line else 2)


@given(exchanges)
def test_any_exchange_is_one_line_of_strict_json(exchange: Exchange) -> None:
    line = format_access(exchange, LogFormat.JSON)
    assert line.isascii()
    assert line.isprintable()
    line.encode("ascii").decode()
    json.dumps(json.loads(line), ensure_ascii=False).encode()  # fails for a lone surrogate
