"""A pool of upstreams: who gets the next request, and who waits for a connection.

`Cluster.lease` decides synchronously; the only IO is the dial. When every upstream is at its cap,
requests wait in one bounded queue, first in first out, and whatever becomes free goes to the
first of them. The cluster outlives a reload: `apply` changes its members in place, so connections
to an upstream that stays are kept.
"""

from __future__ import annotations

import errno
import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol

import trio
from attrs import define, field, frozen

from trio_proxy.addresses import Address
from trio_proxy.complaint import Complaint
from trio_proxy.errors import ProxyError, Reason, Source
from trio_proxy.lifecycle import Exchange, Phase
from trio_proxy.net.resolver import LookupFailed
from trio_proxy.net.streams import Stream
from trio_proxy.net.watchdog import Watchdog
from trio_proxy.policy.balance import Balancer
from trio_proxy.upstream.pool import Gauges, Holder, Upstream, UpstreamConnection

log = logging.getLogger("trio_proxy.upstream")


@frozen(kw_only=True)
class ClusterPlan:
    """What a configuration says of a pool: each address with its cap, and the queue's length."""

    max_conns: Mapping[Address, int]
    max_queue: int
    idle_seconds: float


class Dialer(Protocol):
    async def dial(self, address: Address) -> Stream: ...


@define(eq=False)
class _Waiter:
    holder: Holder
    granted: UpstreamConnection | None = None
    event: trio.Event = field(factory=trio.Event)


class Cluster:
    """One named pool.

    ``gauges_of`` gives the counters of an upstream by its name; ``queue_lengths`` is where the pool
    shows how many requests wait.
    """

    def __init__(
        self,
        name: str,
        plan: ClusterPlan,
        balancer: Balancer,
        dialer: Dialer,
        gauges_of: Callable[[str], Gauges],
        queue_lengths: dict[str, int],
    ) -> None:
        self.name = name
        self.members: list[Upstream] = []
        self._balancer = balancer
        self._dialer = dialer
        self._gauges_of = gauges_of
        self._queue_lengths = queue_lengths
        queue_lengths[name] = 0
        self._waiters: deque[_Waiter] = deque()
        self._reaper_wakeup = trio.Event()
        self._reaper_parked = False
        self._queue_full = Complaint(log)
        self._at_cap = Complaint(log)
        self._plan = plan
        self.apply(plan)

    def __repr__(self) -> str:
        return f"<Cluster {self.name} {self.members} waiting={len(self._waiters)}>"

    @property
    def queue_length(self) -> int:
        return len(self._waiters)

    def apply(self, plan: ClusterPlan) -> list[Upstream]:
        """Take on a new plan and return the upstreams that it no longer names.

        An upstream that stays keeps its connections; a lowered cap is reached as leases end.
        """
        known = {member.address: member for member in self.members}
        self._plan = plan
        self.members = []
        for address, max_conns in plan.max_conns.items():
            member = known.pop(address, None)
            if member is None:
                gauges = self._gauges_of(str(address))
                member = Upstream(address, max_conns, gauges, self._serve_waiters)
            member.apply(max_conns, plan.idle_seconds)
            self.members.append(member)
        for member in known.values():
            member.retire()
        self._reaper_wakeup.set()
        self._serve_waiters()
        return list(known.values())

    def lease(self, exchange: Exchange, watchdog: Watchdog) -> Lease:
        """An ``async with`` block that holds a connection; see `Lease`."""
        return Lease(self, exchange, watchdog)

    async def acquire(self, holder: Holder) -> UpstreamConnection:
        """A leased connection or slot, waiting in the queue if need be. Raises ProxyError."""
        connection = None if self._waiters else self._maybe_assign(holder)
        return connection if connection is not None else await self._wait_in_queue(holder)

    async def _wait_in_queue(self, holder: Holder) -> UpstreamConnection:
        if len(self._waiters) >= self._plan.max_queue:
            self._queue_full.warn("pool %s: limits.max_queue reached", self.name)
            raise ProxyError(Source.PROXY, Phase.PICK, Reason.QUEUE_FULL)
        if not self._waiters:
            self._at_cap.warn("pool %s: every upstream is at max_conns, queueing", self.name)
        waiter = _Waiter(holder)
        self._waiters.append(waiter)
        self._queue_lengths[self.name] = len(self._waiters)
        holder.watchdog.arm("queue")
        try:
            await waiter.event.wait()
        except BaseException:
            if waiter.granted is None:
                self._waiters.remove(waiter)
                self._queue_lengths[self.name] = len(self._waiters)
            else:
                self._pass_on(waiter.granted)
            raise
        assert waiter.granted is not None
        return waiter.granted

    def _pass_on(self, connection: UpstreamConnection) -> None:
        """What was granted to somebody who has been cancelled meanwhile goes to the next."""
        if connection.stream is None:
            connection.upstream.discard(connection)
        else:
            self.give_back(connection)

    def _maybe_assign(self, holder: Holder) -> UpstreamConnection | None:
        for index in self._balancer.order(len(self.members)):
            connection = self.members[index].maybe_lease(holder)
            if connection is not None:
                return connection
        return None

    def _serve_waiters(self) -> None:
        """Give what has become free to those who wait, in the order in which they came."""
        while self._waiters:
            connection = self._maybe_assign(self._waiters[0].holder)
            if connection is None:
                return
            waiter = self._waiters.popleft()
            self._queue_lengths[self.name] = len(self._waiters)
            waiter.granted = connection
            waiter.event.set()

    async def dial(
        self, connection: UpstreamConnection, exchange: Exchange, watchdog: Watchdog
    ) -> None:
        """Open the stream of a leased slot. Raises ProxyError."""
        exchange.phase = Phase.CONNECT
        watchdog.arm("connect")
        try:
            stream = await self._dialer.dial(connection.upstream.address)
        except OSError as exc:
            raise _dial_error(exc) from exc
        connection.opened(stream)

    def give_back(self, connection: UpstreamConnection) -> None:
        """End a lease whose connection can be used again."""
        connection.upstream.give_back(connection, self._plan.idle_seconds)
        if self._reaper_parked:
            self._reaper_wakeup.set()

    async def reap_idle(self) -> None:
        """Close pooled connections when their idle deadline passes, until cancelled."""
        while True:
            now = trio.current_time()
            next_at = min((member.expire_idle(now) for member in self.members), default=math.inf)
            self._reaper_wakeup = trio.Event()
            self._reaper_parked = math.isinf(next_at)
            with trio.CancelScope(deadline=next_at):
                await self._reaper_wakeup.wait()

    def close_idle(self) -> None:
        """Close every idle connection of every member."""
        for member in self.members:
            member.close_idle()


class Lease:
    """Holds one upstream connection for one exchange.

    Leaving the block gives the connection back if `reusable` was set, and closes it otherwise;
    both are synchronous, so a cancelled exchange leaves nothing behind.
    """

    def __init__(self, cluster: Cluster, exchange: Exchange, watchdog: Watchdog) -> None:
        self._cluster = cluster
        self._exchange = exchange
        self._watchdog = watchdog
        self.reusable = False

    async def __aenter__(self) -> Lease:
        self._exchange.phase = Phase.PICK
        holder = Holder(self._exchange, self._watchdog)
        self.connection = await self._cluster.acquire(holder)
        self._exchange.upstream = self.connection.upstream.name
        self._exchange.leases += 1
        return self

    async def stream(self) -> Stream:
        """The open stream, dialled first if the lease is a fresh slot. Raises ProxyError."""
        if self.connection.stream is None:
            await self._cluster.dial(self.connection, self._exchange, self._watchdog)
        assert self.connection.stream is not None
        return self.connection.stream

    def start_afresh(self) -> None:
        """Close a stale connection but keep its slot for a new one."""
        self.connection.close_stream()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exchange.leases -= 1
        if self.reusable and exc is None:
            self._cluster.give_back(self.connection)
        else:
            self.connection.upstream.discard(self.connection)


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
