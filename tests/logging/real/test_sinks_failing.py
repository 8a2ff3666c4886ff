"""Streams that cannot take lines: closed, broken, full, stuck, or only for a while."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading

import pytest
import trio

from support.log_sinks import exchange, message
from trio_proxy.telemetry.lines import LogFormat
from trio_proxy.telemetry.logwriter import LogWriter
from trio_proxy.telemetry.outputs import StreamSink


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
        from trio_proxy.telemetry.loggers import configure, unconfigure
        from trio_proxy.telemetry.logwriter import LogWriter
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
