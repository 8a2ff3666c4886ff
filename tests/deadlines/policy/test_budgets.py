"""Deadlines: which budget ends a wait, by number and by name."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from trio_proxy.exchange.deadlines import Deadlines

SECONDS = st.one_of(st.just(math.inf), st.floats(0, 1e6))
TIMES = st.floats(0, 1e6)
BUDGETS = st.fixed_dictionaries({"read": SECONDS, "connect": SECONDS, "total": SECONDS})


@settings(max_examples=200, deadline=None)
@given(BUDGETS, TIMES, TIMES, st.sampled_from(["read", "connect", ""]))
def test_a_wait_ends_with_the_nearer_of_its_own_budget_and_the_total(
    seconds: dict[str, float], started: float, now: float, wait: str
) -> None:
    """And the name says which of the two it was."""
    deadlines = Deadlines(seconds)
    deadlines.start_total(started)
    own = now + seconds[wait] if wait else math.inf
    total = started + seconds["total"]
    at, name = deadlines.nearest(wait, now)
    assert at == min(own, total)
    assert name == ("total" if total <= own else wait)


@settings(max_examples=200, deadline=None)
@given(SECONDS, st.none() | st.floats(0, 1e7), TIMES)
def test_an_inherited_budget_can_shorten_the_total_and_never_lengthen_it(
    total: float, at_most: float | None, now: float
) -> None:
    """Whatever a client asks for, the configured bound stays."""
    deadlines = Deadlines({"total": total})
    deadlines.start_total(now, at_most)
    assert deadlines.total_at <= now + total
    if at_most is not None:
        assert deadlines.total_at == now + min(total, at_most)


@settings(max_examples=200, deadline=None)
@given(SECONDS, TIMES, TIMES)
def test_what_remains_of_the_total_is_never_negative(
    total: float, started: float, now: float
) -> None:
    """It counts down from the start, and only time counts it down."""
    deadlines = Deadlines({"total": total})
    deadlines.start_total(started)
    remaining = deadlines.remaining_total(now)
    assert remaining == max(0.0, started + total - now)
    assert deadlines.remaining_total(now + 1) <= remaining


def test_the_total_bounds_nothing_before_it_is_started() -> None:
    """An idle connection has no exchange yet."""
    deadlines = Deadlines({"total": 5.0, "idle": 60.0})
    assert deadlines.nearest("idle", 100.0) == (160.0, "idle")
    assert deadlines.nearest("", 100.0)[0] == math.inf
    assert deadlines.remaining_total(100.0) == math.inf


def test_the_total_can_be_taken_away_for_a_tunnel() -> None:
    """Only the wait's own budget is left."""
    deadlines = Deadlines({"total": 5.0, "tunnel_idle": 60.0})
    deadlines.start_total(0.0)
    assert deadlines.nearest("tunnel_idle", 0.0) == (5.0, "total")
    deadlines.stop_total()
    assert deadlines.nearest("tunnel_idle", 0.0) == (60.0, "tunnel_idle")


def test_a_total_that_has_run_out_ends_every_wait_at_once() -> None:
    """In the past is as good as now."""
    deadlines = Deadlines({"total": 5.0, "read": 60.0})
    deadlines.start_total(0.0)
    assert deadlines.nearest("read", 10.0) == (5.0, "total")
    assert deadlines.remaining_total(10.0) == 0.0


def test_an_inherited_budget_of_nothing_is_used_up_at_once() -> None:
    """Zero is a budget, not the absence of one."""
    deadlines = Deadlines({"total": 5.0})
    deadlines.start_total(7.0, 0.0)
    assert deadlines.nearest("", 7.0) == (7.0, "total")
