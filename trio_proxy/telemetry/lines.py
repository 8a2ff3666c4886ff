"""What every log line shares: its time, its escapes, and the form of an ordinary message.

One record is one line, whatever a client put into it: otherwise anybody could write log lines of
their own (CWE-117). The one exception is a traceback in text form, whose lines are indented, so
that none of them can pass for a record.
"""

from __future__ import annotations

import enum
import functools
import json
import logging
import re
import time
from typing import Any

#: Every character that a terminal or a line reader (`str.splitlines`) might act upon, and the
#: surrogates, which have no encoding.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_TRACEBACK_INDENT = "  "

_tracebacks = logging.Formatter()
_json = json.JSONEncoder(check_circular=False, default=str).encode


class LogFormat(enum.StrEnum):
    """``[logging] format``."""

    TEXT = "text"
    JSON = "json"


@functools.lru_cache(maxsize=4)
def _local_second(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))


@functools.lru_cache(maxsize=4)
def _utc_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _split_time(wall: float) -> tuple[int, str]:
    """Seconds, and three digits of milliseconds.

    A float of today is exact to a microsecond, and no further.
    """
    second, micros = divmod(round(wall * 1e6), 1_000_000)
    return second, str(1_000_000 + micros)[1:4]


def text_time(wall: float) -> str:
    """Seconds since the epoch as stdlib logging prints them: local time, comma, milliseconds."""
    second, millis = _split_time(wall)
    return f"{_local_second(second)},{millis}"


def json_time(wall: float) -> str:
    """Seconds since the epoch in ISO 8601: UTC, milliseconds."""
    second, millis = _split_time(wall)
    return f"{_utc_second(second)}.{millis}Z"


def one_line(text: str) -> str:
    """The text with control characters, line ends and surrogates written as escapes."""
    return _UNPRINTABLE.sub(_python_escape, text)


def to_json(fields: dict[str, Any]) -> str:
    """One line of JSON in ASCII. Texts must have been through `json_text`."""
    return _json(fields)


def json_text(text: str) -> str:
    """A string that is fit for `to_json`: strict parsers refuse a lone ``\\ud800``."""
    return text if text.isascii() else _SURROGATE.sub(_python_escape, text)


def _python_escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def freeze(record: logging.LogRecord) -> logging.LogRecord:
    """A copy with its message and traceback made into text.

    It can wait in a queue: it keeps no frame, socket or buffer alive, and what the arguments do
    later does not show. Raises what formatting the message raises (wrong arguments: TypeError).
    """
    frozen = logging.makeLogRecord(vars(record))
    frozen.msg, frozen.args = record.getMessage(), None
    if record.exc_info and not record.exc_text:
        frozen.exc_text = _tracebacks.formatException(record.exc_info)
    frozen.exc_info = None
    return frozen


def format_message(record: logging.LogRecord, style: LogFormat) -> str:
    """One ordinary log record as a line without its line end; a text traceback adds more."""
    traceback = "\n".join(filter(None, (record.exc_text, record.stack_info)))
    if style is LogFormat.JSON:
        return _json_message(record, traceback)
    head = f"{text_time(record.created)} - {record.name} - {record.levelname} - "
    lines = traceback.split("\n") if traceback else []
    return "\n".join(
        [head + one_line(record.getMessage()), *(_TRACEBACK_INDENT + one_line(x) for x in lines)]
    )


def _json_message(record: logging.LogRecord, traceback: str) -> str:
    fields = {
        "time": json_time(record.created),
        "logger": record.name,
        "level": record.levelname,
        "message": json_text(record.getMessage()),
    }
    if traceback:
        fields["exception"] = json_text(traceback)
    return to_json(fields)
