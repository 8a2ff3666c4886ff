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

from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.addresses import Address, TcpAddress
from trio_proxy.policy.hashing import seed_of
from trio_proxy.upstream.h1_session import UpstreamSession
from trio_proxy.upstream.pool import condition
from trio_proxy.upstream.pool.condition import Condition
from trio_proxy.upstream.pool.rules import HealthRules, MemberRules
from trio_proxy.upstream.session import Session, Slot

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
        *,
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
        #: Sessions of the cap that are left; below zero when it was lowered.
        self._sessions_left = self.limiter.available_tokens
        #: Whether `maybe_lease` would find a slot.
        self.has_room = self._sessions_left > 0
        #: The usual case: nothing is the matter with it, and it has room.
        self.is_ready = self.has_room and self.condition.is_fit
        #: Sessions with a slot free, oldest first; reuse takes the newest (LIFO), so that spare
        #: ones grow old and are closed.
        self._with_room: deque[Session] = deque()
        #: The slots that are leased.
        self.leased: set[Slot] = set()
        self._unused: trio.Event | None = None

    def __repr__(self) -> str:
        tokens = f"{self.limiter.borrowed_tokens}/{self.limiter.total_tokens:g}"
        return f"<Member {self.name} conns={tokens} idle={len(self._with_room)}>"

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
        has_room = bool(self._with_room) or self._sessions_left > 0
        if has_room != self.has_room:
            self.has_room = has_room
            self.is_ready = has_room and self.condition.is_fit
            self._room_changed()

    def _note_sessions(self) -> None:
        self._sessions_left = self.limiter.available_tokens
        self._note_room()

    def maybe_lease(self, holder: Exchange, now: float) -> Slot | None:
        """A slot of a session that still looks alive, else one to dial in, else None."""
        with_room = self._with_room
        session = (self._maybe_reuse(now) if with_room else None) or self._maybe_open()
        if session is None:
            return None
        session.take_slot()
        if session.is_available:
            with_room.append(session)
        elif not with_room and self._sessions_left <= 0:
            self._note_room()
        condition = self.condition
        ticket = condition.usual_ticket or condition.began(now)
        slot = Slot(self, session, holder, ticket, now)
        self.leased.add(slot)
        self.in_flight += 1
        self._gauges.active += 1
        return slot

    def _maybe_reuse(self, now: float) -> Session | None:
        while self._with_room:
            session = self._with_room.pop()
            if session.is_idle:
                self._gauges.idle -= 1
            if session.is_available and not session.has_expired(now):
                return session
            if session.is_idle:
                self._close(session)
        return None

    def _maybe_open(self) -> Session | None:
        if self._sessions_left <= 0:
            return None
        session = UpstreamSession(self)
        self.limiter.acquire_on_behalf_of_nowait(session)
        self._note_sessions()
        return session

    def give_back(self, slot: Slot, now: float | None = None) -> None:
        session = slot.session
        if self.retired or session.is_closed or self._sessions_left < 0:
            self.discard(slot)
            return
        had_room = session.is_available
        session.free_slot()
        self._end_lease(slot)
        if session.is_idle:
            session.idle_until = (trio.current_time() if now is None else now) + self.idle_seconds
            self._gauges.idle += 1
        if not had_room:
            self._with_room.append(session)
        if not self.has_room:
            self._note_room()
        self.freed()

    def give_back_unused(self, slot: Slot) -> None:
        self.condition.abandoned(slot.ticket, trio.current_time())
        self.give_back(slot)

    def discard(self, slot: Slot) -> None:
        slot.session.free_slot()
        self._end_lease(slot)
        self._close(slot.session)
        self.freed()

    def _end_lease(self, slot: Slot) -> None:
        self.leased.discard(slot)
        self.in_flight -= 1
        self._gauges.active -= 1
        if self._unused is not None and not self.leased:
            self._unused.set()
            self._unused = None

    def _close(self, session: Session) -> None:
        session.close()
        self.limiter.release_on_behalf_of(session)
        self._note_sessions()

    def drop_if_idle(self, session: Session) -> None:
        if session.is_idle and session in self._with_room:
            self._with_room.remove(session)
            self._gauges.idle -= 1
            self._close(session)
            self.freed()

    async def wait_until_unused(self) -> None:
        """Wait until no lease is left."""
        while self.leased:
            if self._unused is None:
                self._unused = trio.Event()
            await self._unused.wait()

    def expire_idle(self, now: float) -> float:
        """Close what has been idle for too long; when the next one will be, `math.inf` if none."""
        while self._with_room and self._with_room[0].has_expired(now):
            log.debug("%s: upstream_idle deadline passed", self.name)
            self.drop_if_idle(self._with_room[0])
        return self._with_room[0].idle_until if self._with_room else math.inf

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
        self._note_sessions()
        while self._with_room and self._sessions_left < 0:
            self.drop_if_idle(self._with_room[0])
        self.idle_seconds = idle_seconds
        latest = trio.current_time() + idle_seconds
        for session in self._with_room:
            session.idle_until = min(session.idle_until, latest)

    def set_weight(self, weight: int) -> None:
        """Change its share of the load; at least 1."""
        self.base_weight = weight
        self.weight = float(weight)
        self.condition.set_weight(weight)

    def close_idle(self) -> None:
        """Close every idle connection."""
        while self._with_room:
            self.drop_if_idle(self._with_room[-1])

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
