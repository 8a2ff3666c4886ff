"""Where log records end up. A sink is called in a worker thread, by one thread at a time.

A sink may block. It never raises: it answers how many of the records are lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import Protocol, TextIO, TypeAlias

from trio_proxy.exchange.exchange import Exchange
from trio_proxy.telemetry.accesslog import ACCESS_LOGGER, access_text, ended_wall, format_access
from trio_proxy.telemetry.lines import LogFormat, format_message

Record: TypeAlias = Exchange | logging.LogRecord

#: A write of up to this many bytes into a pipe is never mixed with another process's (POSIX
#: PIPE_BUF; 4096 on Linux), and the workers of one proxy share one stderr.
ATOMIC_WRITE_BYTES = select.PIPE_BUF


class Sink(Protocol):
    """Takes records in order and returns the number of those that could not be written."""

    def emit(self, records: Sequence[Record], style: LogFormat) -> int: ...


class StreamSink:
    """Lines on a text stream, ``sys.stderr`` if none is given.

    Instead of a record it takes the line that `format_record` makes of it, too.

    A stream with a file descriptor is written past its buffer: a thread stuck in a full pipe would
    hold the buffer's lock, and the interpreter aborts at exit when it cannot take that. A reader
    that went away (EPIPE) or a full disk (ENOSPC) loses lines and is tried again with the next.

    ``is_shared``: other processes have such a sink on the same stream.
    """

    def __init__(self, stream: TextIO | None = None, *, is_shared: bool = False) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._torn = False
        self._takes_turns = False
        try:
            self._stream.flush()
            self._fd = self._stream.fileno()
            mode = os.fstat(self._fd).st_mode
            self._whole = stat.S_ISREG(mode)
            self._takes_turns = is_shared and stat.S_ISFIFO(mode)
        except (OSError, ValueError):  # io.UnsupportedOperation is both: a stream in memory
            self._fd, self._whole = -1, True

    def emit(self, records: Sequence[Record | str], style: LogFormat) -> int:
        lines = [x if isinstance(x, str) else format_record(x, style) for x in records]
        written = 0
        try:
            for block in _blocks(lines, self._whole):
                self._write("".join(block))
                written += len(block)
        except (OSError, ValueError):  # ValueError: the stream was closed
            pass
        return len(lines) - written

    def _write(self, text: str) -> None:
        if self._fd < 0:
            encoding = self._stream.encoding or "utf-8"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            self._stream.flush()
        else:
            with self._turn():
                self._write_all(text.encode("utf-8", "backslashreplace"))

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Keep the other processes from writing into a pipe.

        A line of more than `ATOMIC_WRITE_BYTES`, which the target of a request can make, could get
        another's into its middle: what is left of it would then look like a line, of a client's
        making. The lock belongs to the process (fcntl(2)), so it goes with it, however it ends.
        """
        if not self._takes_turns:
            yield
            return
        with contextlib.suppress(OSError):  # no lock to be had: as good as it gets
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def _write_all(self, data: bytes) -> None:
        """Block until all is written. Raises OSError (EPIPE, ENOSPC, EIO), perhaps after a part."""
        if self._torn:
            data = b"\n" + data
        while data:
            try:
                sent = os.write(self._fd, data)
            except BlockingIOError:  # who shares the terminal or pipe made it non-blocking
                _wait_writable(self._fd)
            else:
                # A line that an error cuts off stays a line of its own.
                self._torn = data[sent - 1 : sent] != b"\n"
                data = data[sent:]


class LoggingSink:
    """The application's own logging tree: for use as a library.

    Access records carry the finished `Exchange` as ``record.exchange``, for formatters that want
    fields. Format and level are the application's affair.
    """

    def emit(self, records: Sequence[Record], style: LogFormat) -> int:
        lost = 0
        for record in records:
            try:
                entry = _access_record(record) if isinstance(record, Exchange) else record
                logger = logging.getLogger(entry.name)
                if logger.isEnabledFor(entry.levelno):
                    logger.handle(entry)
            except Exception:  # noqa: BLE001 - a stranger's filter or handler must not end the proxy
                lost += 1
        return lost


def _access_record(exchange: Exchange) -> logging.LogRecord:
    wall = ended_wall(exchange)
    fields = {
        "name": ACCESS_LOGGER,
        "levelno": logging.INFO,
        "levelname": "INFO",
        "msg": "%s",
        "args": (access_text(exchange),),
        "created": wall,
        "msecs": wall % 1 * 1000,
        "exchange": exchange,
    }
    return logging.makeLogRecord(fields)


def format_record(record: Record, style: LogFormat) -> str:
    """The record as a line, or lines, with their end. Raises nothing."""
    try:
        if isinstance(record, Exchange):
            return format_access(record, style) + "\n"
        return format_message(record, style) + "\n"
    except Exception as exc:  # noqa: BLE001 - one bad record (a plug-in's) must not stop the log
        text = f"log record could not be formatted: {exc!r}"
        return format_message(warning_record(text), style) + "\n"


def warning_record(text: str) -> logging.LogRecord:
    """A record about the log itself; made by hand, so it cannot come back through a logger."""
    return logging.LogRecord("trio_proxy.log", logging.WARNING, __file__, 0, text, None, None)


def _blocks(lines: list[str], whole: bool) -> list[list[str]]:
    """All lines at once for a file; for a pipe or socket, groups that are written atomically."""
    if whole or not lines:
        return [lines] if lines else []
    blocks: list[list[str]] = [[]]
    size = 0
    for line in lines:
        # A character is at most four bytes; nearly all lines are ASCII, where the length is exact.
        bytes_needed = len(line) if line.isascii() else 4 * len(line)
        if blocks[-1] and size + bytes_needed > ATOMIC_WRITE_BYTES:
            blocks.append([])
            size = 0
        blocks[-1].append(line)
        size += bytes_needed
    return blocks


def _wait_writable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()
