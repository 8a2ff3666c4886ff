"""The one way out for log records, which never makes the event loop wait.

`LogWriter.put` appends to a bounded queue. One task sleeps until there is something, gathers for a
moment, and lets a worker thread take the records out and write them. While the sink blocks (a full
pipe) the queue fills, then records are dropped and counted, and the count is logged when the sink
takes lines again. The thread itself takes records from the queue, so a cancelled writer loses none:
what no thread has taken is still there for `flush` or `drain`.

For a stream an access line is made in the event loop, by `put`. It costs the same wherever it is
made, the interpreter's lock being one; but a thread that formats a batch keeps that lock from the
loop for as long, and exchanges that wait keep the garbage collector busy, which a string does not.

Rejected: stdlib's QueueListener, which keeps a thread per process waiting on a condition variable
whose lock the event loop would take for every record.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import trio

from trio_proxy.exchange.exchange import Exchange
from trio_proxy.telemetry.lines import LogFormat
from trio_proxy.telemetry.outputs import Record, Sink, StreamSink, format_record, warning_record
from trio_proxy.telemetry.stats import Stats

#: Records waiting at most; a second's worth of a busy worker, a few megabytes.
QUEUE_LIMIT = 10_000
#: Seconds that the writer gathers before it starts a thread (about 80 µs for a hand-over).
BATCH_SECONDS = 0.05
#: Records between two writes. A write lets the event loop have the interpreter's lock; a message is
#: formatted in some 5 µs, and what an application's handlers take is theirs.
WRITE_RECORDS = 128
#: Seconds that `LogWriter.drain` waits for a thread that is stuck in the sink.
DRAIN_WAIT_SECONDS = 0.5


class LogWriter:
    """A bounded queue of access and log records before a sink that may block.

    All methods but `put_soon` and `drain` belong to the event loop's thread. Dropped records are
    counted in ``dropped`` and, where given, in ``stats.log_lines_dropped``.
    """

    def __init__(
        self,
        sink: Sink | None = None,
        *,
        style: LogFormat = LogFormat.TEXT,
        limit: int = QUEUE_LIMIT,
        batch_seconds: float = BATCH_SECONDS,
        stats: Stats | None = None,
    ) -> None:
        self.style = style
        self.dropped = 0
        self._sink = StreamSink() if sink is None else sink
        self._takes_lines = isinstance(self._sink, StreamSink)
        self._limit = limit
        self._batch_seconds = batch_seconds
        self._stats = stats
        #: Records, and for a stream the lines of exchanges.
        self._queue: deque[Any] = deque()
        self._wakeup: trio.Event | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._loop_thread = 0
        self._limiter = trio.CapacityLimiter(1)
        # Held by whoever takes from the queue and writes; only `drain` meets a holder.
        self._sink_lock = threading.Lock()
        # Belongs to the holder of the lock.
        self._reported = 0

    def __repr__(self) -> str:
        parked = self._wakeup is not None
        state = "stopped" if self._token is None else "parked" if parked else "writing"
        return f"<LogWriter {state} queued={len(self._queue)} dropped={self.dropped}>"

    def set_format(self, format: str) -> None:
        """``text`` or ``json`` for what is queued from now on; a message is formatted when written.

        Raises ValueError for anything else.
        """
        self.style = LogFormat(format)

    def count_in(self, stats: Stats) -> None:
        """Count dropped records there from now on, and those that were dropped before."""
        stats.log_lines_dropped += self.dropped
        self._stats = stats

    def put(self, record: Record) -> None:
        """Queue a record, or drop it when the queue is full. An exchange must have ended."""
        if len(self._queue) >= self._limit:
            self._count_dropped(1)
            return
        if not isinstance(record, Exchange):
            self._queue.append(record)
        elif self._takes_lines:
            self._queue.append(format_record(record, self.style))
        else:
            if record.error is not None:
                # The frames of a failure hold its connection and buffers; behind a stuck sink ten
                # thousand of those would be waiting.
                record.error.__traceback__ = record.error.__cause__ = None
            self._queue.append(record)
        if self._wakeup is not None:
            self._wakeup.set()
            self._wakeup = None

    def put_soon(self, record: Record) -> None:
        """`put` from any thread. With no event loop around, the record is written at once."""
        token = self._token
        if token is not None and threading.get_ident() != self._loop_thread:
            try:
                token.run_sync_soon(self.put, record)
            except trio.RunFinishedError:
                self._token = token = None
            else:
                return
        self.put(record)
        if token is None and not trio.lowlevel.in_trio_run():
            self.drain()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled. Raises RuntimeError if it runs already."""
        if self._token is not None:
            raise RuntimeError("this LogWriter is already running")
        self._token = trio.lowlevel.current_trio_token()
        self._loop_thread = threading.get_ident()
        task_status.started()
        try:
            while True:
                await self._wait_for_records()
                await self._write()
        finally:
            self._token = self._wakeup = None

    async def flush(self, seconds: float = 1.0) -> bool:
        """Write what is queued, for at most ``seconds``, even while being cancelled.

        Works with and without a running `run`. Returns whether everything reached the sink.
        """
        with trio.move_on_after(seconds, shield=True):
            while self._queue or self._limiter.borrowed_tokens:
                await self._write()
        return not self._queue and not self._limiter.borrowed_tokens

    def drain(self) -> None:
        """Write what is queued from this thread, blocking. Not for use in an event loop.

        Gives up if another thread has been stuck in the sink for `DRAIN_WAIT_SECONDS`.
        """
        if self._sink_lock.acquire(timeout=DRAIN_WAIT_SECONDS):
            try:
                lost = self._write_queued()
            finally:
                self._sink_lock.release()
            self._count_dropped(lost)

    async def _wait_for_records(self) -> None:
        if not self._queue:
            self._wakeup = wakeup = trio.Event()
            await wakeup.wait()
        if len(self._queue) < self._limit // 2:
            await trio.sleep(self._batch_seconds)

    async def _write(self) -> None:
        lost = await trio.to_thread.run_sync(
            self._write_in_thread, limiter=self._limiter, abandon_on_cancel=True
        )
        self._count_dropped(lost)

    def _write_in_thread(self) -> int:
        with self._sink_lock:
            return self._write_queued()

    def _write_queued(self) -> int:
        """Write what is queued now and return the lost lines; later records are the next call's."""
        # Read first: what was dropped by now comes after all that is queued by now.
        missing = self.dropped - self._reported
        lost, left = 0, len(self._queue)
        while left > 0:
            records = [self._queue.popleft() for _ in range(min(left, WRITE_RECORDS))]
            lost += self._emit(records)
            left -= len(records)
        if missing and not lost and not self._report(missing):
            self._reported += missing
        return lost

    def _report(self, missing: int) -> int:
        text = f"{missing} log lines dropped: the log could not take them"
        return self._emit([warning_record(text)])

    def _emit(self, records: Sequence[Any]) -> int:
        try:
            return self._sink.emit(records, self.style)
        except Exception:  # noqa: BLE001 - a sink that fails loses lines, it must not end the proxy
            return len(records)

    def _count_dropped(self, lines: int) -> None:
        self.dropped += lines
        if self._stats is not None:
            self._stats.log_lines_dropped += lines
