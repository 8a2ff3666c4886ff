"""The log writer: never in the loop's way, bounded, and honest about what it lost."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from support.log_sinks import ListSink, exchange, message
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.telemetry.logwriter import LogWriter
from trio_proxy.telemetry.stats import Stats


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
    assert failed.error is not None
    assert failed.error.__traceback__ is None
    assert (failed.error.reason, failed.error.detail) == (Reason.CONNECTION_RESET, "EPIPE")
