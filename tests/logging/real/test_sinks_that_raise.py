"""A sink that raises, which none should: it loses lines, and that is all."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from support.log_sinks import ListSink, message
from trio_proxy.telemetry.lines import LogFormat
from trio_proxy.telemetry.logwriter import LogWriter
from trio_proxy.telemetry.outputs import Record


class RaisingSink(ListSink):
    """Raises as long as it is to lose what it is given."""

    def emit(self, records: Sequence[Record], style: LogFormat) -> int:
        if self.lose:
            raise ZeroDivisionError("a bug in a sink")
        return super().emit(records, style)


async def test_a_sink_that_raises_loses_lines_and_the_writer_goes_on() -> None:
    """What was lost is counted, and told when the sink takes lines again."""
    sink = RaisingSink()
    sink.lose = True
    writer = LogWriter(sink, batch_seconds=0)
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        with trio.fail_after(10):
            writer.put(message("lost"))
            writer.put(message("lost too"))
            await writer.flush(10)
            assert writer.dropped == 2
            sink.lose = False
            writer.put(message("kept"))
            assert await writer.flush(10)
        nursery.cancel_scope.cancel()
    assert sink.messages == ["kept", "2 log lines dropped: the log could not take them"]
