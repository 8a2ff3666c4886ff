"""Ordinary log lines: stdlib's layout, one line each, tracebacks told apart."""

from __future__ import annotations

import json
import logging
import sys
import time

from hypothesis import given
from hypothesis import strategies as st

from trio_proxy.telemetry.lines import LogFormat, format_message, freeze, json_time, text_time

any_text = st.text(st.characters(exclude_categories=()))


def record(message: str, *args: object, exc: BaseException | None = None) -> logging.LogRecord:
    info = (type(exc), exc, exc.__traceback__) if exc else None
    return logging.LogRecord("trio_proxy.server", logging.INFO, __file__, 1, message, args, info)


def raised(message: str) -> ValueError:
    try:
        raise ValueError(message)
    except ValueError as exc:
        return exc


def test_text_is_what_stdlib_logging_prints() -> None:
    line = record("listening on %s", "http://127.0.0.1:8080")
    layout = logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s")
    # Stdlib cuts off at the millisecond before it; a float of today may round over it.
    line.created, line.msecs = float(int(line.created)) + 0.25, 250.0
    assert format_message(line, LogFormat.TEXT) == layout.format(line)


@given(st.integers(0, 4_000_000_000), st.integers(0, 999))
def test_every_millisecond_is_shown_as_itself(second: int, milli: int) -> None:
    wall = second + milli / 1000
    local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
    assert text_time(wall) == f"{local},{milli:03d}"
    assert json_time(wall).endswith(f".{milli:03d}Z")


def test_json_object() -> None:
    line = record("up")
    line.created = 1769035003.12
    assert json.loads(format_message(line, LogFormat.JSON)) == {
        "time": "2026-01-21T22:36:43.120Z",
        "logger": "trio_proxy.server",
        "level": "INFO",
        "message": "up",
    }


def test_newlines_in_messages_are_escaped() -> None:
    assert format_message(record("a\r\nb"), LogFormat.TEXT).endswith(r" - a\r\nb")


def test_text_traceback_is_indented_so_that_it_cannot_pass_for_a_record() -> None:
    frozen = freeze(record("failed", exc=raised("x\n2026-01-21 23:36:43,120 - fake")))
    lines = format_message(frozen, LogFormat.TEXT).split("\n")
    assert lines[0].endswith(" - failed")
    assert lines[1] == "  Traceback (most recent call last):"
    assert lines[-1] == "  2026-01-21 23:36:43,120 - fake"
    assert all(line.startswith("  ") for line in lines[1:])


def test_json_traceback_is_one_field() -> None:
    line = format_message(freeze(record("failed", exc=raised("why"))), LogFormat.JSON)
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("\nValueError: why")


def test_frozen_record_shows_its_arguments_as_they_were_and_holds_no_frame() -> None:
    names = ["a"]
    before = record("%s", names, exc=raised("why"))
    frozen = freeze(before)
    names.append("b")
    assert frozen.getMessage() == "['a']"
    assert frozen.exc_info is None
    assert before.exc_info


@given(any_text)
def test_any_message_is_one_line(message: str) -> None:
    text = format_message(record("%s", message), LogFormat.TEXT)
    assert len(text.splitlines()) == 1
    text.encode()
    line = format_message(record("%s", message), LogFormat.JSON)
    assert len(line.splitlines()) == 1
    json.dumps(json.loads(line), ensure_ascii=False).encode(sys.getdefaultencoding())
