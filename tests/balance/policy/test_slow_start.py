"""Slow start: the share of the load grows from a tenth to all of it, and stays there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_proxy.policy.slow_start import FLOOR, SlowStart

SECONDS = st.floats(0.001, 1e5)


@given(SECONDS, st.lists(st.floats(0, 2e5), max_size=20), st.floats(0, 1e9))
def test_the_share_only_grows_and_is_whole_in_the_end(
    seconds: float, moments: list[float], began_at: float
) -> None:
    """Never below the floor, never above one, one after its length."""
    ramp = SlowStart(seconds)
    ramp.begin(began_at)
    last = FLOOR
    for elapsed in sorted(moments):
        share = ramp.share(began_at + elapsed)
        assert last <= share <= 1.0
        last = share
    assert ramp.share(began_at + 2 * seconds + 1) == 1.0
    assert not ramp.is_running


def test_half_the_time_is_half_the_share() -> None:
    """And the first tenth of it is at the floor."""
    ramp = SlowStart(10.0)
    ramp.begin(100.0)
    assert ramp.share(100.0) == FLOOR
    assert ramp.share(105.0) == pytest.approx(0.5)


def test_without_a_length_there_is_none() -> None:
    """The whole share at once."""
    ramp = SlowStart(0.0)
    ramp.begin(100.0)
    assert not ramp.is_running
    assert ramp.share(100.0) == 1.0


def test_before_it_has_begun_the_share_is_whole() -> None:
    """A proxy that starts does not start slowly."""
    assert SlowStart(10.0).share(0.0) == 1.0


def test_it_can_begin_again() -> None:
    """With the floor."""
    ramp = SlowStart(10.0)
    ramp.begin(0.0)
    ramp.begin(8.0)
    assert ramp.share(8.0) == FLOOR


def test_a_configuration_without_ends_a_running_one() -> None:
    """And one with another length counts from its beginning."""
    ramp = SlowStart(10.0)
    ramp.begin(0.0)
    ramp.apply(20.0)
    assert ramp.share(10.0) == pytest.approx(0.5)
    ramp.apply(0.0)
    assert ramp.share(10.0) == 1.0
