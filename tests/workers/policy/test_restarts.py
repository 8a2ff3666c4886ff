"""Restarts: at once, then after pauses that double up to a cap, and anew after a sound life."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_proxy.policy.restarts import (
    FIRST_PAUSE_SECONDS,
    MAX_PAUSE_SECONDS,
    SOUND_AFTER_SECONDS,
    Restarts,
)

SHORT = SOUND_AFTER_SECONDS / 2


def test_the_first_restart_is_at_once_and_each_further_pause_twice_as_long() -> None:
    """0, 0.5, 1, 2, … 30 seconds."""
    restarts = Restarts()
    pauses = [restarts.pause_after(SHORT) for _ in range(10)]
    assert pauses == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_sound_life_begins_a_new_row() -> None:
    """Its death is the first again."""
    restarts = Restarts()
    for _ in range(5):
        restarts.pause_after(0)
    assert restarts.pause_after(SOUND_AFTER_SECONDS) == 0
    assert restarts.pause_after(0) == FIRST_PAUSE_SECONDS


@given(st.lists(st.floats(0, 1e9)))
def test_no_pause_is_longer_than_the_cap(lives: list[float]) -> None:
    """Whatever the lives were."""
    restarts = Restarts()
    assert all(0 <= restarts.pause_after(lived) <= MAX_PAUSE_SECONDS for lived in lives)
