"""Hashed keys: which of them move, how even the shares are, and what bounds a member's load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from math import ceil

import pytest
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_proxy.policy.hashing import hash_of, mix_all, seed_of
from trio_proxy.policy.rendezvous import LOAD_FACTOR, RendezvousHash

KEYS = [hash_of(b"192.0.2.%d" % number) for number in range(10_000)]
WEIGHTS = st.lists(st.integers(1, 5), min_size=2, max_size=10)
HASHES = st.integers(0, 2**64 - 1)


@define
class Member:
    name: str
    base_weight: int
    seed: int
    in_flight: int = 0
    weight: float = 1


def no_chance() -> float:
    raise AssertionError("a hash is not a matter of chance")


def members(weights: Sequence[int], net: int = 0) -> list[Member]:
    names = [f"10.0.{net}.{index}:9000" for index in range(len(weights))]
    return [
        Member(name, weight, seed_of(name)) for name, weight in zip(names, weights, strict=True)
    ]


def owner(candidates: list[Member], key: int) -> Member:
    return RendezvousHash().choose(candidates, key, no_chance)


@settings(max_examples=50, deadline=None)
@given(WEIGHTS, st.integers(0, 255), st.data())
def test_a_member_that_goes_gives_away_only_its_own_keys(
    weights: list[int], net: int, data: st.DataObject
) -> None:
    """And one that comes takes keys only for itself: the same, read backwards."""
    pool = members(weights, net)
    gone = data.draw(st.sampled_from(pool))
    rest = [member for member in pool if member is not gone]
    for key in KEYS[:200]:
        before, after = owner(pool, key), owner(rest, key)
        assert after is before or before is gone


@settings(max_examples=50, deadline=None)
@given(WEIGHTS, st.data())
def test_the_order_of_the_list_does_not_matter(weights: list[int], data: st.DataObject) -> None:
    """Only names and weights do."""
    pool = members(weights)
    shuffled = data.draw(st.permutations(pool))
    assert all(owner(pool, key) is owner(shuffled, key) for key in KEYS[:50])


@pytest.mark.parametrize(
    "weights",
    [[1] * count for count in range(2, 11)] + [[1, 2], [5, 1, 1], [3, 2, 1, 1, 3], [1, 10]],
    ids=str,
)
def test_shares_of_many_keys_follow_the_weights(weights: list[int]) -> None:
    """Of 10,000 keys, each member has its share to within a quarter."""
    pool = members(weights)
    counts = Counter(owner(pool, key).name for key in KEYS)
    for member in pool:
        share = len(KEYS) * member.base_weight / sum(weights)
        assert share / 1.25 <= counts[member.name] <= share * 1.25


def test_members_are_ranked_independently_of_each_other() -> None:
    """The keys of a member that goes are spread over all that stay."""
    pool = members([1] * 5)
    first = [key for key in KEYS if owner(pool, key) is pool[0]]
    counts = Counter(owner(pool[1:], key).name for key in first)
    assert all(len(first) / 5 <= counts[member.name] <= len(first) / 3 for member in pool[1:])


@settings(max_examples=50, deadline=None)
@given(WEIGHTS, st.lists(HASHES, min_size=1, max_size=200))
def test_requests_that_never_end_stay_within_the_bound(weights: list[int], keys: list[int]) -> None:
    """No member is ever given more than 1.25 times its share, rounded up."""
    pool = members(weights)
    for total, key in enumerate(keys, start=1):
        chosen = owner(pool, key)
        chosen.in_flight += 1
        share = Fraction(total * chosen.base_weight, sum(weights))
        assert chosen.in_flight <= ceil(Fraction(LOAD_FACTOR) * share)


def test_one_key_for_all_requests_is_spread_over_four_fifths_of_the_pool() -> None:
    """Each takes 1.25 times the mean, in turn, and the last in the order of the key nothing."""
    pool = members([1] * 5)
    for _ in range(100):
        owner(pool, KEYS[0]).in_flight += 1
    assert sorted(member.in_flight for member in pool) == [0, 25, 25, 25, 25]


@settings(max_examples=100, deadline=None)
@given(WEIGHTS, st.data(), HASHES)
def test_the_first_in_order_that_has_room_is_chosen(
    weights: list[int], data: st.DataObject, key: int
) -> None:
    """Members without room are passed over, as if they were not there."""
    pool = members(weights)
    for member in pool:
        member.in_flight = data.draw(st.integers(0, 20))
    total = sum(member.in_flight for member in pool) + 1
    room = [
        Member(member.name, member.base_weight, member.seed)
        for member in pool
        if member.in_flight + 1
        <= ceil(Fraction(5, 4) * Fraction(total * member.base_weight, sum(weights)))
    ]
    assert owner(pool, key).name == owner(room, key).name


def test_a_key_returns_when_its_member_has_room_again() -> None:
    """Being passed over leaves no trace."""
    pool = members([1, 1, 1])
    own = owner(pool, KEYS[0])
    own.in_flight = 10
    assert owner(pool, KEYS[0]) is not own
    own.in_flight = 0
    assert owner(pool, KEYS[0]) is own


def test_a_slow_start_moves_no_keys() -> None:
    """The weight of the moment does not count."""
    pool = members([1, 1, 1])
    before = [owner(pool, key).name for key in KEYS[:500]]
    pool[0].weight = 0.01
    assert [owner(pool, key).name for key in KEYS[:500]] == before


@settings(max_examples=200, deadline=None)
@given(HASHES, HASHES)
def test_extreme_hashes_are_hashes(key: int, seed: int) -> None:
    """No pair of them is an error, neither all zeros nor all ones."""
    (mixed,) = mix_all(key, [seed])
    assert 0 <= mixed < 2**64
    a, b = Member("a", 1, seed), Member("b", 3, seed ^ 1)
    assert owner([a, b], key) in (a, b)
    assert owner([a, b], seed) in (a, b)


def test_hashes_are_the_same_everywhere() -> None:
    """Two proxies that do not know of each other send a key to the same member."""
    assert hash_of(b"192.0.2.1") == 0xC874FACE288B2811
    assert seed_of("10.0.0.1:9000") == 0x2B931C974B7EDD26
    mixed = mix_all(hash_of(b"192.0.2.1"), [seed_of("10.0.0.1:9000")])
    assert mixed == [0x255D45D8E79BAD50]
    pool = members([1, 2, 3])
    assert [pool.index(owner(pool, key)) for key in KEYS[:6]] == [2, 2, 0, 2, 1, 1]
