"""Passive health: who is put out, who is tried, and whose outcome counts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from trio_proxy.policy.health import PassiveHealth


def ejected(max_fails: int = 1, fail_seconds: float = 10.0) -> PassiveHealth:
    """A member that was put out at 0."""
    health = PassiveHealth(max_fails, fail_seconds)
    for _ in range(max_fails):
        health.failed(health.began(0.0), 0.0)
    assert health.is_out(0.0)
    return health


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 5), st.lists(st.integers(0, 40).map(lambda quarters: quarters / 4)))
def test_a_member_is_put_out_by_enough_failures_within_the_time(
    max_fails: int, gaps: list[float]
) -> None:
    """Exactly then; with a limit of none, never."""
    health = PassiveHealth(max_fails, 10.0)
    at: list[float] = []
    now = 0.0
    for gap in gaps:
        now += gap
        at.append(now)
        is_over = 0 < max_fails <= sum(now - moment <= 10.0 for moment in at)
        assert health.failed(health.began(now), now) == is_over
        assert health.is_out(now) == health.was_ejected == is_over
        if is_over:
            break


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 30), max_size=50))
def test_while_a_member_is_out_there_is_one_trial_in_any_fail_seconds(gaps: list[float]) -> None:
    """If none of the trials is ever heard of again."""
    health = ejected(fail_seconds=10.0)
    now = last_at = 0.0
    for gap in gaps:
        now += gap
        if not health.is_out(now):
            assert health.began(now) > 0
            assert now >= last_at + 10.0
            last_at = now
        assert health.is_out(now)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["ask", "repr", "was"]), max_size=20), st.floats(0, 100))
def test_asking_changes_nothing(questions: list[str], now: float) -> None:
    """A member that is looked at and passed over still has its trial."""
    health = ejected()
    for question in questions:
        if question == "ask":
            assert health.is_out(now) == (now < 10.0)
        elif question == "repr":
            assert "out" in repr(health)
        else:
            assert health.was_ejected
    assert (health.began(now) > 0) == (now >= 10.0)


def test_one_failure_takes_a_member_out_for_its_time() -> None:
    """nginx's default: one failure, ten seconds."""
    health = PassiveHealth(1, 10.0)
    assert health.failed(health.began(1.0), 2.0)
    assert health.was_ejected
    assert health.is_out(11.9)
    assert not health.is_out(12.0)
    assert health.was_ejected


def test_a_success_does_not_erase_failures() -> None:
    """One request in two that fails is put out all the same."""
    health = PassiveHealth(2, 10.0)
    assert not health.failed(health.began(0.0), 0.0)
    assert not health.succeeded(health.began(1.0), 1.0)
    assert health.failed(health.began(2.0), 2.0)


def test_a_trial_that_succeeds_brings_a_member_back_with_a_clean_sheet() -> None:
    """It takes the full number of failures to put it out again."""
    health = ejected(max_fails=2)
    trial = health.began(10.0)
    assert trial > 0
    assert health.is_out(10.0)
    assert health.succeeded(trial, 11.0)
    assert not health.is_out(11.0)
    assert not health.was_ejected
    assert not health.failed(health.began(11.0), 11.0)
    assert health.failed(health.began(11.0), 11.0)


def test_a_trial_that_fails_puts_a_member_out_again_at_once() -> None:
    """One failure is enough, and the time begins with it."""
    health = ejected(max_fails=3)
    assert health.failed(health.began(10.0), 12.0)
    assert health.is_out(21.9)
    assert not health.is_out(22.0)


def test_a_trial_that_is_abandoned_lets_the_next_try_at_once() -> None:
    """A client that leaves is no verdict."""
    health = ejected()
    health.abandoned(health.began(10.0), 10.5)
    assert not health.is_out(10.5)
    assert health.was_ejected
    assert health.began(10.5) > 0
    assert health.is_out(10.5)


def test_a_trial_without_an_outcome_holds_the_door_for_fail_seconds_at_most() -> None:
    """Then another is let in, and the first one's failure no longer counts."""
    health = ejected()
    first = health.began(10.0)
    assert health.is_out(19.9)
    assert not health.is_out(20.0)
    second = health.began(20.0)
    assert not health.failed(first, 21.0)
    health.abandoned(first, 21.0)
    assert health.is_out(29.9)
    assert health.failed(second, 25.0)
    assert health.is_out(34.9)


def test_a_trial_that_succeeds_after_the_next_began_brings_a_member_back() -> None:
    """It was answered, late; the failure of the second is then of an earlier state."""
    health = ejected()
    first, second = health.began(10.0), health.began(20.0)
    assert health.succeeded(first, 21.0)
    assert not health.failed(second, 22.0)
    assert not health.was_ejected


def test_a_trial_that_fails_after_its_time_puts_a_member_out_again() -> None:
    """If nobody else was let in meanwhile, it is still the trial."""
    health = ejected()
    assert health.failed(health.began(10.0), 35.0)
    assert health.is_out(44.9)


def test_a_late_failure_of_an_old_request_does_not_prolong_the_time_out() -> None:
    """Nor does it end a trial."""
    health = PassiveHealth(1, 10.0)
    old, fatal = health.began(0.0), health.began(0.0)
    health.failed(fatal, 1.0)
    assert not health.failed(old, 9.0)
    assert not health.is_out(11.0)
    health.began(11.0)
    assert not health.failed(old, 12.0)
    assert not health.is_out(21.0)


def test_a_late_success_of_an_old_request_does_not_bring_a_member_back() -> None:
    """It may have been answered before the trouble began."""
    health = PassiveHealth(1, 10.0)
    old, fatal = health.began(0.0), health.began(0.0)
    health.failed(fatal, 1.0)
    assert not health.succeeded(old, 2.0)
    assert health.is_out(2.0)


def test_a_failure_from_before_the_time_out_does_not_count_after_it() -> None:
    """A clean sheet stays clean of old requests that time out one by one."""
    health = PassiveHealth(1, 10.0)
    old, fatal = health.began(0.0), health.began(0.0)
    health.failed(fatal, 1.0)
    health.succeeded(health.began(11.0), 12.0)
    assert not health.failed(old, 13.0)
    assert not health.was_ejected


def test_a_request_that_is_sent_while_a_member_is_out_brings_it_back_if_it_succeeds() -> None:
    """With everybody out, it is sent without waiting for a trial, and its ticket is ordinary."""
    health = ejected()
    ticket = health.began(5.0)
    assert ticket <= 0
    assert health.succeeded(ticket, 6.0)
    assert not health.was_ejected


def test_a_request_that_is_sent_while_a_member_is_out_changes_nothing_if_it_fails() -> None:
    """The time out goes on as it was."""
    health = ejected()
    assert not health.failed(health.began(9.0), 9.5)
    assert not health.is_out(10.0)


def test_a_request_that_is_sent_during_a_trial_is_none() -> None:
    """Neither its failure nor its client's leaving ends the trial."""
    health = ejected()
    health.began(10.0)
    other = health.began(11.0)
    assert other <= 0
    assert not health.failed(other, 12.0)
    health.abandoned(other, 12.0)
    assert health.is_out(12.0)


def test_clearing_brings_a_member_back() -> None:
    """Whether it was out or on trial, and without its old failures."""
    health = ejected(max_fails=2)
    trial = health.began(10.0)
    health.clear()
    assert not health.was_ejected
    assert not health.is_out(10.0)
    assert not health.failed(trial, 11.0)
    assert not health.failed(health.began(11.0), 11.0)
    health.clear()
    assert not health.failed(health.began(11.0), 11.0)


def test_a_longer_time_out_of_a_new_configuration_counts_from_the_ejection() -> None:
    """A shorter one does as well."""
    health = ejected(fail_seconds=10.0)
    health.apply(1, 60.0)
    assert health.is_out(59.9)
    health.apply(1, 5.0)
    assert not health.is_out(5.0)
    assert health.was_ejected


def test_a_new_configuration_that_never_puts_out_brings_a_member_back() -> None:
    """And no failure puts it out again."""
    health = ejected()
    health.apply(0, 10.0)
    assert not health.was_ejected
    assert not health.is_out(0.0)
    assert not health.failed(health.began(1.0), 1.0)


def test_a_lower_limit_of_a_new_configuration_is_applied_at_the_next_failure() -> None:
    """A reload alone takes nobody out."""
    health = PassiveHealth(5, 10.0)
    for _ in range(4):
        health.failed(health.began(0.0), 0.0)
    health.apply(2, 10.0)
    assert not health.was_ejected
    assert health.failed(health.began(1.0), 1.0)
