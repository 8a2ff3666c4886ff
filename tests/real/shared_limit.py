"""Words that the tests of a rate limit in Redis share.

Each key has a bucket of its own, so a test takes keys that no other test takes.
"""

from __future__ import annotations

import itertools
from typing import Any

from processes import wait_until
from proxy_process import ProxyProcess
from rawhttp import get
from redis_server import RedisServer

BURST = 50
#: What a process says of a store that it can no longer have, and of one that it has again.
AWAY = r"WARNING - rate limit store redis://127.0.0.1:\d+/0 is away"
BACK = r"WARNING - rate limit store redis://127.0.0.1:\d+/0 is back"
#: Keys that nobody else uses.
KEYS = (f"key-{number}" for number in itertools.count())


def limit(store: str, **keys: Any) -> dict[str, Any]:
    """A ``[rate_limit]`` table; a token comes each second."""
    return {"rate": 1, "burst": BURST, "key": "header:X-Key", "store": store, **keys}


def wait_until_counted_in(redis: RedisServer, proxy: ProxyProcess) -> None:
    """Requests of new keys add keys to this Redis."""

    def is_counted() -> bool:
        before = redis.ask("DBSIZE")
        assert get(proxy.where, "/status/200", f"X-Key: {next(KEYS)}").status == 200
        return redis.ask("DBSIZE") != before

    wait_until(is_counted, "requests are counted in Redis")
