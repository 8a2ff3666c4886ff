"""All the tries of one exchange, until one gets a response head that is passed on.

A try leases a connection, sends the request and awaits the head, within `retry.try_timeout_ms`. If
it fails before anything has gone to the client, it may be followed by another, on an upstream that
has not failed this request while there is one. Nothing is retried once a head is out.
"""

from __future__ import annotations

import time

import trio

from trio_proxy.http.errors import ProxyError
from trio_proxy.http.messages import Fields, ResponseHead
from trio_proxy.http.phases import Phase
from trio_proxy.policy.backoff import full_jitter, retry_after_seconds
from trio_proxy.policy.retry import MAX_PAUSE_SECONDS, condition_of, was_sent
from trio_proxy.upstream.attempt import UpstreamExchange
from trio_proxy.upstream.call import Call
from trio_proxy.upstream.lease import Lease
from trio_proxy.upstream.pool.pool import Pool
from trio_proxy.upstream.replay import ReplayBody


class Attempts:
    """Sees one exchange through, on one upstream after another if need be."""

    __slots__ = (
        "_call",
        "_choice",
        "_is_replayable",
        "_made",
        "_pause",
        "_pool",
        "_replay",
        "_rules",
    )

    def __init__(self, pool: Pool, call: Call) -> None:
        self._pool = pool
        self._call = call
        #: The rules of the plan that the exchange began with.
        self._rules = pool.plan.retry
        self._choice = pool.choice_for(call.request, call.origin)
        self._made = 0
        self._pause = 0.0
        self._is_replayable = self._rules.is_replayable(call.request.method)
        self._replay: ReplayBody | None = None
        if not call.request.body.is_empty:
            self._replay = ReplayBody(call.sink.body, self._rules.replay_bytes)

    async def run(self) -> Fields:
        """Relay the whole answer into the sink but for its end; its trailers are returned.

        Raises ProxyError if no try comes to an answer.
        """
        pool, call = self._pool, self._call
        timers = call.watchdog.timers
        now = timers.now()
        pool.budget.request(now)
        while True:
            call.exchange.phase = Phase.PICK
            held = pool.lease_nowait(call, self._choice, now)
            with Lease(pool, call, held or await pool.lease(call, self._choice, now)) as lease:
                self._made += 1
                upstream = UpstreamExchange(
                    call,
                    lease,
                    self._replay,
                    is_replayable=self._is_replayable,
                    has_next=self._made < self._rules.attempts,
                )
                try:
                    head = await self._try(upstream, lease)
                    if head is not None:
                        self._settle(lease)
                        return await upstream.relay(head)
                finally:
                    upstream.stop(timers.now())
                await upstream.give_up()
            await self._prepare_next()
            now = timers.now()

    async def _try(self, upstream: UpstreamExchange, lease: Lease) -> ResponseHead | None:
        """The response head to pass on; None if the request is to be sent again."""
        watchdog = self._call.watchdog
        if watchdog.is_over:
            await trio.lowlevel.checkpoint()  # nothing may be sent any more
        watchdog.start_try(lease.connection.leased_at, lease.interrupt)
        try:
            head = await upstream.await_head()
        except ProxyError as exc:
            upstream.note_failure(exc)
            # A client that waits for a 100 is as late as the upstream (RFC 9110 §10.1.1).
            if not (upstream.awaits_continue and condition_of(exc) == "timeout"):
                lease.failed(exc)
            if not self._may_go_on(lease, condition_of(exc), was_sent=was_sent(exc)):
                raise
            return None
        finally:
            watchdog.stop_try()
        lease.answered(head.status, upstream.head_at)
        if head.status < 400:
            return head
        if head.status in (429, 503):
            value = head.fields.get(b"retry-after", b"")
            pause = retry_after_seconds(value, time.time()) or 0.0
        else:
            pause = 0.0
        if self._may_go_on(lease, str(head.status), was_sent=True, retry_after=pause):
            return None
        return head

    def _may_go_on(
        self, lease: Lease, condition: str, *, was_sent: bool, retry_after: float = 0.0
    ) -> bool:
        """Decide on another try, and if there is to be one, how long to wait before it."""
        rules, now = self._rules, self._call.watchdog.timers.now()
        if condition not in rules.on or rules.attempts == 1 or self._call.exchange.head_sent:
            return False
        self._choice.tried[lease.upstream] = now + retry_after
        after = self._pool.next_try(self._choice)
        self._pause = self._pause_before(after)
        remaining = self._call.watchdog.deadlines.remaining_total(now)
        obstacle = ""
        if after is None:
            obstacle = "no_upstream"
        elif self._made >= rules.attempts:
            obstacle = "attempts"
        elif was_sent and not self._is_replayable:
            obstacle = "method"
        elif self._replay is not None and not self._replay.can_rewind:
            obstacle = "replay_bytes"
        elif self._pause >= min(remaining, MAX_PAUSE_SECONDS):
            obstacle = "deadline"
        elif not self._pool.budget.take(now):
            obstacle = "budget"
            self._pool.tell_budget_is_spent()
        self._call.exchange.not_retried = obstacle
        return not obstacle

    def _pause_before(self, after: tuple[bool, float] | None) -> float:
        """None before another upstream is asked; before the same, jitter or its Retry-After."""
        is_new, wait = after or (True, 0.0)
        return 0.0 if is_new else max(wait, full_jitter(self._made - 1, self._pool.random()))

    async def _prepare_next(self) -> None:
        if self._replay is not None:
            self._replay.rewind()
        if self._pause:
            self._call.exchange.phase = Phase.PICK
            self._call.watchdog.arm("")
            await trio.sleep(self._pause)

    def _settle(self, lease: Lease) -> None:
        """This try's answer is the one: nothing has to be kept, and a moved client is told so."""
        if self._replay is not None:
            self._replay.let_go()
        sticky, call = self._pool.sticky, self._call
        cookie = lease.upstream.cookie
        if sticky is not None and cookie and self._choice.stuck_to != cookie:
            secure = call.origin.proto == b"https"
            call.sink.extra_fields.append(sticky.set_cookie(cookie, secure=secure))
