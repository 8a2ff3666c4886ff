"""The log writer: never in the loop's way, bounded, and honest about what it lost."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
import trio
import trio.testing
from exchanges import exchange_with

from trio_proxy.errors import ProxyError, Reason, Source
from trio_proxy.lifecycle import Exchange, Phase
from trio_proxy.telemetry.lines import LogFormat
from trio_proxy.telemetry.logwriter import (
    LogWriter,
    WriterHandler,
    configure,
    set_level,
    unconfigure,
)
from trio_proxy.telemetry.sinks import LoggingSink, Record, StreamSink
from trio_proxy.telemetry.stats import Stats

log = logging.getLogger("trio_proxy.test")


def message(text: str) -> logging.LogRecord:
    return logging.LogRecord("trio_proxy.test", logging.INFO, __file__, 1, text, None, None)


def exchange(target: str = "/") -> Exchange:
    return exchange_with(method="GET", target=target, version="1.1", status=200)


class ListSink:
    """Keeps messages; while ``gate`` is shut every write blocks, as a full pipe does."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.lose = False

    def emit(self, records: Sequence[Record], style: LogFormat) -> int:
        self.entered.set()
        assert self.gate.wait(10), "the test forgot to open the gate"
        if self.lose:
            return len(records)
        self.messages += [r.target if isinstance(r, Exchange) else r.getMessage() for r in records]
        return 0


@pytest.fixture
def sink() -> Iterator[ListSink]:
    sink = ListSink()
    yield sink
    sink.gate.set()


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    yield
    unconfigure()


async def test_records_come_out_in_order_and_the_writer_parks(sink: ListSink) -> None:
    writer = LogWriter(sink, batch_seconds=0)
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        for number in range(1000):
            writer.put(exchange(str(number)))
        with trio.fail_after(10):
            assert await writer.flush(10)
        with trio.fail_after(10):
            while repr(writer) != "<LogWriter parked queued=0 dropped=0>":
                await trio.testing.wait_all_tasks_blocked()
        writer.put(message("woken"))
        with trio.fail_after(10):
            assert await writer.flush(10)
        nursery.cancel_scope.cancel()
    assert sink.messages == [*map(str, range(1000)), "woken"]


async def test_a_second_run_is_refused(sink: ListSink) -> None:
    writer = LogWriter(sink)
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        with pytest.raises(RuntimeError, match="already running"):
            await writer.run()
        nursery.cancel_scope.cancel()


async def test_a_blocked_sink_drops_and_counts_and_says_so_once(sink: ListSink) -> None:
    stats = Stats()
    writer = LogWriter(sink, limit=10, batch_seconds=0, stats=stats)
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        sink.gate.clear()
        writer.put(message("stuck"))
        await trio.to_thread.run_sync(sink.entered.wait, 10)
        for number in range(25):  # the loop goes on: this returns at once
            writer.put(message(str(number)))
        assert writer.dropped == stats.log_lines_dropped == 15
        sink.gate.set()
        with trio.fail_after(10):
            assert await writer.flush(10)
        nursery.cancel_scope.cancel()
    notice = "15 log lines dropped: the log could not take them"
    assert sink.messages == ["stuck", *map(str, range(10)), notice]


def test_counters_that_come_later_learn_what_was_dropped_before(sink: ListSink) -> None:
    """A writer is there before the proxy whose counters it counts in."""
    writer, stats = LogWriter(sink, limit=1), Stats()
    writer.put(message("kept"))
    writer.put(message("lost"))
    writer.count_in(stats)
    assert stats.log_lines_dropped == 1
    writer.put(message("lost too"))
    assert stats.log_lines_dropped == writer.dropped == 2


async def test_lines_lost_by_the_sink_are_counted_and_told_after_it_recovered(
    sink: ListSink,
) -> None:
    writer = LogWriter(sink)
    sink.lose = True
    writer.put(message("lost"))
    assert await writer.flush(10)
    assert (writer.dropped, sink.messages) == (1, [])
    sink.lose = False
    writer.put(message("kept"))
    assert await writer.flush(10)
    assert sink.messages == ["kept", "1 log lines dropped: the log could not take them"]


async def test_flush_gives_up_at_its_deadline(sink: ListSink) -> None:
    writer = LogWriter(sink)
    sink.gate.clear()
    writer.put(message("stuck"))
    with trio.fail_after(5):
        assert not await writer.flush(0.01)
    sink.gate.set()
    with trio.fail_after(10):
        assert await writer.flush(10)
    assert sink.messages == ["stuck"]


async def test_flush_works_in_a_cancelled_scope_and_loses_nothing(sink: ListSink) -> None:
    writer = LogWriter(sink, batch_seconds=60)
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        writer.put(message("last words"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        assert await writer.flush(10)
    assert sink.messages == ["last words"]


async def test_cancelling_a_stuck_writer_is_prompt_and_keeps_what_was_queued(
    sink: ListSink,
) -> None:
    writer = LogWriter(sink, batch_seconds=0)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(writer.run)
            sink.gate.clear()
            writer.put(message("stuck"))
            await trio.to_thread.run_sync(sink.entered.wait, 10)
            writer.put(message("queued"))
            nursery.cancel_scope.cancel()
    sink.gate.set()
    with trio.fail_after(10):
        assert await writer.flush(10)
    assert sink.messages == ["stuck", "queued"]


def test_a_waiting_failure_keeps_no_frames(sink: ListSink) -> None:
    writer = LogWriter(sink)
    failed = exchange()
    try:
        raise ProxyError(Source.UPSTREAM, Phase.SEND, Reason.CONNECTION_RESET, detail="EPIPE")
    except ProxyError as exc:
        failed.error = exc
    writer.put(failed)
    (waiting,) = writer._queue
    assert isinstance(waiting, Exchange)
    assert waiting.error is not None
    assert waiting.error.__traceback__ is None
    assert (waiting.error.reason, waiting.error.detail) == (Reason.CONNECTION_RESET, "EPIPE")


# --- the stdlib loggers -------------------------------------------------------------------------


async def test_configured_loggers_write_through_the_writer_from_any_thread(
    sink: ListSink,
) -> None:
    writer = LogWriter(sink, batch_seconds=0)
    configure(writer, "info")
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        log.info("from the %s", "loop")
        log.debug("not shown")
        await trio.to_thread.run_sync(log.info, "from a thread")
        with trio.fail_after(10):
            while len(sink.messages) < 2:
                await writer.flush(10)
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert sink.messages == ["from the loop", "from a thread"]


def test_without_a_loop_records_are_written_at_once(sink: ListSink) -> None:
    configure(LogWriter(sink))
    log.warning("early")
    assert sink.messages == ["early"]


async def test_in_a_loop_without_a_writer_task_records_wait(sink: ListSink) -> None:
    configure(LogWriter(sink))
    log.warning("waits")
    assert sink.messages == []
    unconfigure()
    assert sink.messages == ["waits"]


def test_after_its_loop_has_ended_the_writer_still_writes(sink: ListSink) -> None:
    writer = LogWriter(sink, batch_seconds=0)
    configure(writer)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(writer.run)
            nursery.cancel_scope.cancel()

    trio.run(main)
    log.warning("stopped")
    assert sink.messages == ["stopped"]


def test_unconfigure_leaves_the_loggers_as_found(sink: ListSink) -> None:
    root = logging.getLogger("trio_proxy")
    before = (list(root.handlers), root.propagate, root.level)
    configure(LogWriter(sink), "debug", "json")
    configure(LogWriter(sink), "warning")
    assert len([h for h in root.handlers if isinstance(h, WriterHandler)]) == 1
    assert root.level == logging.WARNING
    unconfigure()
    assert (list(root.handlers), root.propagate, root.level) == before


def test_level_and_format_change_live() -> None:
    out = io.StringIO()
    writer = LogWriter(StreamSink(out))
    configure(writer, "warning", "text")
    log.info("hidden")
    set_level("debug")
    writer.set_format("json")
    log.debug("shown")
    assert json.loads(out.getvalue())["message"] == "shown"


@pytest.mark.parametrize("change", [set_level, LogWriter(ListSink()).set_format])
def test_unknown_names_are_refused(change: Callable[[str], None]) -> None:
    with pytest.raises(ValueError, match="loud"):
        change("loud")


def test_a_bad_log_call_is_shown_and_not_raised(
    sink: ListSink, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(LogWriter(sink))
    log.warning("%d", "x")
    assert sink.messages == []
    assert "--- Logging error ---" in capsys.readouterr().err


# --- sinks --------------------------------------------------------------------------------------


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


def test_closed_stream_loses_lines_and_no_more() -> None:
    out = io.StringIO()
    sink = StreamSink(out)
    out.close()
    assert sink.emit([message("a"), message("b")], LogFormat.TEXT) == 2


def test_broken_pipe_loses_lines_and_no_more() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as stream:
        sink = StreamSink(stream)
        os.close(read_end)
        assert sink.emit([message("a")], LogFormat.TEXT) == 1
        assert sink.emit([message("b")], LogFormat.TEXT) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_loses_lines_and_no_more() -> None:
    with open("/dev/full", "w") as stream:
        assert StreamSink(stream).emit([message("a")], LogFormat.TEXT) == 1


async def test_broken_pipe_does_not_end_the_writer() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as stream:
        writer = LogWriter(StreamSink(stream), batch_seconds=0)
        os.close(read_end)
        async with trio.open_nursery() as nursery:
            await nursery.start(writer.run)
            for _ in range(3):
                writer.put(exchange())
                with trio.fail_after(10):
                    assert await writer.flush(10)
            nursery.cancel_scope.cancel()
    assert writer.dropped == 3


def test_a_line_cut_off_by_an_error_stays_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    written = bytearray()
    results: list[int | OSError] = [5, OSError(28, "No space left on device"), 1000]

    def write(fd: int, data: bytes) -> int:
        result = results.pop(0)
        if isinstance(result, OSError):
            raise result
        written.extend(data[:result])
        return min(result, len(data))

    with open(os.devnull, "w") as stream:
        sink = StreamSink(stream)
        monkeypatch.setattr(os, "write", write)
        assert sink.emit([message("first")], LogFormat.TEXT) == 1
        assert sink.emit([message("second")], LogFormat.TEXT) == 0
    head, second, end = bytes(written).split(b"\n")
    assert len(head) == 5
    assert second.endswith(b" - second")
    assert end == b""


def test_a_process_exits_in_peace_while_its_stderr_is_stuck() -> None:
    """No hang, and no abort over the buffer lock of a thread that never returns."""
    program = """if True:
        import trio, logging
        from trio_proxy.telemetry.logwriter import LogWriter, configure, unconfigure
        async def main():
            writer = LogWriter(batch_seconds=0)
            configure(writer)
            async with trio.open_nursery() as nursery:
                await nursery.start(writer.run)
                for _ in range(5000):
                    logging.getLogger("trio_proxy.x").info("x" * 100)
                assert not await writer.flush(0.1)
                nursery.cancel_scope.cancel()
            unconfigure()
            print("left")
        trio.run(main)
    """
    read_end, write_end = os.pipe()
    try:
        child = subprocess.run(
            [sys.executable, "-c", program],
            check=False,
            stdout=subprocess.PIPE,
            stderr=write_end,
            timeout=30,
        )
        assert (child.returncode, child.stdout) == (0, b"left\n"), os.read(read_end, 65536)[-500:]
    finally:
        os.close(write_end)
        os.close(read_end)


def test_a_nonblocking_pipe_is_waited_for() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    received = bytearray()

    def read() -> None:
        while data := os.read(read_end, 65536):
            received.extend(data)

    records = [message("x" * 1000)] * 300  # several times what a pipe holds
    with os.fdopen(write_end, "w") as stream:
        sink = StreamSink(stream)
        reader = threading.Thread(target=read)
        reader.start()
        assert sink.emit(records, LogFormat.TEXT) == 0
    reader.join(10)
    os.close(read_end)
    assert len(received.splitlines()) == 300


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
