"""Holding one upstream connection for one try, and telling what became of it."""

from __future__ import annotations

import errno
import math
from types import TracebackType

import trio

from trio_proxy.exchange.streams import Stream
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.net.dns.resolver import LookupFailed
from trio_proxy.net.network import OUT_OF_RESOURCES
from trio_proxy.upstream.call import Call
from trio_proxy.upstream.connection import Owner, UpstreamConnection
from trio_proxy.upstream.pool.pool import Pool


class Lease:
    """One upstream connection, held for one try; use it as a ``with`` block at once.

    Leaving the block gives the connection back if `reusable` was set, and closes it otherwise;
    both are synchronous, so a cancelled exchange leaves nothing behind. What the try says of the
    upstream is reported by `answered` or `failed`; a try that ends without either says nothing.
    """

    __slots__ = (
        "_call",
        "_dialling",
        "_has_failed",
        "_is_reported",
        "_pool",
        "connection",
        "reusable",
        "turn_began",
        "upstream",
    )

    def __init__(self, pool: Pool, call: Call, connection: UpstreamConnection) -> None:
        self._pool = pool
        self._call = call
        self._is_reported = False
        self._has_failed = False
        self._dialling: trio.CancelScope | None = None
        self.connection = connection
        self.upstream: Owner = connection.upstream
        #: When it became the upstream's turn: it has the connection, and the whole request.
        self.turn_began = connection.leased_at
        self.reusable = False

    def __enter__(self) -> Lease:
        exchange = self._call.exchange
        exchange.upstream = self.upstream.name
        exchange.leases += 1
        return self

    async def dial(self) -> Stream:
        """Open the stream, as the lease is a fresh slot. Raises ProxyError."""
        exchange, watchdog = self._call.exchange, self._call.watchdog
        exchange.phase = Phase.CONNECT
        watchdog.arm("connect")
        stream: Stream | None = None
        with trio.CancelScope() as self._dialling:
            if failure := watchdog.try_failure(exchange):
                raise failure
            try:
                stream = await self._pool.directory.network.dial(self.upstream.address)
            except OSError as exc:
                raise _dial_error(exc) from exc
        self._dialling = None
        if watchdog.is_too_late:
            watchdog.run_out(watchdog.timers.now())
        try:
            if watchdog.is_over:
                await trio.lowlevel.checkpoint()
        except BaseException:
            if stream is not None:
                stream.close()
            raise
        # It may have come in the same step in which its time was up.
        if failure := watchdog.try_failure(exchange):
            if stream is not None:
                stream.close()
            raise failure
        assert stream is not None
        self.connection.opened(stream)
        return stream

    def interrupt(self) -> None:
        """Have whatever the try waits for fail: its time is up."""
        if self._dialling is not None:
            self._dialling.cancel(reason="the try is over")
        else:
            self.connection.close_stream()

    def start_afresh(self) -> None:
        """Close a stale connection but keep its slot for a new one."""
        self.connection.close_stream()

    def answered(self, status: int, now: float) -> None:
        """The upstream has sent a response head."""
        self._is_reported = True
        self.upstream.condition.answered(self.connection.ticket, status, now)

    def failed(self, error: ProxyError) -> None:
        """The try has failed before a response head; only the upstream's own faults count."""
        self._has_failed = True
        now = self._call.watchdog.timers.now()
        if error.reason in _OUT_OF_TIME:
            self._pool.queue.served(math.inf, now)  # that long at least
        if error.source is Source.UPSTREAM and self._had_its_time(error, now):
            self._is_reported = True
            self.upstream.condition.failed(self.connection.ticket, error.reason.slug, now)

    def _had_its_time(self, error: ProxyError, now: float) -> bool:
        """The total budget can have been spent by others: the client, the queue, other tries."""
        if error.reason is not Reason.TOTAL_TIMEOUT:
            return True
        deadlines = self._call.watchdog.deadlines
        is_own = not deadlines.is_inherited
        return is_own and now - self.turn_began >= deadlines.total_seconds / 2

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._call.exchange.leases -= 1
        now = self._call.watchdog.timers.now()
        try:
            self._report(now, has_ended_well=exc is None and not self._has_failed)
        finally:
            if self.reusable and exc is None:
                self._pool.give_back(self.connection, now)
            else:
                self.upstream.discard(self.connection)

    def _report(self, now: float, *, has_ended_well: bool) -> None:
        if has_ended_well:
            self._pool.queue.served(now - self.connection.leased_at, now)
        elif not self._is_reported:
            self._blame_for_the_end()
        if not self._is_reported:
            self.upstream.condition.abandoned(self.connection.ticket, now)

    def _blame_for_the_end(self) -> None:
        """The total budget may have run out while it was the upstream's turn."""
        watchdog = self._call.watchdog
        if watchdog.is_over and watchdog.wait:
            self.failed(watchdog.failure(self._call.exchange))


#: What ends a request before it is known how long it would have taken.
_OUT_OF_TIME = frozenset(
    (Reason.TOTAL_TIMEOUT, Reason.TRY_TIMEOUT, Reason.READ_TIMEOUT, Reason.WRITE_TIMEOUT)
)


def _dial_error(exc: OSError) -> ProxyError:
    reason = Reason.CONNECTION_FAILED
    if exc.errno in OUT_OF_RESOURCES:
        return ProxyError(Source.PROXY, Phase.CONNECT, Reason.OUT_OF_RESOURCES, detail=str(exc))
    if isinstance(exc, LookupFailed):
        reason = Reason.DNS_ERROR
    elif exc.errno == errno.ECONNREFUSED or isinstance(exc, FileNotFoundError):
        reason = Reason.CONNECTION_REFUSED
    elif exc.errno == errno.ETIMEDOUT:
        reason = Reason.CONNECT_TIMEOUT
    detail = str(exc)
    return ProxyError(Source.UPSTREAM, Phase.CONNECT, reason, detail=detail, retryable=True)
