"""Smooth weighted round robin: nginx's sequences, and how far from its share a member can be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_proxy.policy.balance import POLICIES, make_balancer
from trio_proxy.policy.hashing import seed_of
from trio_proxy.policy.round_robin import SmoothRoundRobin

WEIGHTS = st.lists(st.integers(1, 20), min_size=1, max_size=8)
FRACTIONS = st.lists(st.floats(0.01, 20), min_size=1, max_size=8)


@define
class Member:
    name: str
    weight: float = 1
    base_weight: int = 1
    in_flight: int = 0

    @property
    def seed(self) -> int:
        return seed_of(self.name)


def no_chance() -> float:
    raise AssertionError("turns are not a matter of chance")


def members(weights: Sequence[float]) -> list[Member]:
    """Members a, b, c and so on."""
    return [Member(chr(ord("a") + index), weight) for index, weight in enumerate(weights)]


def picks(policy: SmoothRoundRobin, candidates: list[Member], count: int) -> str:
    return "".join(policy.choose(candidates, 0, no_chance).name for _ in range(count))


@pytest.mark.parametrize(
    ("weights", "cycle"),
    [
        ([5, 1, 1], "aabacaa"),
        ([1, 1, 1], "abc"),
        ([2, 2, 2, 2], "abcd"),
        ([2, 1], "aba"),
        ([3, 1], "aaba"),
        ([1, 2, 3], "cbacbc"),
        ([0.5, 0.25, 0.25], "abca"),
        ([1, 0.5], "aba"),
        ([7], "a"),
    ],
)
def test_the_order_of_nginx(weights: list[float], cycle: str) -> None:
    """The same cycle again and again, spread out by weight, ties in the order of the list."""
    assert picks(SmoothRoundRobin(), members(weights), 5 * len(cycle)) == 5 * cycle


@settings(max_examples=200, deadline=None)
@given(WEIGHTS, st.integers(1, 3))
def test_a_full_cycle_gives_each_member_exactly_its_weight(weights: list[int], cycles: int) -> None:
    """Nothing is owed at its end, so the next is the same."""
    policy, pool = SmoothRoundRobin(), members(weights)
    first = picks(policy, pool, sum(weights))
    assert Counter(first) == {member.name: member.weight for member in pool}
    assert picks(policy, pool, cycles * len(first)) == cycles * first


@settings(max_examples=200, deadline=None)
@given(WEIGHTS | FRACTIONS, st.integers(0, 200))
def test_every_member_is_near_its_share_at_any_moment(weights: list[float], requests: int) -> None:
    """At most 1 - 1/n turns ahead and 1/2 + 1/3 + … + 1/n behind, of n members.

    Ahead: the one chosen had at least the mean, which is 1/n after the gain, and lost 1. Behind:
    let M(k) bound what the k most owed members are owed on average, so M(n) = 0. If the one chosen
    is among the k, they do not gain. If not, it had no less than any of them, so their average is
    at most that of all k + 1 before the loss, M(k + 1) + 1 / (k + 1). Hence M(1) as above.
    """
    policy, pool = SmoothRoundRobin(), members(weights)
    total, turns = sum(weights), Counter[str]()
    behind_at_most = sum(1 / rank for rank in range(2, len(pool) + 1))
    for request in range(1, requests + 1):
        turns.update(picks(policy, pool, 1))
        for member in pool:
            behind = request * member.weight / total - turns[member.name]
            assert -(1 - 1 / len(pool)) - 1e-9 <= behind <= behind_at_most + 1e-9


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 9), min_size=1), st.integers(0, 40)), max_size=20))
def test_turns_stay_fair_when_members_come_and_go(stays: list[tuple[set[int], int]]) -> None:
    """Members of equal weight that stay together are never more than three turns apart.

    They are owed less than one unit more than one another when a stay begins, and a turn costs at
    least half a unit; a change of members does not tear apart what those that stay are owed.
    """
    policy = SmoothRoundRobin()
    for present, requests in stays:
        pool = [Member(str(index)) for index in sorted(present)]
        policy.keep([member.name for member in pool])
        turns = Counter({member.name: 0 for member in pool})
        for _ in range(requests):
            turns.update(picks(policy, pool, 1))
            assert max(turns.values()) - min(turns.values()) <= 3


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 9), min_size=1), st.integers(0, 9)), max_size=20))
def test_a_newcomer_is_neither_ahead_nor_behind(stays: list[tuple[set[int], int]]) -> None:
    """All together are owed nothing, whoever is gone, so it begins with the mean of the others."""
    policy = SmoothRoundRobin()
    for present, requests in stays:
        pool = [Member(str(index), 1 + index) for index in sorted(present)]
        policy.keep([member.name for member in pool])
        assert abs(sum(policy._owed.values())) < 1e-9
        picks(policy, pool, requests)


@pytest.mark.parametrize("away", range(8))
def test_a_member_that_returns_has_lost_and_gained_nothing(away: int) -> None:
    """It has the turn it was owed, and none of those it missed."""
    policy, (a, b, c) = SmoothRoundRobin(), members([1, 1, 1])
    assert picks(policy, [a, b, c], 2) == "ab"
    picks(policy, [a, b], 2 * away)
    assert picks(policy, [a, b, c], 7) == "cabcabc"


@pytest.mark.parametrize("before", [0, 1, 333, 500, 501, 502, 800])
def test_a_heavy_member_that_leaves_does_not_upset_the_light_ones(before: int) -> None:
    """Whatever it left them owed or owing is worth a few of their turns, not hundreds."""
    policy, (a, b, c) = SmoothRoundRobin(), members([1000, 1, 1])
    picks(policy, [a, b, c], before)
    turns = Counter(picks(policy, [b, c], 100))
    assert abs(turns["b"] - turns["c"]) <= 4


def test_smaller_weights_for_all_change_no_turns() -> None:
    """Only how weights compare counts, also for what is already owed."""
    policy = SmoothRoundRobin()
    assert picks(policy, members([1000, 1000]), 1) == "a"
    assert abs(picks(policy, members([1, 1]), 100).count("a") - 50) <= 1


def test_a_slow_start_gives_a_member_its_fraction_of_a_turn() -> None:
    """At a tenth of its weight it is chosen a tenth as often; at full weight it has no arrears."""
    policy, pool = SmoothRoundRobin(), members([1, 0.1])
    assert Counter(picks(policy, pool, 110)) == {"a": 100, "b": 10}
    pool[1].weight = 1
    assert abs(picks(policy, pool, 20).count("b") - 10) <= 1


def test_a_new_member_begins_with_the_others() -> None:
    """It is not given the turns that were taken before it came."""
    policy, (a, b, c) = SmoothRoundRobin(), members([1, 1, 1])
    picks(policy, [a, b], 1000)
    assert Counter(picks(policy, [a, b, c], 30)) == {"a": 10, "b": 10, "c": 10}


def test_what_is_remembered_is_bounded_by_those_kept() -> None:
    """A thousand members that were replaced leave nothing behind."""
    policy = SmoothRoundRobin()
    for number in range(1000):
        pool = [Member(f"10.0.{number}.1:80"), Member("10.0.0.1:80")]
        policy.keep([member.name for member in pool])
        picks(policy, pool, 3)
    assert set(policy._owed) == {"10.0.999.1:80", "10.0.0.1:80"}


def test_an_only_candidate_has_no_turn_to_wait_for() -> None:
    """It is chosen, and is neither ahead nor behind for it."""
    policy, (a, b) = SmoothRoundRobin(), members([1, 1])
    assert picks(policy, [b], 5) == "bbbbb"
    assert picks(policy, [a, b], 4) == "abab"


@pytest.mark.parametrize("name", POLICIES)
def test_each_policy_is_made_by_its_name(name: str) -> None:
    """And chooses among whoever is there, having forgotten all or not."""
    policy, pool = make_balancer(name), members([2, 1])
    assert policy.choose(pool, 1, lambda: 0.5) in pool
    policy.keep([])
    assert policy.choose(pool[1:], 1, lambda: 0.5) is pool[1]


def test_an_unknown_policy_is_an_error() -> None:
    """The configuration has refused it before."""
    with pytest.raises(KeyError):
        make_balancer("fastest")
