"""Least connections: the smallest load for the weight, and turns where loads are equal."""

from __future__ import annotations

from fractions import Fraction

from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_proxy.policy.hashing import seed_of
from trio_proxy.policy.least_conn import LeastConnections

WEIGHTS = st.lists(st.integers(1, 20), min_size=1, max_size=8)
LOADS = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 100)), min_size=1, max_size=8)


@define
class Member:
    name: str
    weight: float = 1
    in_flight: int = 0
    base_weight: int = 1

    @property
    def seed(self) -> int:
        return seed_of(self.name)


def no_chance() -> float:
    raise AssertionError("loads are not a matter of chance")


def picks(policy: LeastConnections, candidates: list[Member], count: int) -> str:
    return "".join(policy.choose(candidates, 0, no_chance).name for _ in range(count))


@settings(max_examples=200, deadline=None)
@given(st.lists(LOADS, min_size=1, max_size=10))
def test_the_chosen_member_has_the_least_load_for_its_weight(
    pools: list[list[tuple[int, int]]],
) -> None:
    """Whatever was chosen before, and out of whom."""
    policy = LeastConnections()
    for pool in pools:
        candidates = [Member(str(index), *member) for index, member in enumerate(pool)]
        chosen = policy.choose(candidates, 0, no_chance)
        least = min(Fraction(in_flight, weight) for weight, in_flight in pool)
        assert Fraction(chosen.in_flight, int(chosen.weight)) == least


@settings(max_examples=100, deadline=None)
@given(WEIGHTS, st.integers(1, 3))
def test_requests_that_never_end_are_divided_by_weight(weights: list[int], cycles: int) -> None:
    """Nobody is given more than its share before all the others have theirs."""
    policy = LeastConnections()
    pool = [Member(str(index), weight) for index, weight in enumerate(weights)]
    for _ in range(cycles * sum(weights)):
        policy.choose(pool, 0, no_chance).in_flight += 1
    assert [member.in_flight for member in pool] == [cycles * weight for weight in weights]


def test_an_idle_pool_is_weighted_round_robin() -> None:
    """All loads are equal, so the turns decide."""
    pool = [Member("a", 5), Member("b", 1), Member("c", 1)]
    assert picks(LeastConnections(), pool, 21) == 3 * "aabacaa"


def test_a_member_that_serves_fewer_is_chosen_until_it_does_not() -> None:
    """Two requests are ended elsewhere, and two go there."""
    policy, pool = LeastConnections(), [Member("a", 1, 4), Member("b", 1, 2), Member("c", 1, 4)]
    names = ""
    for _ in range(5):
        chosen = policy.choose(pool, 0, no_chance)
        chosen.in_flight += 1
        names += chosen.name
    assert names == "bbabc"


def test_a_weight_of_two_carries_twice_the_load() -> None:
    """Three requests on weight two are less than two on weight one."""
    pool = [Member("a", 1, 2), Member("b", 2, 3)]
    assert picks(LeastConnections(), pool, 3) == "bbb"


def test_a_member_in_its_slow_start_counts_by_its_weight_now() -> None:
    """One request on a tenth of a weight is more than nine on a whole one."""
    pool = [Member("a", 1, 9), Member("b", 0.1, 1)]
    assert picks(LeastConnections(), pool, 1) == "a"


def test_equally_loaded_members_take_turns_past_the_busy_one() -> None:
    """The busy one is passed over, and does not count."""
    pool = [Member("a", 1, 1), Member("b", 1, 7), Member("c", 1, 1)]
    assert picks(LeastConnections(), pool, 6) == "acacac"


def test_being_least_loaded_alone_costs_no_turn() -> None:
    """Only a tie is decided by turns."""
    policy, pool = LeastConnections(), [Member("a"), Member("b")]
    assert picks(policy, pool, 1) == "a"
    pool[1].in_flight = 1
    assert picks(policy, pool, 3) == "aaa"
    pool[1].in_flight = 0
    assert picks(policy, pool, 3) == "bab"


def test_turns_of_members_that_are_gone_are_forgotten() -> None:
    """What is remembered is bounded by the configuration."""
    policy = LeastConnections()
    picks(policy, [Member("a"), Member("b"), Member("c")], 2)
    policy.keep(["c"])
    assert set(policy._turns._owed) == {"c"}
