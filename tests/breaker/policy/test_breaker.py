"""The circuit breaker: when it opens, how it is probed, and whose outcome counts."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_proxy.policy.breaker import PROBE_WAIT_SECONDS, Breaker, BreakerRules, State

RULES = BreakerRules(
    window_seconds=10.0,
    min_requests=4,
    error_percent=50,
    open_seconds=5.0,
    half_open_requests=2,
)


def opened(rules: BreakerRules = RULES) -> Breaker:
    """A breaker that opened at 0."""
    breaker = Breaker(rules)
    for _ in range(rules.min_requests):
        breaker.failed(breaker.began(0.0), 0.0)
    assert breaker.state is State.OPEN
    return breaker


def half_opened() -> tuple[Breaker, int]:
    """A breaker whose first probe was sent at 5, and the probe's ticket."""
    breaker = opened()
    ticket = breaker.began(5.0)
    assert breaker.state is State.HALF_OPEN
    return breaker, ticket


@settings(max_examples=300, deadline=None)
@given(st.lists(st.booleans(), max_size=60), st.integers(1, 20), st.integers(1, 100))
def test_it_opens_with_the_first_outcome_that_makes_the_share_of_errors_too_large(
    outcomes: list[bool], least: int, percent: int
) -> None:
    """Not before there are enough, and at the first that are."""
    breaker = Breaker(evolve(RULES, min_requests=least, error_percent=percent))
    errors = 0
    for count, is_good in enumerate(outcomes, 1):
        ticket = breaker.began(1.0)
        errors += not is_good
        report = breaker.succeeded if is_good else breaker.failed
        is_over = count >= least and errors / count >= percent / 100
        assert report(ticket, 1.0) == (State.OPEN if is_over else None)
        if is_over:
            break


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1e6), st.floats(0, 20), st.floats(0.001, 20))
def test_it_admits_exactly_when_there_is_nothing_to_wait_for(
    at: float, later: float, open_seconds: float
) -> None:
    """And asking leaves it as it was."""
    breaker = Breaker(evolve(RULES, open_seconds=open_seconds, min_requests=1))
    breaker.failed(breaker.began(at), at)
    wait = breaker.wait(at + later)
    assert breaker.admits(at + later) == (wait == 0.0)
    assert 0 <= wait <= open_seconds + 1e-9
    assert breaker.state is State.OPEN


def test_half_of_the_requests_failing_opens_it() -> None:
    """Two of four, and the change is told once."""
    breaker = Breaker(RULES)
    assert breaker.succeeded(breaker.began(0.0), 0.0) is None
    assert breaker.succeeded(breaker.began(1.0), 1.0) is None
    assert breaker.failed(breaker.began(2.0), 2.0) is None
    assert breaker.failed(breaker.began(3.0), 3.0) is State.OPEN
    assert not breaker.admits(3.0)


def test_few_requests_are_no_ground_to_open_it() -> None:
    """All of them failing is not enough below the least number."""
    breaker = Breaker(RULES)
    for _ in range(3):
        assert breaker.failed(breaker.began(0.0), 0.0) is None
    assert breaker.admits(0.0)


def test_outcomes_older_than_the_window_do_not_count() -> None:
    """Three failures, and a fourth ten seconds later, are one."""
    breaker = Breaker(RULES)
    for _ in range(3):
        breaker.failed(breaker.began(0.0), 0.0)
    assert breaker.failed(breaker.began(10.0), 10.0) is None
    assert breaker.state is State.CLOSED


def test_a_request_without_a_verdict_is_not_counted() -> None:
    """Clients that leave neither open it nor keep it closed."""
    breaker = Breaker(RULES)
    for _ in range(100):
        breaker.abandoned(breaker.began(0.0), 0.0)
    for _ in range(3):
        breaker.failed(breaker.began(0.0), 0.0)
    assert breaker.failed(breaker.began(0.0), 0.0) is State.OPEN


def test_an_open_breaker_says_how_long_it_stays_so() -> None:
    """The rest of its time, then nothing."""
    breaker = opened()
    assert breaker.wait(0.0) == 5.0
    assert breaker.wait(4.0) == 1.0
    assert not breaker.admits(4.0)
    assert breaker.wait(5.0) == 0.0
    assert breaker.admits(5.0)


def test_it_is_half_open_from_the_first_request_after_its_time() -> None:
    """Time alone changes nothing."""
    breaker = opened()
    assert breaker.admits(100.0)
    assert breaker.state == "open"
    breaker.began(100.0)
    assert breaker.state == "half_open"


def test_a_half_open_breaker_admits_only_as_many_at_once_as_it_has_places() -> None:
    """The next may ask again in a second."""
    breaker, _ = half_opened()
    assert breaker.admits(5.0)
    breaker.began(5.0)
    assert not breaker.admits(5.0)
    assert breaker.wait(5.0) == PROBE_WAIT_SECONDS


@pytest.mark.parametrize("outcomes", ["FFFF", "SSFF"])
def test_enough_successes_close_it_with_a_clean_window(outcomes: str) -> None:
    """Only what comes afterwards decides when it opens again."""
    breaker, first = half_opened()
    assert breaker.succeeded(first, 5.0) is None
    assert breaker.succeeded(breaker.began(5.0), 5.0) is State.CLOSED
    breaker.apply(evolve(RULES, error_percent=50 if "S" in outcomes else 100))
    changes = [
        (breaker.succeeded if outcome == "S" else breaker.failed)(breaker.began(5.0), 5.0)
        for outcome in outcomes
    ]
    assert changes == [None, None, None, State.OPEN]


@pytest.mark.parametrize("outcomes", ["SSSF", "SFSS"])
def test_a_closed_breaker_forgets_the_failures_that_opened_it(outcomes: str) -> None:
    """One new failure in four does not open it again."""
    breaker, first = half_opened()
    breaker.succeeded(first, 5.0)
    breaker.succeeded(breaker.began(5.0), 5.0)
    for outcome in outcomes:
        report = breaker.succeeded if outcome == "S" else breaker.failed
        assert report(breaker.began(5.0), 5.0) is None


def test_one_failure_opens_a_half_open_breaker_again() -> None:
    """For its full time from then, and the successes before it do not count later."""
    breaker, first = half_opened()
    second = breaker.began(5.0)
    breaker.succeeded(first, 6.0)
    assert breaker.failed(second, 7.0) is State.OPEN
    assert breaker.wait(7.0) == 5.0
    assert breaker.succeeded(breaker.began(12.0), 12.0) is None
    assert breaker.state is State.HALF_OPEN


def test_a_probe_that_is_abandoned_gives_its_place_back() -> None:
    """It is neither a success nor a failure."""
    breaker, first = half_opened()
    second = breaker.began(5.0)
    breaker.abandoned(first, 6.0)
    assert breaker.state is State.HALF_OPEN
    assert breaker.admits(6.0)
    assert breaker.succeeded(second, 6.0) is None


def test_a_slow_request_from_before_has_no_say() -> None:
    """Neither while the breaker is open, nor half-open, nor closed again."""
    breaker = Breaker(RULES)
    slow = [breaker.began(0.0) for _ in range(20)]
    for _ in range(4):
        breaker.failed(breaker.began(0.0), 0.0)
    assert breaker.failed(slow.pop(), 4.0) is None
    assert breaker.wait(4.0) == 1.0
    probes = [breaker.began(5.0), breaker.began(5.0)]
    assert breaker.failed(slow.pop(), 5.0) is None
    assert breaker.succeeded(slow.pop(), 5.0) is None
    breaker.abandoned(slow.pop(), 5.0)
    assert not breaker.admits(5.0)
    assert [breaker.succeeded(probe, 6.0) for probe in probes] == [None, State.CLOSED]
    assert {breaker.failed(ticket, 6.0) for ticket in slow} == {None}
    assert breaker.state is State.CLOSED


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "abandoned"])
def test_a_request_that_is_sent_without_being_admitted_has_no_say(outcome: str) -> None:
    """Neither while it is open nor when all places are taken."""
    breaker = opened()
    unasked = breaker.began(1.0)
    breaker.began(5.0)
    breaker.began(5.0)
    for ticket in (unasked, breaker.began(5.0)):
        assert getattr(breaker, outcome)(ticket, 5.0) is None
        assert breaker.state is State.HALF_OPEN
        assert not breaker.admits(5.0)


def test_new_rules_keep_the_state_and_count_from_when_it_opened() -> None:
    """A reload neither closes it nor begins its time anew."""
    breaker = opened()
    breaker.apply(evolve(RULES, open_seconds=20.0))
    assert breaker.wait(5.0) == 15.0
    breaker.apply(evolve(RULES, open_seconds=1.0))
    assert breaker.admits(1.0)


def test_new_rules_with_the_same_window_keep_the_outcomes() -> None:
    """They are judged anew with the next one."""
    breaker = Breaker(RULES)
    breaker.failed(breaker.began(0.0), 0.0)
    breaker.apply(evolve(RULES, min_requests=2))
    assert breaker.state is State.CLOSED
    assert breaker.failed(breaker.began(0.0), 0.0) is State.OPEN


def test_a_new_window_begins_with_nothing_in_it() -> None:
    """Outcomes that were counted by another measure say nothing."""
    breaker = Breaker(RULES)
    for _ in range(3):
        breaker.failed(breaker.began(0.0), 0.0)
    breaker.apply(evolve(RULES, window_seconds=60.0))
    for _ in range(3):
        assert breaker.failed(breaker.began(1.0), 1.0) is None
