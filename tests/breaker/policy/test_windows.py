"""Sliding counts: which events are in the window, for any events and any moment."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from trio_proxy.policy.windows import SlidingCount

#: Moments in order, in eighths of a second, so that every sum and product below is exact.
MOMENTS = st.lists(st.integers(0, 1000).map(lambda eighths: eighths / 8), max_size=60).map(sorted)
BUCKETS = st.integers(1, 12)
WIDTHS = st.sampled_from([0.125, 0.5, 1.0, 3.0])


@settings(max_examples=300, deadline=None)
@given(MOMENTS, BUCKETS, WIDTHS)
def test_a_window_counts_nothing_that_is_older_than_its_length(
    moments: list[float], buckets: int, width: float
) -> None:
    """And all that is younger than its full buckets together."""
    seconds = buckets * width
    window = SlidingCount(seconds, buckets)
    for number, now in enumerate(moments, 1):
        window.add(now)
        ages = [now - moment for moment in moments[:number]]
        total = window.total(now)
        assert total <= sum(age < seconds for age in ages)
        assert total >= sum(age <= seconds - width for age in ages)


@settings(max_examples=300, deadline=None)
@given(MOMENTS, BUCKETS, WIDTHS)
def test_a_window_of_at_least_its_length_counts_all_that_is_no_older(
    moments: list[float], buckets: int, width: float
) -> None:
    """And nothing that is older by a bucket."""
    seconds = buckets * width
    window = SlidingCount(seconds, buckets, at_least=True)
    for number, now in enumerate(moments, 1):
        window.add(now)
        ages = [now - moment for moment in moments[:number]]
        total = window.total(now)
        assert total >= sum(age <= seconds for age in ages)
        assert total <= sum(age < seconds + width for age in ages)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0, 1e6), max_size=60).map(sorted),
    st.floats(0.001, 1000),
    BUCKETS,
    st.booleans(),
)
def test_a_window_of_any_length_is_the_buckets_that_its_description_names(
    moments: list[float], seconds: float, buckets: int, at_least: bool
) -> None:
    """Events are counted by the number of the bucket that they fall in."""
    window = SlidingCount(seconds, buckets, at_least=at_least)
    width = seconds / buckets
    numbers = [Fraction(moment) // Fraction(width) for moment in moments]
    for count, now in enumerate(moments, 1):
        window.add(now)
        first = numbers[count - 1] - buckets + (0 if at_least else 1)
        assert window.total(now) == sum(number >= first for number in numbers[:count])


@settings(max_examples=100, deadline=None)
@given(MOMENTS, st.floats(0, 1000))
def test_asking_for_the_total_changes_no_later_total(moments: list[float], between: float) -> None:
    """Buckets are dropped when they are looked at, and would have been dropped anyway."""
    asked, unasked = SlidingCount(5.0), SlidingCount(5.0)
    for now in moments:
        asked.add(now)
        unasked.add(now)
        asked.total(now)
    at = max([*moments, between])
    asked.total(at)
    assert asked.total(at + 1) == unasked.total(at + 1)


def test_a_window_slides_by_whole_buckets() -> None:
    """An event leaves when the bucket that is a window further on begins."""
    window = SlidingCount(10.0)
    window.add(0.9)
    window.add(9.5)
    assert window.total(9.9) == 2
    assert window.total(10.0) == 1


def test_a_window_of_at_least_its_length_keeps_one_bucket_more() -> None:
    """The same event leaves one bucket later."""
    window = SlidingCount(10.0, at_least=True)
    window.add(0.9)
    assert window.total(10.9) == 1
    assert window.total(11.0) == 0


def test_several_events_are_added_at_once() -> None:
    """A batch counts as many times as it says."""
    window = SlidingCount(10.0)
    window.add(1.0, 5)
    window.add(1.5, 2)
    assert window.total(2.0) == 7
    assert window.total(100.0) == 0


def test_a_moment_that_is_earlier_than_the_last_counts_as_the_last() -> None:
    """No event is lost, and none comes back."""
    window = SlidingCount(10.0)
    window.add(50.0)
    window.add(20.0)
    assert window.total(50.0) == 2
    assert window.total(20.0) == 2


def test_a_cleared_window_holds_nothing() -> None:
    """What is added afterwards counts as before."""
    window = SlidingCount(10.0)
    window.add(1.0, 3)
    window.clear()
    assert window.total(1.0) == 0
    window.add(1.0)
    assert window.total(1.0) == 1
    assert window.total(11.0) == 0
