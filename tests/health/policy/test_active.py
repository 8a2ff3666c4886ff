"""Active health: probes in a row that change the state."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given, settings
from hypothesis import strategies as st

from trio_proxy.policy.health import ActiveHealth

COUNTS = st.integers(1, 5)


@settings(max_examples=300, deadline=None)
@given(COUNTS, COUNTS, st.lists(st.booleans(), max_size=60))
def test_the_state_is_that_of_the_last_run_that_was_long_enough(
    rise: int, fall: int, probes: list[bool]
) -> None:
    """Up before there is one, and each change is told exactly when it happens."""
    health = ActiveHealth(rise, fall)
    for count, is_good in enumerate(probes, 1):
        before = health.is_up
        changed = health.passed() if is_good else health.failed()
        runs = [(good, len(list(run))) for good, run in groupby(probes[:count])]
        decisive = [good for good, length in runs if length >= (rise if good else fall)]
        assert health.is_up == (decisive[-1] if decisive else True)
        assert changed == (health.is_up != before)


def test_a_member_is_up_before_its_first_probe() -> None:
    """A proxy serves as soon as it starts."""
    assert ActiveHealth(2, 3).is_up


def test_the_third_failure_in_a_row_takes_a_member_down() -> None:
    """A probe that passes in between begins the count anew."""
    health = ActiveHealth(rise=2, fall=3)
    assert [health.failed(), health.failed(), health.passed()] == [False, False, False]
    assert [health.failed(), health.failed(), health.failed()] == [False, False, True]
    assert not health.is_up


def test_the_second_pass_in_a_row_brings_a_member_up() -> None:
    """A probe that fails in between begins the count anew."""
    health = ActiveHealth(rise=2, fall=1)
    health.failed()
    assert [health.passed(), health.failed(), health.passed()] == [False, False, False]
    assert health.passed()
    assert health.is_up


def test_new_numbers_leave_the_state_and_the_run_alone() -> None:
    """They are looked at when the next probe ends."""
    health = ActiveHealth(rise=2, fall=5)
    health.failed()
    health.failed()
    health.apply(rise=3, fall=2)
    assert health.is_up
    assert health.failed()
    assert [health.passed(), health.passed(), health.passed()] == [False, False, True]
