"""The buckets of the rate limit, which outlive a reload, and the task that keeps up with Redis."""

from __future__ import annotations

import importlib

import trio

from trio_proxy.exchange.chain import chain
from trio_proxy.exchange.contract import Handler
from trio_proxy.middleware.ratelimit.ratelimit import Buckets, LocalBuckets, RateLimited
from trio_proxy.middleware.ratelimit.redis_buckets import RedisBuckets
from trio_proxy.policy.token_bucket import Rate
from trio_proxy.settings import RateLimitSettings, Settings


class RateLimits:
    """Makes handlers heed the ``[rate_limit]`` table of the settings in force, if there is one."""

    def __init__(self) -> None:
        self._settings: RateLimitSettings | None = None
        self._local: LocalBuckets | None = None
        self._redis: RedisBuckets | None = None
        self._prepared: tuple[RateLimitSettings | None, RedisBuckets | None] = None, None
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope()

    def start(self, nursery: trio.Nursery) -> None:
        """From now on keep connections in tasks of this nursery."""
        self._nursery = nursery
        self._connect()

    async def prepare(self, settings: Settings) -> None:
        """Make the store that settings ask for, if it is another. Raises OSError if that fails."""
        self._prepared = settings.rate_limit, await self._store_of(settings.rate_limit)

    def abandon(self) -> None:
        """Forget what was prepared; nobody has connected to it yet."""
        self._prepared = None, None

    async def _store_of(self, settings: RateLimitSettings | None) -> RedisBuckets | None:
        """The new store; None if there is none, or it stays the same."""
        if settings is None or not settings.store or not self._changes_store(settings):
            return None
        # Importing it takes a third of a second, which a proxy that serves does not have.
        await trio.to_thread.run_sync(importlib.import_module, "coredis")
        try:
            return RedisBuckets(settings.store, _rate(settings), _local_buckets(settings))
        except ValueError as exc:
            raise OSError(f"rate_limit.store: {exc}") from exc

    def _changes_store(self, settings: RateLimitSettings) -> bool:
        before = self._settings
        return before is None or (before.store, before.key) != (settings.store, settings.key)

    def commit(self) -> None:
        """Take on settings; a bucket keeps what it holds while its key and store stay the same."""
        settings, redis = self._prepared
        self._prepared = None, None
        changes_store = settings is None or self._changes_store(settings)
        if settings is None:
            self._local = None
        elif self._local is None or changes_store:
            self._local = _local_buckets(settings) if redis is None else redis.local
        else:
            self._local.apply(_rate(settings), settings.max_keys)
        self._settings = settings
        if changes_store:
            self._scope.cancel(reason="the rate limit has another store")
            self._redis = redis
            self._connect()
        elif self._redis is not None and settings is not None:
            self._redis.apply(_rate(settings), settings.max_keys)

    def _connect(self) -> None:
        if self._nursery is not None and self._redis is not None:
            self._scope = trio.CancelScope()
            self._nursery.start_soon(self._run, self._redis, self._scope)

    @staticmethod
    async def _run(redis: RedisBuckets, scope: trio.CancelScope) -> None:
        with scope:
            await redis.run()

    def limited(self, handler: Handler) -> Handler:
        """The handler, behind the limit if there is one."""
        if self._settings is None or self._local is None:
            return handler
        buckets: Buckets = self._redis or self._local
        limit = RateLimited(buckets, _rate(self._settings), self._settings.key)
        return chain([limit], handler)


def _local_buckets(settings: RateLimitSettings) -> LocalBuckets:
    return LocalBuckets(_rate(settings), settings.max_keys)


def _rate(settings: RateLimitSettings) -> Rate:
    return Rate(settings.rate, settings.burst)
