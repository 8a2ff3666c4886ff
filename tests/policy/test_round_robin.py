"""Round robin: laws that hold for any pool and any number of requests."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from trio_proxy.policy.balance import RoundRobin

COUNTS = st.integers(1, 12)


@settings(max_examples=100, deadline=None)
@given(st.lists(COUNTS, min_size=1, max_size=20))
def test_every_order_names_each_member_exactly_once(counts: list[int]) -> None:
    """Also when the pool grows and shrinks between requests."""
    policy = RoundRobin()
    for count in counts:
        assert sorted(policy.order(count)) == list(range(count))


@settings(max_examples=100, deadline=None)
@given(COUNTS, st.integers(0, 100))
def test_first_choices_are_fair_to_within_one_at_any_moment(count: int, requests: int) -> None:
    """No member is ever more than one turn ahead of another."""
    policy = RoundRobin()
    turns = Counter(dict.fromkeys(range(count), 0))
    for _ in range(requests):
        turns[next(policy.order(count))] += 1
        assert max(turns.values()) - min(turns.values()) <= 1


@settings(max_examples=100, deadline=None)
@given(COUNTS, st.lists(st.integers(0, 11), max_size=30))
def test_members_that_are_passed_over_do_not_shift_the_turns(count: int, looks: list[int]) -> None:
    """However far down its order a request had to look, the next starts one further on."""
    policy = RoundRobin()
    for turn, look in enumerate(looks):
        order = policy.order(count)
        chosen = [next(order) for _ in range(1 + look % count)]
        assert chosen[0] == turn % count


def test_members_come_in_the_order_of_the_list() -> None:
    """Each order goes round once from where it starts."""
    policy = RoundRobin()
    assert [list(policy.order(3)) for _ in range(4)] == [
        [0, 1, 2],
        [1, 2, 0],
        [2, 0, 1],
        [0, 1, 2],
    ]


def test_an_empty_pool_has_an_empty_order() -> None:
    """And does not upset the turns."""
    policy = RoundRobin()
    assert list(policy.order(0)) == []
    assert sorted(policy.order(2)) == [0, 1]
