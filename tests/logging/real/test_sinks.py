"""The sinks: records come out as lines, or at the application's loggers."""

from __future__ import annotations

import io
import logging
import os

import pytest

from support.log_sinks import exchange, message
from trio_proxy.telemetry.lines import LogFormat
from trio_proxy.telemetry.outputs import LoggingSink, StreamSink


def test_stream_in_memory() -> None:
    out = io.StringIO()
    assert StreamSink(out).emit([message("a"), exchange("/x")], LogFormat.TEXT) == 0
    first, second = out.getvalue().splitlines()
    assert first.endswith(" - trio_proxy.test - INFO - a")
    assert '"GET /x HTTP/1.1" 200' in second


def test_stream_with_a_narrow_encoding() -> None:
    raw = io.BytesIO()
    sink = StreamSink(io.TextIOWrapper(raw, encoding="ascii"))
    assert sink.emit([message("\u20ac")], LogFormat.TEXT) == 0
    assert raw.getvalue().endswith(b" - \\u20ac\n")


def test_a_record_that_cannot_be_formatted_is_named_instead() -> None:
    out = io.StringIO()
    broken = exchange()
    broken.tries = [7, 7]  # type: ignore[list-item]
    assert StreamSink(out).emit([broken, message("next")], LogFormat.TEXT) == 0
    first, second = out.getvalue().splitlines()
    assert "could not be formatted: " in first
    assert second.endswith(" - next")


def test_library_sink_hands_records_to_the_applications_loggers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trio_proxy")
    done = exchange("/x")
    assert LoggingSink().emit([done, message("a")], LogFormat.TEXT) == 0
    access, other = caplog.records
    assert (access.name, access.levelname) == ("trio_proxy.access", "INFO")
    assert access.getMessage().startswith('127.0.0.1 "GET /x HTTP/1.1" 200')
    assert access.exchange is done  # type: ignore[attr-defined]
    assert other.getMessage() == "a"


def test_library_sink_heeds_the_applications_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "trio_proxy")
    assert LoggingSink().emit([exchange()], LogFormat.TEXT) == 0
    assert caplog.records == []


def test_lines_go_into_a_pipe_in_atomic_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks: list[bytes] = []
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as stream:
        sink = StreamSink(stream)
        monkeypatch.setattr(os, "write", lambda fd, data: blocks.append(data) or len(data))
        sink.emit([message("x" * 900)] * 20, LogFormat.TEXT)
        monkeypatch.undo()
    os.close(read_end)
    assert len(blocks) == 5
    assert all(len(block) <= 4096 and block.endswith(b"\n") for block in blocks)
