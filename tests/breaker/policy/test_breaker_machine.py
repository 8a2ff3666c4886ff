"""The circuit breaker against a model that remembers every outcome and every request."""

from __future__ import annotations

from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from trio_proxy.policy.breaker import Breaker, BreakerRules, State

#: Buckets of the window are one second wide, so the model can tell them apart by whole seconds.
RULES = BreakerRules(
    window_seconds=10.0,
    min_requests=3,
    error_percent=60,
    open_seconds=5.0,
    half_open_requests=2,
)


@define(eq=False)
class Sent:
    """A request under way; ``counts`` until the state in which it was admitted has ended."""

    ticket: int
    counts: bool
    at: float


class BreakerMachine(RuleBasedStateMachine):
    """Requests under way are kept in lists, so that a change of state can disown them all."""

    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(RULES)
        self.now = 1000.0
        self.state = State.CLOSED
        self.outcomes: list[tuple[float, bool]] = []
        self.under_way: list[Sent] = []
        self.successes = 0
        self.opened_at = 0.0

    def change(self, state: State) -> State:
        for request in self.under_way:
            request.counts = False
        self.state, self.under_way, self.outcomes, self.successes = state, [], [], 0
        if state is State.OPEN:
            self.opened_at = self.now
        return state

    def is_admitted(self) -> bool:
        if self.state is State.OPEN:
            return self.now >= self.opened_at + 5.0
        return self.state is State.CLOSED or self.fresh() < 2

    def fresh(self) -> int:
        """The probes that hold a place: after 5 s it is given to another."""
        return sum(request.at > self.now - 5.0 for request in self.under_way)

    def judge(self) -> State | None:
        recent = [good for at, good in self.outcomes if self.now // 1 - at // 1 < 10]
        if len(recent) >= 3 and recent.count(False) / len(recent) >= 0.6:
            return self.change(State.OPEN)
        return None

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 4.5, 5.0, 9.5, 10.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=sent)
    def begin(self) -> Sent:
        is_admitted = self.is_admitted()
        if is_admitted and self.state is State.OPEN:
            self.change(State.HALF_OPEN)
        request = Sent(self.breaker.began(self.now), is_admitted, self.now)
        if is_admitted:
            self.under_way.append(request)
        return request

    @rule(request=consumes(sent))
    def succeed(self, request: Sent) -> None:
        expected = None
        if request.counts:
            self.under_way.remove(request)
            if self.state is State.CLOSED:
                self.outcomes.append((self.now, True))
                expected = self.judge()
            else:
                self.successes += 1
                expected = self.change(State.CLOSED) if self.successes == 2 else None
        assert self.breaker.succeeded(request.ticket, self.now) == expected

    @rule(request=consumes(sent))
    def fail(self, request: Sent) -> None:
        expected = None
        if request.counts:
            self.under_way.remove(request)
            if self.state is State.CLOSED:
                self.outcomes.append((self.now, False))
                expected = self.judge()
            else:
                expected = self.change(State.OPEN)
        assert self.breaker.failed(request.ticket, self.now) == expected

    @rule(is_good=st.booleans())
    def send_one(self, is_good: bool) -> None:
        (self.succeed if is_good else self.fail)(self.begin())

    @rule(request=consumes(sent))
    def abandon(self, request: Sent) -> None:
        if request.counts:
            self.under_way.remove(request)
        self.breaker.abandoned(request.ticket, self.now)

    @invariant()
    def it_is_in_the_state_of_the_model(self) -> None:
        assert self.breaker.state is self.state

    @invariant()
    def it_admits_what_the_model_admits(self) -> None:
        assert self.breaker.admits(self.now) == self.is_admitted()
        assert (self.breaker.wait(self.now) == 0.0) == self.is_admitted()

    @invariant()
    def never_more_fresh_probes_than_places_are_under_way(self) -> None:
        if self.state is State.HALF_OPEN:
            assert self.fresh() <= 2


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
