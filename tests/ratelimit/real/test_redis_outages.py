"""Buckets of a Redis that dies, hangs or refuses: local meanwhile, then shared again."""

from __future__ import annotations

import time

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from support.processes import DEADLINE, wait_until
from support.redis_server import RedisServer
from support.shared_buckets import (
    MARKS,
    NEVER,
    RATE,
    attempts,
    is_local,
    make_buckets,
    running,
    store_lines,
    until,
    until_shared,
)
from trio_proxy.middleware.ratelimit import redis_buckets
from trio_proxy.middleware.ratelimit.ratelimit import LocalBuckets
from trio_proxy.middleware.ratelimit.redis_buckets import RedisBuckets
from trio_proxy.policy.token_bucket import Grant

pytestmark = MARKS


async def test_without_its_task_every_bucket_is_local(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Before it is started and after it has ended, which is not a fault of Redis."""
    buckets = make_buckets(redis.url)
    assert is_local(await buckets.take(b"k"))
    async with running(buckets):
        assert not is_local(await buckets.take(b"k"))
    assert is_local(await buckets.take(b"k"))
    assert store_lines(caplog) == []


async def test_when_its_task_ends_the_connection_is_closed(redis: RedisServer) -> None:
    """Redis sees it go."""
    async with running(make_buckets(redis.url)):
        assert redis.clients() == 1
    wait_until(lambda: redis.clients() == 0, "the connection ends")


async def test_when_its_task_ends_redis_is_not_said_to_be_away(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A reload has given it up, and a request that waits for an answer takes a local token."""
    buckets, grants = make_buckets(redis.url), []

    async def take() -> None:
        grants.append(await buckets.take(b"k"))

    async with trio.open_nursery() as nursery, running(buckets):
        redis.stop()
        nursery.start_soon(take)
        await wait_all_tasks_blocked()
    assert list(map(is_local, grants)) == [True]
    assert store_lines(caplog) == []


async def test_a_killed_redis_makes_the_limit_local_and_a_new_one_shared_again(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is logged once."""
    buckets = make_buckets(redis.url)
    async with running(buckets):
        assert not is_local(await buckets.take(b"k"))
        redis.kill()
        await until(is_local, buckets)
        for _ in range(10):
            assert is_local(await buckets.take(b"k"))
        await trio.to_thread.run_sync(redis.start)
        assert (await until_shared(buckets)).limit == RATE.burst
    away, back = store_lines(caplog)
    assert away.startswith(f"rate limit store {redis.url} is away (")
    assert back == f"rate limit store {redis.url} is back"


async def test_a_redis_that_comes_later_is_found(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The proxy starts without it."""
    redis.kill()
    buckets = make_buckets(redis.url)
    async with running(buckets):
        assert is_local(await buckets.take(b"k"))
        await trio.to_thread.run_sync(redis.start)
        await until_shared(buckets)
    assert "Connection" in store_lines(caplog)[0]


async def test_a_redis_that_refuses_to_write_makes_the_limit_local(
    redis: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full, read-only or failing: it says so in the log, and when it is over."""
    buckets = make_buckets(redis.url)
    async with running(buckets):
        redis.ask("CONFIG", "SET", "maxmemory", 1)
        assert is_local(await buckets.take(b"k"))
        await attempts(buckets, 3, monkeypatch)
        redis.ask("CONFIG", "SET", "maxmemory", 0)
        await until_shared(buckets)
    away, back = store_lines(caplog)
    assert "memory" in away
    assert back.endswith("is back")


async def test_a_stopped_redis_costs_one_request_its_patience_and_the_others_nothing(
    redis: RedisServer,
) -> None:
    """Nobody asks it again until the pause is over."""
    buckets = make_buckets(redis.url, patience=0.5, retry_seconds=NEVER)
    async with running(buckets):
        redis.stop()
        started = trio.current_time()
        assert is_local(await buckets.take(b"k"))
        assert trio.current_time() - started >= 0.5
        started = trio.current_time()
        for _ in range(20):
            assert is_local(await buckets.take(b"k"))
        assert trio.current_time() - started < 20 * 0.5 / 2


async def test_requests_wait_for_redis_no_longer_than_fifty_milliseconds(
    redis: RedisServer,
) -> None:
    """That is the whole cost of a store that hangs."""
    buckets = RedisBuckets(redis.url, RATE, LocalBuckets(RATE, 10))
    async with running(buckets):
        redis.stop()
        started = trio.current_time()
        await buckets.take(b"k")
        assert trio.current_time() - started < 5  # of which a busy machine may add most


async def test_a_stopped_redis_that_goes_on_is_used_again(
    redis: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though new connections to it were accepted all the time."""
    buckets = make_buckets(redis.url, patience=0.05)
    async with running(buckets):
        monkeypatch.setattr(redis_buckets, "CONNECT_SECONDS", 0.05)
        redis.stop()
        await until(is_local, buckets)
        await attempts(buckets, 5, monkeypatch)
        redis.go_on()
        monkeypatch.setattr(redis_buckets, "CONNECT_SECONDS", DEADLINE)
        await until_shared(buckets)
    assert "is away (no answer in time)" in store_lines(caplog)[0]


async def test_requests_that_are_cancelled_do_not_poison_the_connection(
    redis: RedisServer,
) -> None:
    """Their answers are dropped; the next request gets its own, on the same connection."""
    buckets = make_buckets(redis.url, retry_seconds=NEVER)
    async with running(buckets):
        used_up = [await buckets.take(b"gone") for _ in range(5)]
        assert used_up[-1].remaining == 0
        redis.stop()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(buckets.take, b"gone")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        redis.go_on()
        for remaining in (4, 3, 2):
            grant = await buckets.take(b"new")
            assert (grant.limit, grant.remaining) == (RATE.burst, remaining)
        assert redis.clients() == 1


async def test_a_hanging_redis_is_noticed_though_each_client_leaves_before(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unanswered commands do not pile up for ever."""
    buckets = make_buckets(redis.url, retry_seconds=NEVER)
    async with running(buckets):
        monkeypatch.setattr(redis_buckets, "CONNECT_SECONDS", 0.02)
        redis.stop()
        grant = None
        while grant is None:
            with trio.move_on_after(0.01):
                grant = await buckets.take(b"k")
        assert is_local(grant)


async def test_a_proxy_that_is_late_itself_does_not_blame_redis(redis: RedisServer) -> None:
    """The answer has come in time, but was not read in time."""
    buckets, grants = make_buckets(redis.url, patience=0.1, retry_seconds=NEVER), list[Grant]()

    async def take() -> None:
        grants.append(await buckets.take(b"k"))

    async with running(buckets):
        for _ in range(5):  # Trio runs its tasks in an order by chance
            async with trio.open_nursery() as nursery:
                nursery.start_soon(take)
                for _ in range(10):  # until the command has been sent
                    await trio.lowlevel.checkpoint()
                time.sleep(0.25)  # noqa: ASYNC251 - the very fault
    assert [grant.remaining for grant in grants] == [4, 3, 2, 1, 0]
