"""All the tries of one exchange, until one gets a response head that is passed on.

A try leases a slot, sends the request and awaits the head, within `retry.try_timeout_ms`. If it
fails before anything has gone to the client, it may be followed by another, on an upstream that has
not failed this request while there is one. Nothing is retried once a head is out, nor an upstream
that took too long where there is no other: that would only double the wait (as nginx has it).
"""

from __future__ import annotations

import time

import trio

from trio_proxy.exchange.contract import Sink
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.errors import ProxyError, Reason
from trio_proxy.http.headers import Headers
from trio_proxy.http.messages import Fields, Request, ResponseHead
from trio_proxy.http.phases import Phase
from trio_proxy.policy.backoff import full_jitter, retry_after_seconds
from trio_proxy.policy.retry import MAX_PAUSE_SECONDS, condition_of, was_sent
from trio_proxy.upstream.attempt import Attempt
from trio_proxy.upstream.pool.pool import Pool
from trio_proxy.upstream.replay import ReplayContent
from trio_proxy.upstream.session import Slot
from trio_proxy.upstream.tries import MessageRules, Tries

#: An upstream that has taken too long would take as long again.
_TOO_SLOW = frozenset(
    (Reason.CONNECT_TIMEOUT, Reason.READ_TIMEOUT, Reason.WRITE_TIMEOUT, Reason.TRY_TIMEOUT)
)


class Retrier(Tries):
    """Sees one exchange through, on one upstream after another if need be."""

    __slots__ = ("_choice", "_made", "_pause", "_retry")

    def __init__(
        self, pool: Pool, exchange: Exchange, request: Request, sink: Sink, rules: MessageRules
    ) -> None:
        super().__init__(pool, exchange, request, sink, rules)
        #: The rules of the plan that the exchange began with.
        self._retry = pool.plan.retry
        self._choice = pool.choice_for(request, exchange.client)
        self._made = 0
        self._pause = 0.0
        self.is_replayable = self._retry.is_replayable(request.method)
        if not request.body.is_empty:
            self.content = self.replay = ReplayContent(request.content, self._retry.replay_bytes)

    async def run(self) -> Fields:
        """Relay the whole answer into the sink but for its end; its trailers are returned.

        Raises ProxyError if no try comes to an answer.
        """
        pool, exchange, choice = self.pool, self.exchange, self._choice
        timers = exchange.deadlines.timers
        now = timers.now()
        pool.budget.request(now)
        while True:
            exchange.phase = Phase.PICK
            slot = pool.lease_nowait(exchange, choice, now)
            if slot is None:
                slot = await pool.lease(exchange, choice, now)
            self._made += 1
            self.has_next = self._made < self._retry.attempts
            self.can_go_elsewhere = self.has_next and len(pool.members) > 1
            trailers = await Attempt(self, slot).run()
            if trailers is not None:
                return trailers
            await self._prepare_next()
            now = timers.now()

    def may_follow_failure(self, slot: Slot, error: ProxyError) -> bool:
        is_too_slow = error.reason in _TOO_SLOW
        return self._may_go_on(
            slot, condition_of(error), was_sent=was_sent(error), needs_another=is_too_slow
        )

    def may_follow_answer(self, slot: Slot, head: ResponseHead) -> bool:
        pause = 0.0
        if head.status in (429, 503):
            value = head.fields.get(b"retry-after", b"")
            pause = retry_after_seconds(value, time.time()) or 0.0
        return self._may_go_on(slot, str(head.status), was_sent=True, retry_after=pause)

    def _may_go_on(
        self,
        slot: Slot,
        condition: str,
        *,
        was_sent: bool,
        needs_another: bool = False,
        retry_after: float = 0.0,
    ) -> bool:
        """Decide on another try, and if there is to be one, how long to wait before it."""
        rules, exchange = self._retry, self.exchange
        if condition not in rules.on or rules.attempts == 1 or exchange.head_sent:
            return False
        now = exchange.deadlines.timers.now()
        self._choice.tried[slot.upstream] = now + retry_after
        after = self.pool.next_try(self._choice)
        self._pause = self._pause_before(after)
        obstacle = ""
        if after is None:
            obstacle = "no_upstream"
        elif self._made >= rules.attempts:
            obstacle = "attempts"
        elif was_sent and not self.is_replayable:
            obstacle = "method"
        elif self.replay is not None and not self.replay.can_rewind:
            obstacle = "replay_bytes"
        elif needs_another and not after[0]:
            obstacle = "no_upstream"
        elif self._pause >= min(exchange.deadlines.remaining(), MAX_PAUSE_SECONDS):
            obstacle = "deadline"
        elif not self.pool.budget.take(now):
            obstacle = "budget"
            self.pool.tell_budget_is_spent()
        exchange.not_retried = obstacle
        return not obstacle

    def _pause_before(self, after: tuple[bool, float] | None) -> float:
        """None before another upstream is asked; before the same, jitter or its Retry-After."""
        is_new, wait = after or (True, 0.0)
        return 0.0 if is_new else max(wait, full_jitter(self._made - 1, self.pool.random()))

    async def _prepare_next(self) -> None:
        if self.replay is not None:
            self.replay.rewind()
        if self._pause:
            self.exchange.phase = Phase.PICK
            await trio.sleep(self._pause)
        elif self.exchange.turns.take():
            await self.exchange.turns.pass_on()

    def add_cookie(self, fields: Headers, slot: Slot) -> None:
        sticky, cookie = self.pool.sticky, slot.upstream.cookie
        if sticky is not None and cookie and self._choice.stuck_to != cookie:
            secure = self.exchange.client.scheme == b"https"
            fields.add(*sticky.set_cookie(cookie, secure=secure))
