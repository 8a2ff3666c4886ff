"""Buckets in Redis as the tests of them make, run and ask them.

The local buckets have a burst of their own, so that each grant tells where it came from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from support.processes import DEADLINE
from trio_proxy.middleware.ratelimit.ratelimit import LocalBuckets
from trio_proxy.middleware.ratelimit.redis_buckets import RedisBuckets
from trio_proxy.policy.token_bucket import Grant, Rate

#: Tokens come so slowly that none comes during a test.
RATE = Rate(0.001, 5)
LOCAL_BURST = 1000
#: A pause after failures that no test waits for.
NEVER = 3600.0

#: Of a connection that could not be made, coredis leaves the memory streams for the collector.
MARKS = [
    pytest.mark.usefixtures("coredis"),
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
]


def make_buckets(
    url: str, rate: Rate = RATE, *, patience: float = DEADLINE, retry_seconds: float = 0.02
) -> RedisBuckets:
    """Buckets that wait for as long as a busy machine needs, unless told otherwise."""
    local = LocalBuckets(Rate(0.001, LOCAL_BURST), 100)
    return RedisBuckets(url, rate, local, fail_open_seconds=patience, retry_seconds=retry_seconds)


@asynccontextmanager
async def running(*all_buckets: RedisBuckets) -> AsyncIterator[None]:
    """Each connected, or tried in vain; and ended within the deadline."""
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            for buckets in all_buckets:
                await nursery.start(buckets.run)
            yield
            nursery.cancel_scope.cancel()


def is_local(grant: Grant) -> bool:
    return grant.limit == LOCAL_BURST


async def until(predicate: Callable[[Grant], bool], buckets: RedisBuckets) -> Grant:
    """The first grant of which it is true; within the deadline of `running`."""
    while True:
        grant = await buckets.take(b"waiting")
        if predicate(grant):
            return grant
        await trio.sleep(0.005)


async def until_shared(buckets: RedisBuckets) -> Grant:
    return await until(lambda grant: not is_local(grant), buckets)


async def attempts(buckets: RedisBuckets, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait until it has tried so many more times to connect."""
    make, made = buckets._make_connection, trio.Semaphore(0)

    def make_counted() -> Any:
        made.release()
        return make()

    monkeypatch.setattr(buckets, "_make_connection", make_counted)
    for _ in range(count):
        await made.acquire()


def store_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of the store."""
    return [each.getMessage() for each in caplog.records if each.name.startswith("trio_proxy")]
