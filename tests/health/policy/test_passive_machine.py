"""Passive health against a model that remembers every request."""

from __future__ import annotations

from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from trio_proxy.policy.health import PassiveHealth


@define(eq=False)
class Sent:
    """A request under way: its ticket, and what the model knows of it."""

    ticket: int
    state: int
    is_trial: bool


class HealthMachine(RuleBasedStateMachine):
    """The model numbers the states: even ones are in, odd ones are out (or on trial)."""

    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.max_fails, self.fail_seconds = 2, 10.0
        self.health = PassiveHealth(self.max_fails, self.fail_seconds)
        self.now = 1000.0
        self.state = 0
        self.failed_at: list[float] = []
        self.shut_at: float | None = None
        self.trial: Sent | None = None

    def is_shut(self) -> bool:
        return self.shut_at is not None and self.now < self.shut_at + self.fail_seconds

    def come_back(self) -> None:
        self.state += 1
        self.failed_at, self.shut_at, self.trial = [], None, None

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 4.0, 9.5, 10.0, 30.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=sent)
    def begin(self) -> Sent:
        is_trial = self.state % 2 == 1 and not self.is_shut()
        request = Sent(self.health.began(self.now), self.state, is_trial)
        assert (request.ticket > 0) == is_trial
        if is_trial:
            self.trial, self.shut_at = request, self.now
        return request

    @rule(request=consumes(sent))
    def succeed(self, request: Sent) -> None:
        returns = self.state % 2 == 1 and request.state == self.state
        assert self.health.succeeded(request.ticket, self.now) == returns
        if returns:
            self.come_back()

    @rule(request=consumes(sent))
    def fail(self, request: Sent) -> None:
        leaves = False
        if self.state % 2 == 1:
            leaves = request is self.trial
        elif request.state == self.state and self.max_fails:
            self.failed_at.append(self.now)
            recent = [at for at in self.failed_at if self.now - at <= self.fail_seconds]
            leaves = len(recent) >= self.max_fails
            self.state += leaves
        assert self.health.failed(request.ticket, self.now) == leaves
        if leaves:
            self.failed_at, self.shut_at, self.trial = [], self.now, None

    @rule()
    def send_one_that_fails(self) -> None:
        self.fail(self.begin())

    @rule(request=consumes(sent))
    def abandon(self, request: Sent) -> None:
        self.health.abandoned(request.ticket, self.now)
        if request is self.trial:
            self.trial, self.shut_at = None, None

    @rule()
    def clear(self) -> None:
        self.health.clear()
        self.failed_at = []
        if self.state % 2 == 1:
            self.come_back()

    @rule(max_fails=st.integers(0, 4), fail_seconds=st.sampled_from([5.0, 10.0]))
    def reload(self, max_fails: int, fail_seconds: float) -> None:
        self.health.apply(max_fails, fail_seconds)
        self.max_fails, self.fail_seconds = max_fails, fail_seconds
        del self.failed_at[: max(0, len(self.failed_at) - max_fails)]
        if not max_fails and self.state % 2 == 1:
            self.come_back()

    @invariant()
    def it_is_out_as_the_model_says(self) -> None:
        assert self.health.was_ejected == (self.state % 2 == 1)
        assert self.health.is_out(self.now) == self.is_shut()

    @invariant()
    def it_remembers_few_failures(self) -> None:
        assert len(self.health._failures) <= self.max_fails


TestHealthMachine = HealthMachine.TestCase
TestHealthMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
