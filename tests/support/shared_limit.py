"""Words that the tests of a rate limit in Redis share.

Each key has a bucket of its own, so a test takes keys that no other test takes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from support.processes import wait_until
from support.proxy_process import ProxyProcess
from support.rawhttp import get
from support.redis_server import RedisServer

BURST = 50
#: What a process says of a store that it can no longer have, and of one that it has again.
AWAY = r"WARNING - rate limit store redis://127.0.0.1:\d+/0 is away"
BACK = r"WARNING - rate limit store redis://127.0.0.1:\d+/0 is back"
#: Keys that nobody else uses.
KEYS = (f"key-{number}" for number in itertools.count())


def limit(store: str, **keys: Any) -> dict[str, Any]:
    """A ``[rate_limit]`` table; a token comes each second."""
    return {"rate": 1, "burst": BURST, "key": "header:X-Key", "store": store, **keys}


class Disturbed(Exception):
    """Redis did not answer in time, for which a test has no use: the machine is too busy."""


@contextmanager
def counting(proxy: ProxyProcess) -> Iterator[None]:
    """What fails in this block has failed by chance if Redis was too slow meanwhile: Disturbed."""
    try:
        yield
    except AssertionError as failed:
        if _found_redis_slow(proxy):
            raise Disturbed from failed
        raise


def _found_redis_slow(proxy: ProxyProcess) -> bool:
    try:
        proxy.err.wait_for(r"is away \(no answer in time\)", seconds=1)
    except AssertionError:
        return False
    return True


def again_if_disturbed(test: Callable[..., None]) -> Callable[..., None]:
    """Such a test begins anew, a few times at most."""

    @functools.wraps(test)
    def repeated(*args: Any, **fixtures: Any) -> None:
        for _ in range(4):
            with suppress(Disturbed):
                return test(*args, **fixtures)
        return test(*args, **fixtures)

    return repeated


def wait_until_counted_in(redis: RedisServer, proxy: ProxyProcess) -> None:
    """Requests of new keys add keys to this Redis."""

    def is_counted() -> bool:
        before = redis.ask("DBSIZE")
        assert get(proxy.where, "/status/200", f"X-Key: {next(KEYS)}").status == 200
        return redis.ask("DBSIZE") != before

    wait_until(is_counted, "requests are counted in Redis")
