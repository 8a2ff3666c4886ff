"""Queueing: when a queue stands, and how long the next one would wait."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_proxy.policy.queueing import (
    LEAST_SAMPLES,
    MEMORY_SECONDS,
    MOST_GRANTS,
    MOST_SAMPLES,
    StandingDelay,
    WaitEstimate,
)

#: Seconds between two grants, and how long a place is held.
GAPS = st.integers(0, 80).map(lambda eighths: eighths / 8)
HOLDS = st.floats(0, 1000)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(GAPS, st.sampled_from([0.0, 0.1, 0.5, 2.0])), max_size=50))
def test_a_queue_stands_once_no_delay_below_target_was_seen_for_an_interval(
    observations: list[tuple[float, float]],
) -> None:
    """Exactly then, whatever was seen before."""
    standing = StandingDelay(0.5, interval_seconds=2.0)
    seen: list[tuple[float, float]] = []
    now = 0.0
    for gap, oldest_wait in observations:
        now += gap
        seen.append((now, oldest_wait))
        above = []
        for at, wait in reversed(seen):
            if wait < 0.5:
                break
            above.append(at)
        assert standing.observe(oldest_wait, now) == (bool(above) and now - above[-1] >= 2.0)


def test_a_burst_that_drains_within_the_interval_does_not_stand() -> None:
    """A delay above target is what a burst looks like too."""
    standing = StandingDelay(0.005)
    assert not standing.observe(0.050, 1.00)
    assert not standing.observe(0.020, 1.05)
    assert not standing.observe(0.001, 1.09)
    assert not standing.observe(0.020, 1.15)
    assert not standing.observe(0.020, 1.20)


def test_a_delay_that_stays_above_target_stands_after_a_hundred_milliseconds() -> None:
    """And no longer as soon as it is below."""
    standing = StandingDelay(0.005)
    assert not standing.observe(0.006, 1.0)
    assert standing.observe(0.006, 1.11)
    assert not standing.observe(0.004, 1.12)
    assert not standing.observe(0.006, 1.13)


def test_an_empty_queue_does_not_stand() -> None:
    """The next backlog has an interval of its own."""
    standing = StandingDelay(0.005)
    standing.observe(0.1, 1.0)
    standing.emptied()
    assert not standing.observe(0.1, 2.0)
    assert standing.observe(0.2, 2.2)


@settings(max_examples=200, deadline=None)
@given(st.lists(GAPS, max_size=LEAST_SAMPLES - 1), st.integers(0, 10**6), st.floats(0, 1e6))
def test_few_grants_are_no_ground_for_an_estimate(
    gaps: list[float], position: int, later: float
) -> None:
    """Nothing is shed on a guess, however long the queue and the stall."""
    estimate = WaitEstimate()
    for gap in gaps:
        estimate.granted(gap)
    assert estimate.wait(position, 1e6 + later) == 0.0


@settings(max_examples=200, deadline=None)
@given(
    st.lists(GAPS, min_size=LEAST_SAMPLES, max_size=200),
    st.integers(0, 10**4),
    st.floats(0, 1e4),
    st.floats(0, 1e4),
)
def test_a_wait_grows_with_the_position_and_while_nothing_moves(
    gaps: list[float], position: int, pause: float, longer: float
) -> None:
    """And it is never negative."""
    estimate = WaitEstimate()
    now = 0.0
    for gap in gaps:
        now += gap
        estimate.granted(now)
    wait = estimate.wait(position, now + pause)
    assert wait >= 0
    assert estimate.wait(position + 1, now + pause) >= wait
    assert estimate.wait(position, now + pause + longer) >= wait
    assert estimate.wait(position, now + 1e7) > 1e7 / (MOST_GRANTS + 1)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 80).map(lambda eighths: eighths / 8),
    st.integers(LEAST_SAMPLES, 200),
    st.integers(0, 1000),
    st.floats(0, 1),
)
def test_in_a_steady_queue_a_wait_is_the_gap_times_those_to_be_served(
    gap: float, grants: int, position: int, part: float
) -> None:
    """At any moment before the next grant is due."""
    estimate = WaitEstimate()
    for number in range(grants):
        estimate.granted(number * gap)
    now = (grants - 1 + part) * gap
    assert estimate.wait(position, now) == pytest.approx((position + 1) * gap)


def test_an_estimate_follows_the_latest_grants_only() -> None:
    """After as many new grants as are kept the old rate is forgotten."""
    estimate = WaitEstimate()
    for number in range(100):
        estimate.granted(number * 1.0)
    for number in range(MOST_GRANTS):
        estimate.granted(200 + number * 0.01)
    assert estimate.wait(0, 200.63) == pytest.approx(0.01)


def test_a_backlog_that_is_over_says_nothing_of_the_next() -> None:
    """The pause between them is no stall."""
    estimate = WaitEstimate()
    for number in range(20):
        estimate.granted(number * 1.0)
    estimate.emptied()
    assert estimate.wait(100, 20.0) == 0.0
    for number in range(LEAST_SAMPLES):
        estimate.granted(1000 + number * 0.5)
    assert estimate.wait(0, 1003.5) == pytest.approx(0.5)


def experienced(*holds: float, at: float = 0.0) -> WaitEstimate:
    """One that has seen requests hold their place for so long."""
    estimate = WaitEstimate()
    for seconds in holds:
        estimate.served(seconds, at)
    return estimate


@given(st.lists(HOLDS, min_size=LEAST_SAMPLES, max_size=600), HOLDS)
def test_a_chance_is_the_share_of_the_latest_requests(holds: list[float], seconds: float) -> None:
    """Those that took at most so long, of as many as it remembers."""
    latest = holds[-MOST_SAMPLES:]
    share = sum(each <= seconds for each in latest) / len(latest)
    assert experienced(*holds).chance(seconds, 0.0) == share


@given(st.lists(HOLDS, max_size=100), HOLDS, HOLDS, HOLDS)
def test_who_need_not_wait_and_has_all_its_time_is_never_hopeless(
    holds: list[float], wait: float, remaining: float, total: float
) -> None:
    """And who is hopeless stays so with more to wait, or less time left."""
    estimate = experienced(*holds)
    assert not estimate.is_hopeless(0.0, total, total, 0.0)
    if estimate.is_hopeless(wait, remaining, total, 0.0):
        assert estimate.is_hopeless(wait + 1, remaining, total, 0.0)
        assert estimate.is_hopeless(wait, remaining - 1, total, 0.0)


def test_work_of_one_length_needs_that_length() -> None:
    """0.4 s and not less, after the wait."""
    estimate = experienced(*[0.4] * LEAST_SAMPLES)
    assert not estimate.is_hopeless(0.6, 1.0, 1.0, 0.0)
    assert estimate.is_hopeless(0.61, 1.0, 1.0, 0.0)


def test_work_that_varies_needs_room_for_its_tail() -> None:
    """All but the longest hundredth of what took up to 2 s."""
    estimate = experienced(*[(number * 37 % 200 + 1) / 100 for number in range(200)])
    assert not estimate.is_hopeless(0.0, 1.985, 5.0, 0.0)
    assert estimate.is_hopeless(0.0, 1.975, 5.0, 0.0)


def test_streams_that_outlast_the_deadline_count_for_nothing() -> None:
    """One in ten lasts for five minutes: the others need what they need."""
    estimate = experienced(*[300.0 if number % 10 == 9 else 0.05 for number in range(200)])
    assert not estimate.is_hopeless(0.9, 1.0, 1.0, 0.0)
    assert estimate.is_hopeless(0.96, 1.0, 1.0, 0.0)


def test_nobody_is_hopeless_where_all_are() -> None:
    """Requests that take 2 s have no chance within 1 s, so waiting costs them nothing."""
    assert not experienced(*[2.0] * LEAST_SAMPLES).is_hopeless(0.5, 1.0, 1.0, 0.0)


def test_nobody_is_hopeless_without_a_deadline() -> None:
    """However long the wait."""
    estimate = experienced(*[2.0] * LEAST_SAMPLES)
    assert not estimate.is_hopeless(1000.0, math.inf, math.inf, 0.0)


def test_nobody_is_hopeless_before_there_are_enough_requests() -> None:
    """Seven say nothing."""
    assert not experienced(*[2.0] * (LEAST_SAMPLES - 1)).is_hopeless(5.0, 5.0, 5.0, 0.0)
    assert experienced(*[2.0] * LEAST_SAMPLES).is_hopeless(5.0, 5.0, 5.0, 0.0)


def test_what_is_long_ago_is_forgotten() -> None:
    """A slow time is believed for ten seconds."""
    estimate = experienced(*[2.0] * 100)
    assert estimate.is_hopeless(5.0, 6.0, 6.0, MEMORY_SECONDS)
    assert not estimate.is_hopeless(5.0, 6.0, 6.0, MEMORY_SECONDS + 0.1)
