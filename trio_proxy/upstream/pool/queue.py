"""Requests that wait until an upstream has room for them.

The queue is bounded in length, each wait by ``queue_ms`` and by the request's own deadline, and a
request that could not be served in time anyway is shed at once: a queue that only makes everybody
late serves nobody. It is first in, first out; with ``queue = "lifo"`` the newest come first while
the queue stands (Facebook's adaptive LIFO), as they have the most time left.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import trio
from attrs import define

from trio_proxy.exchange.complaint import Complaint
from trio_proxy.exchange.deadlines import WaitBlock
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.waits import Wait
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.policy.queueing import StandingDelay, WaitEstimate
from trio_proxy.upstream.pool.picker import Choice
from trio_proxy.upstream.pool.rules import QueueRules
from trio_proxy.upstream.session import Slot

log = logging.getLogger("trio_proxy.upstream")


@define(eq=False)
class Waiter:
    """One request in the queue, and what it was given in the end."""

    holder: Exchange
    choice: Choice
    since: float
    #: Whether it can have room where others have none; see `Choice`.
    is_particular: bool
    #: Who sleeps until the request is served.
    task: trio.lowlevel.Task
    granted: Slot | None = None
    error: ProxyError | None = None


Assign = Callable[[Exchange, Choice, float], Slot | None]


class Queue:
    """The waiting requests of one pool.

    ``assign`` finds a connection for a request ``now``, None if all have to wait, and raises
    ProxyError if waiting is of no use. ``lengths[name]`` shows the queue's length.

    A waiter is put to sleep and woken by its task alone, which is all that an event would do. Who
    is cancelled leaves the queue in that moment, so that nobody is woken twice.
    """

    def __init__(self, name: str, assign: Assign, lengths: dict[str, int]) -> None:
        self._name = name
        self._assign = assign
        self._lengths = lengths
        self._rules = QueueRules()
        #: In the order in which they came; unlike a dict it has the first at hand.
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()
        #: How many of them cannot take just any upstream.
        self._particular = 0
        #: Whether somebody waits who would take any upstream.
        self.has_general = False
        self._estimate = WaitEstimate()
        #: To be told for how long each request held its connection, when it gives that back.
        self.served = self._estimate.served
        self._delay = StandingDelay(self._rules.target_seconds)
        self._overloaded = False
        self._full = Complaint(log)
        self._at_cap = Complaint(log)
        self._shedding = Complaint(log)
        self._faults = Complaint(log)
        lengths[name] = 0

    def __len__(self) -> int:
        return len(self._waiters)

    def apply(self, rules: QueueRules) -> None:
        """Take on new bounds; who waits already goes on waiting."""
        if rules.target_seconds != self._rules.target_seconds:
            self._delay = StandingDelay(rules.target_seconds)
        self._rules = rules
        if not rules.is_lifo:
            self._overloaded = False

    async def wait(self, holder: Exchange, choice: Choice, now: float) -> Slot:
        """Wait for a connection from ``now`` on. Raises ProxyError."""
        task = trio.lowlevel.current_task()
        waiter = Waiter(holder, choice, now, choice.is_particular, task)

        def leave(_: Any) -> trio.lowlevel.Abort:
            self._remove(waiter)
            return trio.lowlevel.Abort.SUCCEEDED

        self._admit(waiter)
        self._add(waiter)
        with holder.deadlines.wait(Wait.QUEUE) as block:
            await trio.lowlevel.wait_task_rescheduled(leave)
            if block.is_late:
                # Served in the very moment in which its time was up: too late.
                await self._refuse_late(waiter, block)
        if waiter.error is not None:
            raise waiter.error
        assert waiter.granted is not None
        return waiter.granted

    async def _refuse_late(self, waiter: Waiter, block: WaitBlock) -> None:
        try:
            await block.too_late()
        except BaseException:
            if waiter.granted is not None:
                waiter.granted.upstream.give_back_unused(waiter.granted)
            raise

    def _admit(self, waiter: Waiter) -> None:
        """Refuse a request that would wait for nothing."""
        now, length = waiter.since, len(self._waiters)
        wait = self._estimate.wait(self._position_of(waiter), now)
        if length >= self._rules.max_length:
            self._full.warn("pool %s: limits.max_queue reached", self._name)
            raise self._refusal(Reason.QUEUE_FULL, wait)
        if wait > self._rules.seconds or self._is_hopeless(waiter, wait, now):
            raise self._shed(wait)
        if not length:
            self._at_cap.warn("pool %s: every upstream is at max_conns, queueing", self._name)

    def _position_of(self, waiter: Waiter) -> int:
        """How many wait in front of a new one, for the same: reckoned to the short side."""
        # While the newest come first, it is nobody; and who knows what particular ones wait for.
        if self._overloaded or waiter.is_particular:
            return 0
        return len(self._waiters) - self._particular

    def _is_hopeless(self, waiter: Waiter, wait: float, now: float) -> bool:
        deadlines = waiter.holder.deadlines
        remaining = deadlines.total_at - now
        return self._estimate.is_hopeless(wait, remaining, deadlines.total_seconds, now)

    def _shed(self, wait: float) -> ProxyError:
        self._shedding.warn("pool %s: shedding what could not be served in time", self._name)
        return self._refusal(Reason.QUEUE_SHED, wait)

    def _refusal(self, reason: Reason, wait: float) -> ProxyError:
        return ProxyError(Source.PROXY, Phase.PICK, reason, retry_after=wait)

    def _add(self, waiter: Waiter) -> None:
        self._waiters[waiter] = None
        self._particular += waiter.is_particular
        self._note_length()

    def _remove(self, waiter: Waiter) -> None:
        del self._waiters[waiter]
        self._particular -= waiter.is_particular
        self._note_length()
        if not self._waiters:
            self._estimate.emptied()
            self._delay.emptied()
            self._overloaded = False

    def _note_length(self) -> None:
        self._lengths[self._name] = length = len(self._waiters)
        self.has_general = length > self._particular

    def serve(self) -> None:
        """Give what has become free to those who wait."""
        if not self._waiters:
            return
        try:
            self._serve(trio.current_time())
        except Exception:  # noqa: BLE001 - logged, with its traceback
            # Nor does any other fault of ours in here cost whoever happened to free the place.
            self._faults.fault("internal error in serving the queue of pool %s", self._name)

    def _serve(self, now: float) -> None:
        self._note_overload(now)
        while self._waiters and not self._particular:
            waiters = reversed(self._waiters) if self._overloaded else iter(self._waiters)
            if not self._serve_one(next(waiters), now):
                return
        self._serve_particular(now)

    def _serve_particular(self, now: float) -> None:
        """Go through all: where one has to wait, another of another kind may not have to."""
        waiters = list(self._waiters)
        blocked = set()
        for waiter in reversed(waiters) if self._overloaded else waiters:
            kind = waiter.choice.kind
            if kind not in blocked and not self._serve_one(waiter, now):
                blocked.add(kind)

    def _note_overload(self, now: float) -> None:
        if self._rules.is_lifo:
            oldest = next(iter(self._waiters))
            self._overloaded = self._delay.observe(now - oldest.since, now)

    def _serve_one(self, waiter: Waiter, now: float) -> bool:
        """Whether the waiter waits no longer."""
        try:
            if self._is_hopeless(waiter, 0.0, now):
                raise self._shed(0.0)
            waiter.granted = self._assign(waiter.holder, waiter.choice, now)
        except ProxyError as exc:
            waiter.error = exc
        except Exception as fault:
            # A fault of ours in here must not cost whoever happened to free the place.
            log.exception("internal error in choosing an upstream")
            waiter.error = ProxyError(Source.PROXY, Phase.PICK, Reason.INTERNAL, detail=repr(fault))
        if waiter.granted is None and waiter.error is None:
            return False
        if waiter.granted is not None:
            self._estimate.granted(now)
        self._remove(waiter)
        trio.lowlevel.reschedule(waiter.task)
        return True
