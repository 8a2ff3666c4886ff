"""The retry budget: no more retries than the traffic can bear, in any ten seconds."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from trio_proxy.policy.retry_budget import FLOOR, WINDOW_SECONDS, RetryBudget

#: Steps of a run: seconds that pass, then requests and tries to retry.
STEPS = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 1.5), st.sampled_from([0.5, 1.0, 9.5, 10.0, 11.0])),
        st.integers(0, 40),
        st.integers(0, 20),
    ),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 200), STEPS, st.floats(0, 1e6))
def test_retries_stay_within_their_share_of_the_requests_of_any_ten_seconds(
    percent: int, steps: list[tuple[float, int, int]], now: float
) -> None:
    """Or within the floor, for every window that ends with a granted retry."""
    budget = RetryBudget(percent)
    requests: list[Fraction] = []
    retries: list[Fraction] = []
    for seconds, new, tries in steps:
        now += seconds
        for _ in range(new):
            budget.request(now)
            requests.append(Fraction(now))
        for _ in range(tries):
            if budget.take(now):
                retries.append(Fraction(now))
                begin = Fraction(now) - Fraction(WINDOW_SECONDS)
                granted = sum(at >= begin for at in retries)
                came = sum(at > begin for at in requests)
                assert granted <= max(Fraction(FLOOR), Fraction(percent, 100) * came)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 200), st.integers(0, 500))
def test_the_whole_share_of_the_latest_requests_can_be_used(percent: int, came: int) -> None:
    """The bound is reached, and then nothing more is granted."""
    budget = RetryBudget(percent)
    for _ in range(came):
        budget.request(100.0)
    granted = sum(budget.take(100.0) for _ in range(1100))
    assert granted == max(FLOOR, came * percent // 100)


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1e6))
def test_a_used_up_budget_is_whole_again_after_a_window_and_a_bucket(now: float) -> None:
    """A refused retry costs nothing, so it does not delay that."""
    budget = RetryBudget(20)
    while budget.take(now):
        pass
    assert not budget.take(now + WINDOW_SECONDS)
    assert sum(budget.take(now + WINDOW_SECONDS + 1.5) for _ in range(50)) == FLOOR


def test_the_floor_is_granted_without_any_traffic() -> None:
    """Ten retries in ten seconds, and no eleventh."""
    budget = RetryBudget(20)
    assert [budget.take(5.0) for _ in range(12)] == [True] * 10 + [False] * 2


def test_requests_that_are_ten_seconds_old_no_longer_pay_for_retries() -> None:
    """What was a share of traffic falls back to the floor."""
    budget = RetryBudget(50)
    for _ in range(1000):
        budget.request(0.0)
    assert sum(budget.take(10.0) for _ in range(100)) == FLOOR


def test_a_new_share_counts_against_what_was_already_sent() -> None:
    """A reload neither forgives retries nor forgets requests."""
    budget = RetryBudget(20)
    for _ in range(100):
        budget.request(1.0)
    assert sum(budget.take(1.0) for _ in range(100)) == 20
    budget.apply(50)
    assert sum(budget.take(1.0) for _ in range(100)) == 30
