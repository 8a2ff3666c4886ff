"""The stdlib loggers, configured to write through the log writer."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest
import trio

from support.log_sinks import ListSink
from trio_proxy.telemetry.loggers import WriterHandler, configure, set_level, unconfigure
from trio_proxy.telemetry.logwriter import LogWriter
from trio_proxy.telemetry.outputs import StreamSink

log = logging.getLogger("trio_proxy.test")


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    yield
    unconfigure()


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
