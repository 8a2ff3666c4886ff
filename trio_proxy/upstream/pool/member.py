"""One upstream: its connections, idle and leased, and the cap on both together.

A connection holds one token of the upstream's `CapacityLimiter` from before it is dialled until it
is closed, so idle ones count. Everything here is synchronous bookkeeping; who waits, and in which
order, is the pool's business.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

import trio

from trio_proxy.http.addresses import Address, TcpAddress
from trio_proxy.policy.hashing import seed_of
from trio_proxy.upstream.connection import Holder, UpstreamConnection
from trio_proxy.upstream.pool import condition
from trio_proxy.upstream.pool.condition import Condition
from trio_proxy.upstream.pool.rules import HealthRules, MemberRules

log = logging.getLogger("trio_proxy.upstream")


class Gauges(condition.Gauges, Protocol):
    """What an upstream reports of itself."""

    active: int
    idle: int


class Member:
    """One member of a pool: its connections, and its `Condition`.

    ``freed`` is called whenever a connection or a slot has become free, ``changed`` when its
    condition or its weight is another, and ``room_changed`` when it has no room any more or has
    some again. The attributes ``name``, ``seed``, ``weight``, ``base_weight`` and
    ``in_flight`` are what balancers look at.
    """

    def __init__(
        self,
        address: Address,
        rules: MemberRules,
        health: HealthRules,
        gauges: Gauges,
        freed: Callable[[], None],
        changed: Callable[[], None],
        room_changed: Callable[[], None],
        label: str = "",
    ) -> None:
        self.address = address
        self.name = str(address)
        #: What the log calls it.
        self.label = label or self.name
        self.seed = seed_of(self.name)
        self.host_field = self._host_field(rules)
        self.condition = Condition(self.label, rules, health, gauges, self._condition_changed)
        self.weight = float(rules.weight)
        self.base_weight = rules.weight
        self.backup = rules.backup
        self.in_flight = 0
        self.limiter = trio.CapacityLimiter(rules.max_conns)
        self.retired = False
        #: How often it was taken away.
        self.retirements = 0
        self.idle_seconds = math.inf
        self.rules = rules
        #: The cookie that clients are stuck to it by; empty if none.
        self.cookie = ""
        self._gauges = gauges
        self.freed = freed
        self._changed = changed
        self._room_changed = room_changed
        #: Slots of the cap that are left; below zero when it was lowered.
        self._slots = self.limiter.available_tokens
        #: Whether `maybe_lease` would find a connection or a slot.
        self.has_room = self._slots > 0
        #: The usual case: nothing is the matter with it, and it has room.
        self.is_ready = self.has_room and self.condition.is_fit
        #: Oldest first; reuse takes the newest (LIFO), so that spare ones grow old and are closed.
        self._idle: deque[UpstreamConnection] = deque()
        #: Leased connections and who holds them.
        self.leased: dict[UpstreamConnection, Holder] = {}
        self._unused: trio.Event | None = None

    def __repr__(self) -> str:
        tokens = f"{self.limiter.borrowed_tokens}/{self.limiter.total_tokens:g}"
        return f"<Member {self.name} conns={tokens} idle={len(self._idle)}>"

    def _host_field(self, rules: MemberRules) -> bytes:
        """What Host says when the client's is not preserved; the default port goes unsaid."""
        if not isinstance(self.address, TcpAddress):
            return b"localhost"
        return (rules.authority or self.name).removesuffix(":80").encode()

    def _condition_changed(self) -> None:
        if self.condition.is_fit:
            self.weight = float(self.base_weight)
        self.is_ready = self.has_room and self.condition.is_fit
        self._changed()

    def _note_room(self) -> None:
        """Idle connections or slots have changed in number."""
        has_room = bool(self._idle) or self._slots > 0
        if has_room != self.has_room:
            self.has_room = has_room
            self.is_ready = has_room and self.condition.is_fit
            self._room_changed()

    def _note_slots(self) -> None:
        self._slots = self.limiter.available_tokens
        self._note_room()

    def maybe_lease(self, holder: Holder, now: float) -> UpstreamConnection | None:
        """An idle connection that still looks alive, else a slot to dial in, else None."""
        idle = self._idle
        connection = (self._maybe_reuse(now) if idle else None) or self._maybe_open_slot()
        if connection is None:
            return None
        if not idle and self._slots <= 0:
            self._note_room()
        self.leased[connection] = holder
        connection.leased_at = now
        condition = self.condition
        connection.ticket = condition.usual_ticket or condition.began(now)
        self.in_flight += 1
        self._gauges.active += 1
        return connection

    def _maybe_reuse(self, now: float) -> UpstreamConnection | None:
        while self._idle:
            connection = self._idle.pop()
            self._gauges.idle -= 1
            stream = connection.stream
            # Bytes nobody asked for poison the connection, and an end or error kills it.
            if stream is not None and now < connection.idle_until and not stream.is_readable():
                return connection
            self._close(connection)
        return None

    def _maybe_open_slot(self) -> UpstreamConnection | None:
        if self._slots <= 0:
            return None
        connection = UpstreamConnection(self)
        self.limiter.acquire_on_behalf_of_nowait(connection)
        self._note_slots()
        return connection

    def give_back(self, connection: UpstreamConnection, now: float | None = None) -> None:
        """End a lease whose connection can serve another request."""
        if self.retired or connection.dead or self._slots < 0:
            self.discard(connection)
            return
        self._end_lease(connection)
        connection.idle_until = (trio.current_time() if now is None else now) + self.idle_seconds
        self._idle.append(connection)
        self._gauges.idle += 1
        if not self.has_room:
            self._note_room()
        self.freed()

    def give_back_unused(self, connection: UpstreamConnection) -> None:
        """End a lease that came too late for whoever waited for it."""
        self.condition.abandoned(connection.ticket, trio.current_time())
        if connection.stream is None:
            self.discard(connection)
        else:
            self.give_back(connection)

    def discard(self, connection: UpstreamConnection) -> None:
        """End a lease and close its connection."""
        self._end_lease(connection)
        self._close(connection)
        self.freed()

    def _end_lease(self, connection: UpstreamConnection) -> None:
        del self.leased[connection]
        self.in_flight -= 1
        self._gauges.active -= 1
        if self._unused is not None and not self.leased:
            self._unused.set()
            self._unused = None

    def _close(self, connection: UpstreamConnection) -> None:
        connection.close_stream()
        self.limiter.release_on_behalf_of(connection)
        self._note_slots()

    def drop_if_idle(self, connection: UpstreamConnection) -> None:
        """Close a connection whose peer has hung up, unless an exchange is reading from it."""
        if connection in self._idle:
            self._idle.remove(connection)
            self._gauges.idle -= 1
            self._close(connection)
            self.freed()

    async def wait_until_unused(self) -> None:
        """Wait until no lease is left."""
        while self.leased:
            if self._unused is None:
                self._unused = trio.Event()
            await self._unused.wait()

    def expire_idle(self, now: float) -> float:
        """Close what has been idle for too long; when the next one will be, `math.inf` if none."""
        while self._idle and self._idle[0].idle_until <= now:
            log.debug("%s: upstream_idle deadline passed", self.name)
            self.drop_if_idle(self._idle[0])
        return self._idle[0].idle_until if self._idle else math.inf

    def apply(
        self, rules: MemberRules, health: HealthRules, idle_seconds: float, *, is_reload: bool
    ) -> None:
        """Take on new bounds: close the oldest idle connections that no longer fit them.

        What was ordered by hand, a drain or a weight, stands until a reload, or until its rule is
        another.
        """
        before, self.rules = self.rules, rules
        if is_reload or rules.drain != before.drain:
            self.condition.drain(rules.drain)
        if is_reload or rules.weight != before.weight:
            self.set_weight(rules.weight)
        self.host_field = self._host_field(rules)
        self.condition.apply(rules, health)
        self.backup = rules.backup
        self.limiter.total_tokens = rules.max_conns
        self._note_slots()
        while self._idle and self._slots < 0:
            self.drop_if_idle(self._idle[0])
        self.idle_seconds = idle_seconds
        latest = trio.current_time() + idle_seconds
        for connection in self._idle:
            connection.idle_until = min(connection.idle_until, latest)

    def set_weight(self, weight: int) -> None:
        """Change its share of the load; at least 1."""
        self.base_weight = weight
        self.weight = float(weight)
        self.condition.set_weight(weight)

    def close_idle(self) -> None:
        """Close every idle connection."""
        while self._idle:
            self.drop_if_idle(self._idle[-1])

    def retire(self) -> None:
        """Take no more requests; what is under way goes on."""
        self.retired = True
        self.retirements += 1
        self.close_idle()

    def is_retired_since(self, turn: int) -> bool:
        """Whether it is no member, and has not been one since that of its `retirements`."""
        return self.retired and self.retirements == turn

    def unretire(self) -> None:
        """Be a member again, with all that is known of it."""
        self.retired = False
