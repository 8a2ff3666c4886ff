"""Whether an upstream may be picked: one answer from health checks, failures, breaker and drain.

Every way to choose an upstream asks `Condition.is_available` and nothing else. What happens to
requests and checks is reported here, and what changes by it is logged with its reason.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Protocol

from attrs import frozen

from trio_proxy.policy.breaker import Breaker, State
from trio_proxy.policy.health import ActiveHealth, PassiveHealth
from trio_proxy.policy.slow_start import SlowStart
from trio_proxy.upstream.pool.rules import HealthRules, MemberRules

log = logging.getLogger("trio_proxy.upstream")


class Gauges(Protocol):
    """What is reported of an upstream's condition."""

    up: bool
    draining: bool
    breaker: str
    weight: int
    checks: dict[str, int]


@frozen
class Ticket:
    """What one request was let in as; its outcome is reported with it."""

    passive: int
    breaker: int


def _tell_nobody() -> None:
    """While a condition is not complete yet."""


class Condition:
    """The condition of one upstream. ``now`` is always the event loop's time in seconds."""

    def __init__(
        self,
        name: str,
        rules: MemberRules,
        health: HealthRules,
        gauges: Gauges,
        changed: Callable[[], None],
    ) -> None:
        self._name = name
        self._gauges = gauges
        self._changed = _tell_nobody
        self._passive = PassiveHealth(rules.max_fails, rules.fail_seconds)
        self._active = ActiveHealth(health.rise, health.fall)
        self._breaker: Breaker | None = None
        self._slow_start = SlowStart(rules.slow_start_seconds)
        #: The only member of its pool is never taken out by failures (as nginx has it).
        self.is_sole = False
        self._last_error = ""
        self._is_healthy = True
        self.draining = False
        self.weight = rules.weight
        self.apply(rules, health)
        self.drain(rules.drain)
        self._changed = changed

    def apply(self, rules: MemberRules, health: HealthRules) -> None:
        """Take on a new configuration; what is known of the upstream's health stays."""
        self._rules, self._health = rules, health
        #: Those that say something of the upstream's health.
        self._bad_statuses = health.fail_statuses | health.error_statuses
        self._passive.apply(rules.max_fails, rules.fail_seconds)
        self._active.apply(health.rise, health.fall)
        if health.breaker is None:
            self._breaker = None
        elif self._breaker is None:
            self._breaker = Breaker(health.breaker)
        else:
            self._breaker.apply(health.breaker)
        self._slow_start.apply(rules.slow_start_seconds)
        self.refresh()

    def refresh(self, why: str = "the configuration has changed") -> None:
        """Work out anew what is asked all the time; after every change.

        ``why`` is the reason if it is healthy again.
        """
        breaker, was_healthy = self._breaker, self._is_healthy
        self._is_healthy = self._active.is_up and not self._passive.was_ejected
        if self._is_healthy and not was_healthy:
            log.info("upstream %s up: %s", self._name, why)
        #: Nothing at all is the matter, so there is nothing to look up or to report.
        self.is_fit = (
            self._is_healthy
            and not self.draining
            and not self._slow_start.is_running
            and (breaker is None or breaker.state is State.CLOSED)
        )
        #: What requests are let in as while there is nothing to tell apart, None if there is.
        self.usual_ticket = self._ticket(0.0) if self.is_fit else None
        self._gauges.up = self._is_healthy
        self._gauges.draining = self.draining
        self._gauges.breaker = "" if breaker is None else breaker.state.value
        self._gauges.weight = self.weight
        self._changed()

    def set_sole(self, sole: bool) -> None:
        """Whether it is the only member of its pool."""
        if sole != self.is_sole:
            self.is_sole = sole
            self._passive.clear()
            self.refresh()

    # Questions

    def is_available(self, now: float) -> bool:
        """Whether a new request may be sent there."""
        return self.is_fit or (not self.draining and self.takes_stuck(now))

    def takes_stuck(self, now: float) -> bool:
        """Whether it may go on with the clients that are stuck to it; a drain is no obstacle."""
        healthy = self._is_healthy or (self._active.is_up and not self._passive.is_out(now))
        return healthy and self._is_admitted(now)

    def is_worth_a_try(self, now: float) -> bool:
        """Whether it may be sent requests although its health says no, as all others are out."""
        return not self.draining and self._is_admitted(now)

    def _is_admitted(self, now: float) -> bool:
        return self._breaker is None or self._breaker.admits(now)

    @property
    def passes_checks(self) -> bool:
        """What the active checks say; True without any."""
        return self._active.is_up

    def breaker_wait(self, now: float) -> float | None:
        """Seconds until an open breaker lets a request in; None if no breaker is in the way."""
        if self._breaker is None or self._breaker.admits(now):
            return None
        return self._breaker.wait(now)

    def changes_at(self, now: float) -> float:
        """When it may become available by nothing but time, `math.inf` if that is not to come."""
        if self.draining or not self._active.is_up or self.is_available(now):
            return math.inf
        return max(self._passive.back_at, now + (self.breaker_wait(now) or 0.0))

    def effective_weight(self, now: float) -> float:
        """The weight, less of it in a slow start (nginx: ``slow_start``)."""
        if not self._slow_start.is_running:
            return self.weight
        share = self._slow_start.share(now)
        if not self._slow_start.is_running:
            self.refresh()
        return self.weight * share

    # What happens

    def began(self, now: float) -> Ticket:
        """A request is sent there. With a `usual_ticket` this need not be asked."""
        if self.usual_ticket is not None:
            return self.usual_ticket
        breaker = self._breaker
        before = breaker.state if breaker is not None else None
        ticket = self._ticket(now)
        if breaker is not None and breaker.state is not before:
            self._breaker_changed(breaker.state, now)
        return ticket

    def _ticket(self, now: float) -> Ticket:
        breaker = self._breaker
        return Ticket(self._passive.began(now), 0 if breaker is None else breaker.began(now))

    def answered(self, ticket: Ticket, status: int, now: float) -> None:
        """A response head came."""
        if self.is_fit and status not in self._bad_statuses:
            # A success tells nothing new; only the breaker counts those, too.
            if self._breaker is not None:
                changed = self._breaker.succeeded(ticket.breaker, now)
                if changed is not None:
                    self._breaker_changed(changed, now)
            return
        failed = status in self._health.fail_statuses
        self._passive_outcome(ticket, failed, f"status {status}", now)
        broken = status in self._health.error_statuses
        self._breaker_outcome(ticket, broken, f"status {status}", now)

    def failed(self, ticket: Ticket, reason: str, now: float) -> None:
        """No response head came, and that is the upstream's fault."""
        self._passive_outcome(ticket, True, reason, now)
        self._breaker_outcome(ticket, True, reason, now)

    def abandoned(self, ticket: Ticket, now: float) -> None:
        """The request ended before it could tell anything: its client left, or a deadline came."""
        self._passive.abandoned(ticket.passive, now)
        if self._breaker is not None:
            self._breaker.abandoned(ticket.breaker, now)

    def _passive_outcome(self, ticket: Ticket, failed: bool, reason: str, now: float) -> None:
        if self.is_sole:
            return
        if failed:
            if self._passive.failed(ticket.passive, now):
                self.refresh()
                rules = self._rules
                log.warning(
                    "upstream %s down: %s (max_fails=%d within %g s), not used for %g s",
                    *(self._name, reason, rules.max_fails, rules.fail_seconds, rules.fail_seconds),
                )
        elif self._passive.succeeded(ticket.passive, now):
            self._came_back(now, "a request succeeded")

    def _breaker_outcome(self, ticket: Ticket, failed: bool, reason: str, now: float) -> None:
        if self._breaker is None:
            return
        if failed:
            self._last_error = reason
        report = self._breaker.failed if failed else self._breaker.succeeded
        changed = report(ticket.breaker, now)
        if changed is not None:
            self._breaker_changed(changed, now)

    def _breaker_changed(self, state: State, now: float) -> None:
        self.refresh()
        if state is State.OPEN:
            assert self._health.breaker is not None
            seconds = self._health.breaker.open_seconds
            log.warning(
                "upstream %s: breaker open for %g s, last error: %s",
                *(self._name, seconds, self._last_error),
            )
        else:
            log.info("upstream %s: breaker %s", self._name, state.value)
            if state is State.CLOSED:
                self._came_back(now, "")

    def let_try(self) -> None:
        """An outage of all is over, so what its requests came to in it says little."""
        self._passive.let_try()

    def check_passed(self, now: float) -> None:
        """An active check has passed."""
        self._gauges.checks["pass"] += 1
        # A check that passes after fail_timeout does for the trial, without risking a client's
        # request; one that ends a series of failed ones ends what they have caused, too.
        is_trial = self._passive.was_ejected and not self._passive.is_out(now)
        if self._active.passed() or (is_trial and self._active.is_up):
            self._passive.clear()
            self._came_back(now, "its health check passes")

    def check_failed(self, reason: str) -> None:
        """An active check has failed."""
        self._gauges.checks["fail"] += 1
        if self._active.failed():
            self.refresh()
            log.warning("upstream %s down: health check failed: %s", self._name, reason)

    def forget_checks(self) -> None:
        """There are no active checks any more, so what they said counts for nothing."""
        self._active = ActiveHealth(self._health.rise, self._health.fall)
        self.refresh()

    def start_slowly(self, now: float) -> None:
        """It is new: let its share of the load grow, if so configured."""
        self._came_back(now, "")

    def _came_back(self, now: float, why: str) -> None:
        self._slow_start.begin(now)
        self.refresh(why)

    # Orders

    def drain(self, on: bool) -> None:
        """Take no new requests, or take them again."""
        if self.draining != on:
            self.draining = on
            self.refresh()
            log.info("upstream %s %s", self._name, "draining" if on else "in use again")

    def set_weight(self, weight: int) -> None:
        """Change its share of the load; at least 1."""
        self.weight = weight
        self.refresh()
