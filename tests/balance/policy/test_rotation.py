"""A rotation has the turns of the plain algorithm, whatever came before it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import inf

import pytest
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_proxy.policy.rotation import MOST_GAINED, Rotation
from trio_proxy.policy.round_robin import SmoothRoundRobin

#: How often the same candidates are asked for in a row, and who of ten they are.
STAY = st.tuples(st.integers(1, 40), st.sets(st.integers(0, 9), min_size=1), st.booleans())


@define
class Member:
    name: str
    weight: float = 1
    base_weight: int = 1
    in_flight: int = 0
    seed: int = 0


def members(weights: Sequence[float]) -> list[Member]:
    """Members a, b, c and so on."""
    return [Member(chr(ord("a") + index), weight) for index, weight in enumerate(weights)]


def no_chance() -> float:
    raise AssertionError("turns are not a matter of chance")


def turns(policy: SmoothRoundRobin, candidates: tuple[Member, ...], count: int) -> str:
    """As many choices, of the same candidates every time."""
    return "".join(policy.choose(candidates, 0, no_chance).name for _ in range(count))


def plain_turns(policy: SmoothRoundRobin, candidates: tuple[Member, ...], count: int) -> str:
    """The same by the algorithm as nginx has it."""
    return "".join(policy.choose(list(candidates), 0, no_chance).name for _ in range(count))


def test_all_small_weights() -> None:
    """Three laps of four members, with some of them away in between."""
    for weights in product(range(1, 5), repeat=4):
        pool, rotating, plain = tuple(members(weights)), SmoothRoundRobin(), SmoothRoundRobin()
        lap = sum(weights)
        stays = ((pool, 3 * lap), (pool[1:], lap + 1), (pool, 3 * lap + 1), (pool[:2], 3))
        for there, count in stays:
            assert turns(rotating, there, count) == plain_turns(plain, there, count)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from([1, 1, 1, 2, 5, 100]), min_size=10, max_size=10), st.lists(STAY))
def test_candidates_that_come_and_go(
    weights: list[int], stays: list[tuple[int, set[int], bool]]
) -> None:
    """In the middle of a lap, often or after a long time, and with choices among others between."""
    pool, rotating, plain = members(weights), SmoothRoundRobin(), SmoothRoundRobin()
    for count, who, is_asked_otherwise in stays:
        there = tuple(pool[index] for index in sorted(who))
        assert turns(rotating, there, count) == plain_turns(plain, there, count)
        if is_asked_otherwise:
            assert plain_turns(rotating, there[1:] or there, 2) == plain_turns(
                plain, there[1:] or there, 2
            )


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0.01, 20) | st.just(1.0), min_size=2, max_size=8),
    st.lists(st.integers(-3, 3).map(lambda halves: halves / 2), min_size=8, max_size=8),
    st.integers(0, 300),
)
def test_nobody_is_passed_over(weights: list[float], owed: list[float], count: int) -> None:
    """Each turn is of one that is owed most, but for rounding, wherever they begin."""
    owed = owed[: len(weights)]
    rotation = Rotation(range(len(weights)), weights, owed)
    scale = 2.0 ** -next(power for power in range(-9, 10) if sum(weights) < 2.0**power)
    for _ in range(count):
        owed = [due + weight * scale for due, weight in zip(owed, weights, strict=True)]
        chosen = rotation.next()
        assert owed[chosen] >= max(owed) - 1e-9
        owed[chosen] -= sum(weights) * scale
    assert dict(rotation.owed()) == pytest.approx(dict(enumerate(owed)), abs=1e-9)


@pytest.mark.parametrize("weights", [[1] * 7, [3, 1, 1], [5, 4, 3, 2, 1]], ids=str)
def test_numbers_stay_small_and_exact_for_ever(weights: list[int]) -> None:
    """After many laps everybody is owed what it was at first, and nothing has grown."""
    rotation = Rotation(range(len(weights)), weights, [0.0] * len(weights))
    for _ in range(5000 * sum(weights)):
        rotation.next()
        assert all(rank.gained <= MOST_GAINED + 1 for rank in rotation._ranks)
    assert {owed for _, owed in rotation.owed()} == {0.0}


def test_members_that_go_are_forgotten_in_the_middle_of_a_lap() -> None:
    """And those that stay share what they were owed, as without a rotation."""
    pool, rotating, plain = tuple(members([1, 1, 1])), SmoothRoundRobin(), SmoothRoundRobin()
    assert turns(rotating, pool, 5) == plain_turns(plain, pool, 5) == "abcab"
    for policy in (rotating, plain):
        policy.keep(["b", "c"])
        assert set(policy._owed) == {"b", "c"}
    assert rotating._owed == plain._owed
    assert turns(rotating, pool[1:], 5) == plain_turns(plain, pool[1:], 5)


def test_another_weight_counts_with_another_tuple() -> None:
    """The promise is about one tuple only."""
    policy, (a, b) = SmoothRoundRobin(), members([1, 1])
    assert turns(policy, (a, b), 4) == "abab"
    a.weight = 3
    assert turns(policy, (a, b), 8).count("a") == 6
    assert max(policy._owed.values(), default=-inf) < 1
