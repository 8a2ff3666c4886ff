"""Two by chance: which two are drawn, which of them wins, and how even it becomes."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_proxy.policy.hashing import seed_of
from trio_proxy.policy.random_two import RandomTwo

#: Also the ends of the range that random numbers come from.
CHANCES = st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, 1 - 2**-53])


@define(eq=False)
class Member:
    name: str
    weight: float = 1
    in_flight: int = 0
    base_weight: int = 1

    @property
    def seed(self) -> int:
        return seed_of(self.name)


MEMBERS = st.builds(Member, st.just("x"), st.floats(1e-3, 1e3), st.integers(0, 5))


def choice(candidates: list[Member], *chances: float) -> Member:
    """The one chosen if these are the random numbers; no others may be taken."""
    return RandomTwo().choose(candidates, 0, iter(chances).__next__)


def shares(candidates: list[Member], requests: int) -> Counter[str]:
    """How often each was chosen, with the same random numbers every time."""
    policy, random = RandomTwo(), Random(20).random
    return Counter(policy.choose(candidates, 0, random).name for _ in range(requests))


@pytest.mark.parametrize(
    ("chances", "drawn"),
    [
        ((0.0, 0.0), "ab"),
        ((0.0, 0.34), "ac"),
        ((0.0, 0.99), "ad"),
        ((0.26, 0.0), "ba"),
        ((0.26, 0.34), "bc"),
        ((0.99, 0.99), "dc"),
    ],
)
def test_the_less_loaded_of_the_two_drawn_is_chosen(
    chances: tuple[float, float], drawn: str
) -> None:
    """Whichever of the two it is, and the first of them if they are equal."""
    pool = [Member(name) for name in "abcd"]
    first, second = (pool["abcd".index(name)] for name in drawn)
    first.in_flight, second.in_flight = 1, 0
    assert choice(pool, *chances) is second
    first.in_flight, second.in_flight = 0, 1
    assert choice(pool, *chances) is first
    first.in_flight, second.in_flight = 1, 1
    assert choice(pool, *chances) is first


@settings(max_examples=300, deadline=None)
@given(st.lists(MEMBERS, min_size=2, max_size=8), CHANCES, CHANCES)
def test_the_most_loaded_member_is_never_chosen(
    pool: list[Member], one: float, other: float
) -> None:
    """It loses against any other, and there always is another."""
    pool[0].in_flight = 1 + int(6 / 1e-3 * pool[0].weight)
    assert choice(pool, one, other) is not pool[0]


def test_rounding_does_not_draw_a_member_twice() -> None:
    """Three times 0.1 is more than 0.3, so the largest random number goes past the first two."""
    pool = [Member("a", 0.1, 1), Member("b", 0.1, 1), Member("c", 0.1, 2)]
    assert choice(pool, 1 - 2**-53, 1 - 2**-53) is pool[1]


@settings(max_examples=100, deadline=None)
@given(MEMBERS, MEMBERS, CHANCES, CHANCES)
def test_of_two_members_the_less_loaded_is_always_chosen(
    a: Member, b: Member, one: float, other: float
) -> None:
    """Both are drawn, in either order."""
    load_a, load_b = a.in_flight / a.weight, b.in_flight / b.weight
    chosen = choice([a, b], one, other)
    assert chosen.in_flight / chosen.weight == min(load_a, load_b)


def test_an_only_candidate_takes_no_random_number() -> None:
    """It is chosen as it is."""
    assert choice([Member("a", 1, 9)]).name == "a"


def test_an_idle_pool_is_divided_by_weight() -> None:
    """Each is within four standard deviations of its share."""
    pool = [Member("a", 5), Member("b", 1), Member("c", 0.5), Member("d", 3.5)]
    counts = shares(pool, 10_000)
    for member in pool:
        share = member.weight / 10
        assert abs(counts[member.name] - 10_000 * share) < 4 * (10_000 * share * (1 - share)) ** 0.5


def test_loads_that_differ_decide_in_every_pair() -> None:
    """Of three, the least loaded is in two pairs of three and wins both, the most loaded none."""
    counts = shares([Member("a", 1, 0), Member("b", 1, 1), Member("c", 1, 2)], 9_000)
    assert abs(counts["a"] - 6_000) < 4 * (9_000 * 2 / 9) ** 0.5
    assert counts["c"] == 0


def test_two_choices_divide_requests_far_more_evenly_than_one() -> None:
    """Of 10,000 requests that never end, ten members differ by a handful, not by a hundred."""
    policy, random, pool = RandomTwo(), Random(20).random, [Member(name) for name in "abcdefghij"]
    for _ in range(10_000):
        policy.choose(pool, 0, random).in_flight += 1
    loads = [member.in_flight for member in pool]
    assert max(loads) - min(loads) < 10
