"""Token buckets: what is allowed, what a client is told, and what is kept of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trio_proxy.policy.token_bucket import ROUNDING, Grant, Rate, TokenBuckets, rate_limit_fields

RATES = st.builds(Rate, st.floats(0.001, 10_000), st.integers(1, 50))
KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
#: Steps of time between requests, in units of what one token takes.
STEPS = st.lists(st.one_of(st.just(0.0), st.floats(0, 3), st.floats(0, 100)), max_size=80)
#: Where a steady clock may stand: Trio's starts at up to a million seconds.
STARTS = st.floats(0, 1e6)

LAWS = settings(max_examples=200, deadline=None)


def times(rate: Rate, start: float, steps: list[float]) -> list[float]:
    """When requests come, with the given numbers of tokens' times between them."""
    now, found = start, []
    for step in steps:
        now += step / rate.per_second
        found.append(now)
    return found


@LAWS
@given(RATES, STARTS, STEPS)
def test_no_interval_has_more_requests_allowed_than_its_tokens_and_the_burst(
    rate: Rate, start: float, steps: list[float]
) -> None:
    """From any allowed request to any later one: the rate times the seconds, and the burst."""
    buckets = TokenBuckets(rate, 10)
    allowed = [now for now in times(rate, start, steps) if buckets.take(b"k", now).allowed]
    for first, since in enumerate(allowed):
        for count, until in enumerate(allowed[first:], 1):
            assert count <= (until - since) * rate.per_second + rate.burst + 2 * ROUNDING


@LAWS
@given(RATES, STARTS, STEPS)
def test_a_request_is_refused_only_when_the_tokens_are_used_up(
    rate: Rate, start: float, steps: list[float]
) -> None:
    """A bucket that is counted in tokens says the same."""
    buckets, tokens, before = TokenBuckets(rate, 10), float(rate.burst), start
    for now in times(rate, start, steps):
        tokens = min(rate.burst, tokens + (now - before) * rate.per_second)
        before = now
        assume(abs(tokens - 1 + ROUNDING) > ROUNDING / 10)  # on the very edge floats decide
        grant = buckets.take(b"k", now)
        assert grant.allowed == (tokens + ROUNDING >= 1)
        tokens -= grant.allowed


@LAWS
@given(RATES, STARTS, st.lists(st.tuples(KEYS, st.floats(0, 3)), max_size=60))
def test_keys_do_not_influence_one_another_while_the_table_has_room(
    rate: Rate, start: float, requests: list[tuple[bytes, float]]
) -> None:
    """Each is answered as by a table of its own."""
    shared, own, now = TokenBuckets(rate, 5), {}, start
    for key, step in requests:
        now += step / rate.per_second
        alone = own.setdefault(key, TokenBuckets(rate, 1))
        assert shared.take(key, now) == alone.take(key, now)


@LAWS
@given(RATES, st.integers(1, 4), st.lists(st.tuples(KEYS, st.floats(0, 3)), max_size=60))
def test_the_table_never_has_more_than_its_keys(
    rate: Rate, max_keys: int, requests: list[tuple[bytes, float]]
) -> None:
    """Whoever comes, and however fast."""
    buckets, now = TokenBuckets(rate, max_keys), 0.0
    for key, step in requests:
        now += step / rate.per_second
        buckets.take(key, now)
        assert len(buckets) <= max_keys


@LAWS
@given(RATES, STARTS, STEPS, st.floats(0, 1e6))
def test_a_bucket_that_is_full_again_behaves_like_a_new_one(
    rate: Rate, start: float, steps: list[float], later: float
) -> None:
    """From the time on that its reset named."""
    buckets, now, full_at = TokenBuckets(rate, 10), start, start
    for now in times(rate, start, steps):
        full_at = now + buckets.take(b"k", now).reset_seconds
    now = math.nextafter(full_at, math.inf) + later
    used, new = buckets.take(b"k", now), TokenBuckets(rate, 10).take(b"k", now)
    assert used.allowed
    assert (used.remaining, used.retry_after) == (new.remaining, new.retry_after)
    assert used.reset_seconds == pytest.approx(new.reset_seconds)


@LAWS
@given(RATES, STARTS, STEPS)
def test_what_a_grant_says_is_consistent(rate: Rate, start: float, steps: list[float]) -> None:
    """The missing tokens are those that the reset waits for, and nothing remains if refused."""
    buckets = TokenBuckets(rate, 10)
    for now in times(rate, start, steps):
        grant = buckets.take(b"k", now)
        left = rate.burst - grant.reset_seconds * rate.per_second
        assert grant.limit == rate.burst
        assert 0 <= grant.remaining < rate.burst
        assert grant.remaining == pytest.approx(left, abs=1 + 2 * ROUNDING)
        assert grant.remaining <= left + 2 * ROUNDING
        if grant.allowed:
            assert grant.retry_after == 0
        else:
            assert grant.remaining == 0
            assert 0 < grant.retry_after <= 1 / rate.per_second
            assert grant.retry_after <= grant.reset_seconds + ROUNDING / rate.per_second


@LAWS
@given(RATES, STARTS, st.integers(0, 20))
def test_after_retry_after_one_request_is_allowed(rate: Rate, start: float, more: int) -> None:
    """Not later, and however often it was asked meanwhile."""
    buckets = TokenBuckets(rate, 10)
    for _ in range(rate.burst):
        assert buckets.take(b"k", start).allowed
    refused = [buckets.take(b"k", start) for _ in range(more + 1)][-1]
    assert not refused.allowed
    assert buckets.take(b"k", start + refused.retry_after).allowed
    assert not buckets.take(b"k", start + refused.retry_after).allowed


def test_a_client_at_exactly_the_allowed_rate_is_never_refused() -> None:
    """Times are floats, and a tenth of a second is none."""
    buckets, start = TokenBuckets(Rate(10, 1), 10), 654_321.1
    assert all(buckets.take(b"k", start + number / 10).allowed for number in range(10_000))


def test_a_full_table_drops_the_key_that_was_not_used_for_longest() -> None:
    """A key that comes all the time, even to be refused, stays limited."""
    buckets = TokenBuckets(Rate(0.001, 1), 2)
    assert buckets.take(b"often", 0).allowed
    assert buckets.take(b"seldom", 0).allowed
    for number in range(100):
        assert not buckets.take(b"often", 0).allowed
        assert buckets.take(b"%d" % number, 0).allowed
    assert buckets.take(b"seldom", 0).allowed


def test_full_buckets_leave_the_table_as_others_come() -> None:
    """After a flood of keys it shrinks again."""
    buckets = TokenBuckets(Rate(1, 1), 1000)
    for number in range(1000):
        buckets.take(b"%d" % number, 0)
    for _ in range(500):
        buckets.take(b"k", 10)
    assert len(buckets) == 1


def test_a_smaller_table_drops_keys_at_once() -> None:
    """The ones that were not used for longest."""
    buckets = TokenBuckets(Rate(0.001, 1), 10)
    for key in (b"a", b"b", b"c"):
        buckets.take(key, 0)
    buckets.apply(Rate(0.001, 1), 1, 0)
    assert len(buckets) == 1
    assert not buckets.take(b"c", 0).allowed


def test_a_smaller_burst_never_leaves_a_bucket_emptier_than_empty() -> None:
    """A token comes within the time that one takes."""
    buckets = TokenBuckets(Rate(1, 100), 10)
    for _ in range(100):
        buckets.take(b"k", 0)
    buckets.apply(Rate(1, 2), 10, 0)
    refused = buckets.take(b"k", 0)
    assert not refused.allowed
    assert refused.retry_after == pytest.approx(1)
    assert buckets.take(b"k", 1).allowed


def test_an_applied_rate_counts_from_the_next_request_on() -> None:
    """What a key has used stays used."""
    buckets = TokenBuckets(Rate(1, 1), 10)
    assert buckets.take(b"k", 0).allowed
    buckets.apply(Rate(1, 3), 10, 0)
    assert [buckets.take(b"k", 0).allowed for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("rate", "grant", "values"),
    [
        (
            Rate(100, 200),
            Grant(True, 200, 199, 0.01, 0.0),
            ["q=200;w=2", "r=199;t=1", "200", "199", "1"],
        ),
        (
            Rate(1, 60),
            Grant(False, 60, 0, 59.5, 0.5),
            ["q=60;w=60", "r=0;t=1", "60", "0", "1"],
        ),
        (Rate(100, 10), Grant(True, 10, 9, 0.01, 0.0), ["q=100;w=1", "r=9;t=1", "10", "9", "1"]),
        (
            Rate(1 / 60, 5),
            Grant(True, 5, 0, 300.0, 0.0),
            ["q=5;w=300", "r=0;t=300", "5", "0", "300"],
        ),
        (Rate(0.3, 1), Grant(True, 1, 0, 1 / 0.3, 0.0), ["q=1;w=4", "r=0;t=4", "1", "0", "4"]),
    ],
)
def test_the_fields_tell_policy_and_state_in_both_forms(
    rate: Rate, grant: Grant, values: list[str]
) -> None:
    """draft-ietf-httpapi-ratelimit-headers, -11 first and then up to -06, in whole seconds."""
    policy, state, limit, remaining, reset = values
    assert rate_limit_fields(rate, grant) == [
        (b"RateLimit-Policy", b'"trio-proxy";' + policy.encode()),
        (b"RateLimit", b'"trio-proxy";' + state.encode()),
        (b"RateLimit-Limit", limit.encode()),
        (b"RateLimit-Remaining", remaining.encode()),
        (b"RateLimit-Reset", reset.encode()),
    ]


@LAWS
@given(RATES, STARTS, STEPS)
def test_the_fields_never_tell_of_more_quota_than_the_policy_has(
    rate: Rate, start: float, steps: list[float]
) -> None:
    """And the window is never 0, which the draft forbids."""
    buckets = TokenBuckets(rate, 10)
    for now in times(rate, start, steps):
        grant = buckets.take(b"k", now)
        fields = dict(rate_limit_fields(rate, grant))
        _, quota, window = fields[b"RateLimit-Policy"].split(b";")
        _, remaining, _ = fields[b"RateLimit"].split(b";")
        assert int(remaining[2:]) < int(quota[2:])
        assert int(window[2:]) >= 1
        assert int(quota[2:]) <= int(window[2:]) * rate.per_second + ROUNDING
