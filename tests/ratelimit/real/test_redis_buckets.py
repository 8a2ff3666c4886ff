"""Token buckets in a real redis-server: one piece of arithmetic, and one for all who share it."""

from __future__ import annotations

import time

import pytest
import trio

from support.processes import DEADLINE
from support.redis_server import RedisServer
from support.shared_buckets import MARKS, NEVER, RATE, is_local, make_buckets, running
from trio_proxy.middleware.ratelimit.redis_script import key_prefix
from trio_proxy.policy.token_bucket import Grant, Rate, TokenBuckets

pytestmark = MARKS


async def test_two_proxies_share_a_bucket(redis: RedisServer) -> None:
    """Together they have the one burst."""
    one, other = make_buckets(redis.url), make_buckets(redis.url)
    async with running(one, other):
        grants = [await each.take(b"k") for each in (one, other) * 4]
    assert [grant.allowed for grant in grants] == [True] * 5 + [False] * 3
    assert [grant.remaining for grant in grants] == [4, 3, 2, 1, 0, 0, 0, 0]


async def test_different_keys_and_different_limits_have_buckets_of_their_own(
    redis: RedisServer,
) -> None:
    """In one Redis."""
    limits = [make_buckets(redis.url, rate) for rate in (RATE, Rate(0.001, 6), Rate(0.002, 5))]
    async with running(*limits):
        for buckets in limits:
            for key in (b"a", b"b"):
                grant = await buckets.take(key)
                assert grant.remaining == grant.limit - 1


async def test_grants_are_those_that_the_policy_gives(redis: RedisServer) -> None:
    """The script and the class are one piece of arithmetic."""
    rate = Rate(1 / 3, 4)
    buckets, policy = make_buckets(redis.url, rate), TokenBuckets(rate, 1)
    async with running(buckets):
        for _ in range(6):
            expected, grant = policy.take(b"k", 0), await buckets.take(b"k")
            assert grant.allowed == expected.allowed
            assert grant.remaining == expected.remaining
            assert grant.reset_seconds == pytest.approx(expected.reset_seconds, abs=3)
            assert grant.retry_after == pytest.approx(expected.retry_after, abs=3)


async def test_a_token_is_there_when_retry_after_has_passed(redis: RedisServer) -> None:
    """By the clock of Redis."""
    buckets = make_buckets(redis.url, Rate(5, 1))
    async with running(buckets):
        refused = await buckets.take(b"k")
        assert refused.allowed
        while refused.allowed:  # as often as the clock is faster than this machine
            refused = await buckets.take(b"k")
        assert 0 < refused.retry_after <= 0.2
        await trio.sleep(refused.retry_after)
        assert (await buckets.take(b"k")).allowed


@pytest.mark.parametrize("rate", [Rate(1_000_000, 1_000_000), Rate(0.001, 1_000_000)])
async def test_extreme_rates_keep_their_precision(redis: RedisServer, rate: Rate) -> None:
    """What is kept and told has more digits than Lua shows by itself."""
    buckets, missing = make_buckets(redis.url, rate), 123_456.123_456_789
    async with running(buckets):
        # Last used tomorrow, so that it gains nothing meanwhile.
        key = key_prefix(rate) + b"k"
        redis.ask("SET", key, f"{missing} {int(time.time() + 86_400) * 1_000_000}")
        grant = await buckets.take(b"k")
        kept = redis.ask("GET", key)
    assert grant == rate.grant(missing + 1, allowed=True)
    assert isinstance(kept, bytes)
    assert float(kept.split()[0]) == missing + 1


async def test_of_many_requests_at_once_only_the_burst_is_allowed(redis: RedisServer) -> None:
    """On one connection, whatever comes."""
    buckets, grants = make_buckets(redis.url), list[Grant]()

    async def take() -> None:
        grants.append(await buckets.take(b"k"))

    async with running(buckets):
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(take)
        assert redis.clients() == 1
    assert sum(grant.allowed for grant in grants) == RATE.burst
    assert not any(map(is_local, grants))


async def test_a_key_leaves_redis_when_its_bucket_is_full_again(redis: RedisServer) -> None:
    """It has a lifetime from the start."""
    buckets = make_buckets(redis.url, Rate(0.1, 5))
    async with running(buckets):
        redis.ask("FLUSHALL")
        await buckets.take(b"k")
        await buckets.take(b"k")
        keys = redis.ask("KEYS", "*")
    assert keys == [b"trio-proxy:rate:0.1:5:k"]
    left = redis.ask("PTTL", b"trio-proxy:rate:0.1:5:k")
    assert isinstance(left, int)
    assert 20_000 - DEADLINE * 1000 < left <= 20_000


async def test_a_clock_that_was_set_back_neither_refills_nor_blocks_a_bucket(
    redis: RedisServer,
) -> None:
    """A bucket that was last used "tomorrow" goes on from now."""
    buckets = make_buckets(redis.url, Rate(5, 5))
    async with running(buckets):
        tomorrow = int(time.time() + 86_400) * 1_000_000
        redis.ask("SET", "trio-proxy:rate:5.0:5:k", f"5 {tomorrow}")
        refused = await buckets.take(b"k")
        assert not refused.allowed
        await trio.sleep(refused.retry_after)
        assert (await buckets.take(b"k")).allowed


async def test_a_flushed_script_is_sent_again(redis: RedisServer) -> None:
    """No request is counted elsewhere for it."""
    buckets = make_buckets(redis.url, retry_seconds=NEVER)
    async with running(buckets):
        await buckets.take(b"k")
        redis.ask("SCRIPT", "FLUSH")
        assert [(await buckets.take(b"k")).remaining for _ in range(2)] == [3, 2]


async def test_other_settings_are_applied_without_a_new_connection(redis: RedisServer) -> None:
    """The next request is counted by them."""
    buckets = make_buckets(redis.url, retry_seconds=NEVER)
    async with running(buckets):
        await buckets.take(b"k")
        buckets.apply(Rate(0.001, 9), 10)
        grant = await buckets.take(b"k")
    assert (grant.limit, grant.remaining) == (9, 8)
