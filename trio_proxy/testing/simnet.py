"""A network in memory that keeps the time of trio's clock.

Nothing is random but what the seed decides, and nothing happens in the background: what is sent
carries its time of arrival (see `pipe`). The one exception is `SimStream.on_hangup`, which has to
be called although nobody looks, so `SimNet.run` is one task that sleeps until the next such call.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import logging
import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType

import trio

from trio_proxy.exchange.complaint import Complaint
from trio_proxy.http.addresses import Address, TcpAddress, UnixAddress
from trio_proxy.testing.conditions import SimConditions, as_address
from trio_proxy.testing.listener import SimListener
from trio_proxy.testing.names import SimNames
from trio_proxy.testing.peer import Handler, Peer, Upstream, serve_peers
from trio_proxy.testing.pipe import Gate, Link
from trio_proxy.testing.scheduler import SeededScheduler
from trio_proxy.testing.stream import SimStream, connect_pair

log = logging.getLogger("trio_proxy.net")

#: First of the ports that port 0 gives out: the start of the dynamic range (RFC 6335 §6).
FIRST_FREE_PORT = 49152
#: Connections that wait to be accepted; a dial waits when there are more.
DEFAULT_BACKLOG = 128

_WILDCARDS = frozenset({"0.0.0.0", "::"})


class SimNet(SimNames, SimConditions):
    """A `Network` for ``trio.testing.MockClock(autojump_threshold=0)``.

    Use it as ``async with SimNet(seed=1) as net:``. Inside, hangups are reported and the order in
    which trio runs its tasks follows the seed too. Leaving it closes no streams: see
    `open_streams`.

    ``latency`` (seconds one way), ``bandwidth`` (bytes per second), ``buffer`` (bytes in one
    direction), ``jitter`` (seconds) and ``fragment`` are those of every `Link` that `link` does
    not set otherwise. Addresses may be given as text, ``"10.0.0.1:80"`` or ``"unix:/path"``.
    A host is whatever text was listened on, unless `name` gives it addresses; ``lookup_seconds`` is
    how long a look-up takes (see `SimNames`).
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        latency: float = 0.0,
        bandwidth: float = math.inf,
        buffer: int = 65536,
        jitter: float = 0.0,
        fragment: bool = False,
        lookup_seconds: float = 0.0,
    ) -> None:
        default_link = Link(
            latency=latency,
            bandwidth=bandwidth,
            buffer=buffer,
            jitter=jitter,
            fragment=fragment,
        )
        SimNames.__init__(self, lookup_seconds)
        SimConditions.__init__(self, default_link)
        self.seed = seed
        self._listeners: dict[Address, SimListener] = {}
        self._streams: dict[SimStream, None] = {}
        self._connections = itertools.count(1)
        self._hangups: list[tuple[float, int, SimStream]] = []
        self._hangup_order = itertools.count()
        self._hangup_gate = Gate()
        self._hangup_faults = Complaint(log)

    # The Network protocol

    async def listen(
        self, address: Address | str, *, backlog: int = DEFAULT_BACKLOG
    ) -> SimListener:
        """Bind an address. Raises OSError(EADDRINUSE) if it is taken.

        Port 0 gives the lowest free port from 49152. ``0.0.0.0`` and ``::`` take every host.
        """
        await trio.lowlevel.checkpoint()
        bound = self._with_port(as_address(address))
        if any(_overlap(bound, other) for other in self._listeners):
            raise OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)}: {bound}")
        listener = SimListener(
            bound,
            backlog=backlog,
            faults=lambda: self._faults_of(bound),
            forget=self._forget_listener,
        )
        self._listeners[bound] = listener
        return listener

    async def dial(self, address: Address | str, *, source: str = "127.0.0.1") -> SimStream:
        """Connect from the IP address ``source``; takes one round trip.

        A name is looked up first, and the first of its addresses that is listened on is dialled;
        links and faults are those of that address.

        Raises ConnectionRefusedError if nobody listens, LookupFailed for a name that DNS cannot
        tell. Waits while the backlog is full and while the address is a black hole. A dial that was
        cancelled leaves nothing behind.
        """
        address = await self._resolve(as_address(address))
        link = self._link_of(address)
        await trio.sleep(link.latency)
        while self._faults_of(address).is_blackhole:
            await self._healed.park()
        listener = self._listener_at(address)
        refusal = self._faults_of(address).refuse_errno or errno.ECONNREFUSED
        if self._faults_of(address).refuse_errno or listener is None:
            raise await self._refusal(address, link, refusal)
        if not await listener.claim_place():
            raise await self._refusal(address, link, refusal)
        try:
            await trio.sleep(link.latency)
            if listener.closed:
                raise OSError(refusal, f"{os.strerror(refusal)}: {address}")
            return self._connect(address, link, source, listener)
        finally:
            listener.give_back_place()

    async def _resolve(self, address: Address) -> Address:
        if isinstance(address, UnixAddress) or not self._is_name(address.host):
            return address
        hosts = await self._addresses(address.host)
        candidates = [TcpAddress(host, address.port) for host in hosts]
        listened_on = [one for one in candidates if self._listener_at(one) is not None]
        return (listened_on or candidates)[0]

    async def _refusal(self, address: Address, link: Link, code: int) -> OSError:
        await trio.sleep(link.latency)
        return OSError(code, f"{os.strerror(code)}: {address}")

    def _connect(
        self, address: Address, link: Link, source: str, listener: SimListener
    ) -> SimStream:
        is_unix = isinstance(address, UnixAddress)
        near, far = connect_pair(
            link,
            source="unix:" if is_unix else source,
            host=address.host if isinstance(address, TcpAddress) else "unix:",
            address=str(address),
            seed=f"{self.seed}/{next(self._connections)}",
            hub=self,
        )
        self._streams.update({near: None, far: None})
        # The last step of the handshake tells the listener that the dialler is there.
        listener.push(far, ready_at=trio.current_time() + link.latency)
        return near

    # What is open

    @property
    def open_streams(self) -> list[SimStream]:
        """Both ends of every connection as far as nobody closed them, oldest first."""
        return list(self._streams)

    @property
    def open_listeners(self) -> list[SimListener]:
        """The listeners that were not closed."""
        return list(self._listeners.values())

    # The test's own side of a conversation

    async def connect(self, address: Address | str, *, source: str = "127.0.0.1") -> Peer:
        """Dial, for a scripted client."""
        return Peer(await self.dial(address, source=source))

    @asynccontextmanager
    async def upstream(self, address: Address | str) -> AsyncIterator[Upstream]:
        """A scripted upstream. At the end it stops listening and closes what it accepted."""
        upstream = Upstream(await self.listen(address))
        try:
            yield upstream
        finally:
            upstream.close()

    async def serve(
        self, address: Address | str, handler: Handler, nursery: trio.Nursery
    ) -> SimListener:
        """Run ``handler(peer)`` for each connection in a task of the nursery, until cancelled.

        The peer is closed afterwards. A handler may let EOFError and the OSErrors of a connection
        that went away pass; any other error ends the nursery.
        """
        listener = await self.listen(address)
        nursery.start_soon(serve_peers, listener, handler)
        return listener

    # Running

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Call `SimStream.on_hangup` when it is time to, until cancelled."""
        task_status.started()
        while True:
            await self._hangup_gate.wait(self._is_hangup_due, self._next_hangup_at)
            _, _, stream = heapq.heappop(self._hangups)
            stream.report_hangups()

    def _is_hangup_due(self) -> bool:
        return self._next_hangup_at() <= trio.current_time()

    def _next_hangup_at(self) -> float:
        return self._hangups[0][0] if self._hangups else math.inf

    def schedule(self, at: float, stream: SimStream) -> None:
        """For streams: have `SimStream.report_hangups` called then."""
        heapq.heappush(self._hangups, (at, next(self._hangup_order), stream))
        self._hangup_gate.wake()

    def forget(self, stream: SimStream) -> None:
        """For streams: this one was closed."""
        self._streams.pop(stream, None)

    def hangup_failed(self, stream: SimStream) -> None:
        """For streams: its `SimStream.on_hangup` has raised; it is aborted, as on a socket."""
        self._hangup_faults.fault("internal error as %s hung up", stream.peer)

    async def __aenter__(self) -> SimNet:
        self._scheduler = SeededScheduler(self.seed)
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._nursery.start_soon(self.run)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._scheduler.restore()
        self._nursery.cancel_scope.cancel()
        if isinstance(error, Exception):
            # Given to the nursery, the test's own failure would come out wrapped in a group.
            await self._manager.__aexit__(None, None, None)
            return False
        return await self._manager.__aexit__(kind, error, traceback)

    # Helpers

    def _forget_listener(self, listener: SimListener) -> None:
        del self._listeners[listener.address]

    def _listener_at(self, address: Address) -> SimListener | None:
        for bound, listener in self._listeners.items():
            if _overlap(bound, address):
                return listener
        return None

    def _with_port(self, address: Address) -> Address:
        if isinstance(address, UnixAddress) or address.port:
            return address
        candidates = (TcpAddress(address.host, n) for n in range(FIRST_FREE_PORT, 65536))
        for candidate in candidates:
            if not any(_overlap(candidate, other) for other in self._listeners):
                return candidate
        raise OSError(errno.EADDRINUSE, "every port from 49152 is taken")

    def __repr__(self) -> str:
        return (
            f"<SimNet seed={self.seed}: {len(self._listeners)} listeners, "
            f"{len(self._streams)} open streams>"
        )


def _overlap(one: Address, other: Address) -> bool:
    """Whether the addresses cannot both be bound; so one reaches a listener on the other."""
    if isinstance(one, UnixAddress) or isinstance(other, UnixAddress):
        return one == other
    return one.port == other.port and (
        one.host == other.host or one.host in _WILDCARDS or other.host in _WILDCARDS
    )
