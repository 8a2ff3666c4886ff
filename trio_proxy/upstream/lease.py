"""Holding one upstream connection for one try, and telling what became of it."""

from __future__ import annotations

import errno
import math
from types import TracebackType
from typing import TYPE_CHECKING

import trio

from trio_proxy.errors import ProxyError, Reason, Source
from trio_proxy.lifecycle import Exchange, Phase
from trio_proxy.net.resolver import LookupFailed
from trio_proxy.net.streams import Stream
from trio_proxy.net.watchdog import Watchdog
from trio_proxy.upstream.picker import Choice
from trio_proxy.upstream.pool import Holder, Upstream

if TYPE_CHECKING:
    from trio_proxy.upstream.cluster import Cluster


class Lease:
    """Holds one upstream connection for one try.

    Leaving the block gives the connection back if `reusable` was set, and closes it otherwise;
    both are synchronous, so a cancelled exchange leaves nothing behind. What the try says of the
    upstream is reported by `answered` or `failed`; a try that ends without either says nothing.
    """

    def __init__(
        self, cluster: Cluster, exchange: Exchange, watchdog: Watchdog, choice: Choice
    ) -> None:
        self._cluster = cluster
        self._exchange = exchange
        self._watchdog = watchdog
        self._choice = choice
        self._is_reported = False
        self._has_failed = False
        #: When it became the upstream's turn: it has the connection, and the whole request.
        self.turn_began = 0.0
        self.reusable = False

    @property
    def upstream(self) -> Upstream:
        return self.connection.upstream

    async def __aenter__(self) -> Lease:
        self._exchange.phase = Phase.PICK
        holder = Holder(self._exchange, self._watchdog)
        self.connection = await self._cluster.acquire(holder, self._choice)
        self.turn_began = self.connection.leased_at
        self._exchange.upstream = self.connection.upstream.name
        self._exchange.leases += 1
        return self

    async def stream(self) -> Stream:
        """The open stream, dialled first if the lease is a fresh slot. Raises ProxyError."""
        if self.connection.stream is None:
            await self._dial()
        assert self.connection.stream is not None
        return self.connection.stream

    async def _dial(self) -> None:
        self._exchange.phase = Phase.CONNECT
        self._watchdog.arm("connect")
        try:
            stream = await self._cluster.directory.network.dial(self.upstream.address)
        except OSError as exc:
            raise _dial_error(exc) from exc
        if trio.current_time() >= self._watchdog.due:
            stream.close()
            await self._watchdog.too_late()
        self.connection.opened(stream)

    def start_afresh(self) -> None:
        """Close a stale connection but keep its slot for a new one."""
        self.connection.close_stream()

    def answered(self, status: int) -> None:
        """The upstream has sent a response head."""
        self._is_reported = True
        now = trio.current_time()
        self.upstream.condition.answered(self.connection.ticket, status, now)

    def failed(self, error: ProxyError) -> None:
        """The try has failed before a response head; only the upstream's own faults count."""
        self._has_failed = True
        now = trio.current_time()
        if error.reason in _OUT_OF_TIME:
            self._cluster.queue.served(math.inf, now)  # that long at least
        if error.source is Source.UPSTREAM and self._had_its_time(error, now):
            self._is_reported = True
            self.upstream.condition.failed(self.connection.ticket, error.reason.slug, now)

    def _had_its_time(self, error: ProxyError, now: float) -> bool:
        """The total budget can have been spent by others: the client, the queue, other tries."""
        if error.reason is not Reason.TOTAL_TIMEOUT:
            return True
        deadlines = self._watchdog.deadlines
        is_own = not deadlines.is_inherited
        return is_own and now - self.turn_began >= deadlines.total_seconds / 2

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exchange.leases -= 1
        now = trio.current_time()
        upstream, connection = self.upstream, self.connection
        if exc is None and not self._has_failed:
            self._cluster.queue.served(now - connection.leased_at, now)
        elif not self._is_reported and self._watchdog.is_over and self._watchdog.wait:
            # The total budget has run out while it was the upstream's turn.
            self.failed(self._watchdog.failure(self._exchange))
        if not self._is_reported:
            upstream.condition.abandoned(connection.ticket, now)
        if self.reusable and exc is None:
            self._cluster.give_back(connection)
        else:
            upstream.discard(connection)


#: What ends a request before it is known how long it would have taken.
_OUT_OF_TIME = frozenset(
    (Reason.TOTAL_TIMEOUT, Reason.TRY_TIMEOUT, Reason.READ_TIMEOUT, Reason.WRITE_TIMEOUT)
)

#: What the system says when it is short of descriptors, memory or ports: no fault of the upstream.
_OUT_OF_RESOURCES = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)
)


def _dial_error(exc: OSError) -> ProxyError:
    reason = Reason.CONNECTION_FAILED
    if exc.errno in _OUT_OF_RESOURCES:
        return ProxyError(Source.PROXY, Phase.CONNECT, Reason.OUT_OF_RESOURCES, detail=str(exc))
    if isinstance(exc, LookupFailed):
        reason = Reason.DNS_ERROR
    elif exc.errno == errno.ECONNREFUSED or isinstance(exc, FileNotFoundError):
        reason = Reason.CONNECTION_REFUSED
    elif exc.errno == errno.ETIMEDOUT:
        reason = Reason.CONNECT_TIMEOUT
    detail = str(exc)
    return ProxyError(Source.UPSTREAM, Phase.CONNECT, reason, detail=detail, retryable=True)
