"""Token buckets in Redis, so that several processes and machines keep one limit together.

The arithmetic is that of `trio_proxy.policy.token_bucket`, as a Lua script, which Redis runs
atomically and by its own clock. A limit is worth less than an answer: whenever Redis is away, slow,
refuses or answers nonsense, a request takes its token from the buckets in this process instead
(nginx, which has no shared store, would always). Requests never look for Redis; one task does.

All requests share one connection and their commands are pipelined on it. Coredis's own pool is not
used: a place in it is lost for good when the one who waits for a connection is cancelled, or when
the connection breaks while it is lent. Here a request that is cancelled leaves its command where it
is, and the answer is read and dropped in its turn.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Protocol

import trio

from trio_proxy.middleware.ratelimit.ratelimit import LocalBuckets
from trio_proxy.middleware.ratelimit.redis_connection import (
    CONNECT_SECONDS,
    close_streams,
    connection_maker,
    url_for_log,
)
from trio_proxy.middleware.ratelimit.redis_script import SCRIPT, SCRIPT_SHA, grant_of, key_prefix
from trio_proxy.policy.token_bucket import Grant, Rate

if TYPE_CHECKING:
    from coredis.connection import BaseConnection

log = logging.getLogger("trio_proxy.handlers")

#: The longest that a request waits for Redis, in seconds.
FAIL_OPEN_SECONDS = 0.05
#: The pause after a failure before Redis is asked again, in seconds.
RETRY_SECONDS = 1.0


class _Command(Protocol):
    """A command that was sent; awaiting it gives the answer."""

    @property
    def complete(self) -> bool: ...

    def __await__(self) -> Generator[Any, None, object]: ...


class RedisBuckets:
    """Buckets in Redis, and `LocalBuckets` while it cannot be had.

    Nothing is asked of Redis unless `run` is running. Raises ValueError for a bad URL, and
    ImportError without coredis.
    """

    def __init__(
        self,
        url: str,
        rate: Rate,
        local: LocalBuckets,
        *,
        fail_open_seconds: float = FAIL_OPEN_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        from coredis.exceptions import NoScriptError

        self.local = local
        self._rate = rate
        self._prefix = key_prefix(rate)
        self._fail_open_seconds = fail_open_seconds
        self._retry_seconds = retry_seconds
        self._name = url_for_log(url)
        self._make_connection = connection_maker(url)
        self._secret = str(self._make_connection.keywords.get("password") or "")
        self._script_unknown = NoScriptError
        #: The connection that requests use; None while Redis cannot be had.
        self._connection: BaseConnection | None = None
        #: Commands that may be unanswered, and when each was sent.
        self._sent: deque[tuple[float, _Command]] = deque()
        #: Set when the connection has failed a request.
        self._failed = trio.Event()
        #: It was said in the log that Redis cannot be had.
        self._told_away = False
        self._tried = trio.Event()

    def __repr__(self) -> str:
        state = "away" if self._connection is None else "there"
        return f"<RedisBuckets {self._name} {state} {self.local}>"

    def apply(self, rate: Rate, max_keys: int) -> None:
        """Go on with other settings. In Redis each rate has buckets of its own, which start full.

        ``max_keys`` bounds the buckets in this process only.
        """
        self._rate = rate
        self._prefix = key_prefix(rate)
        self.local.apply(rate, max_keys)

    async def take(self, key: bytes) -> Grant:
        """Take a token if there is one. Waits for at most `FAIL_OPEN_SECONDS`; never raises."""
        connection, rate = self._connection, self._rate
        if connection is None:
            return await self.local.take(key)
        try:
            return grant_of(rate, await self._run_script(connection, rate, self._prefix + key))
        except Exception as exc:  # noqa: BLE001 - a parser met with nonsense may raise anything
            self._fail(connection, exc)
            return await self.local.take(key)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a connection until cancelled. Raises nothing, whatever Redis does.

        Counts as started after the first attempt, which takes at most `CONNECT_SECONDS` and
        `FAIL_OPEN_SECONDS`, whether or not it succeeds.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_connected)
            await self._tried.wait()
            task_status.started()

    async def _keep_connected(self) -> None:
        while True:
            connection = self._make_connection()
            try:
                await self._use(connection)
            except Exception as exc:  # noqa: BLE001 - as above, and there is no one to tell
                self._tell_away(exc)
            finally:
                self._connection = None
                close_streams(connection)
            self._tried.set()
            await trio.sleep(self._retry_seconds)

    async def _use(self, connection: BaseConnection) -> None:
        """Offer a connection to the requests until it fails, and raise why it did."""
        self._sent.clear()
        async with trio.open_nursery() as nursery:
            with trio.fail_after(CONNECT_SECONDS):
                await nursery.start(self._serve, connection)
                await connection.create_request(b"SCRIPT", b"LOAD", SCRIPT)
            # A server that answers, but not in time, or that cannot write, is none.
            probe = await self._run_script(connection, self._rate, self._prefix + b"probe")
            grant_of(self._rate, probe)
            self._failed = trio.Event()
            self._connection = connection
            self._tell_back()
            self._tried.set()
            try:
                await self._failed.wait()
            finally:
                self._connection = None  # whom it leaves without an answer has no complaint
            nursery.cancel_scope.cancel(reason="the connection has failed a request")

    async def _serve(
        self, connection: BaseConnection, *, task_status: trio.TaskStatus[None]
    ) -> None:
        try:
            await connection.run(task_status=task_status)
        except Exception:
            # Cancelled before it is connected, it raises an error of its own in place of that.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise
        raise ConnectionResetError("the connection was lost")

    async def _run_script(self, connection: BaseConnection, rate: Rate, key: bytes) -> object:
        """The script's answer. Raises TooSlowError, and whatever the connection raises."""
        arguments = (1, key, repr(float(rate.per_second)), rate.burst)
        command = self._send(connection, b"EVALSHA", SCRIPT_SHA, *arguments)
        deadline = trio.current_time() + self._fail_open_seconds
        try:
            return await self._answer(command, deadline)
        except self._script_unknown:  # SCRIPT FLUSH, or another server behind the same name
            command = self._send(connection, b"EVAL", SCRIPT, *arguments)
            return await self._answer(command, deadline)

    def _send(self, connection: BaseConnection, *words: bytes | str | int) -> _Command:
        now = trio.current_time()
        while self._sent and self._sent[0][1].complete:
            self._sent.popleft()
        if self._sent and now - self._sent[0][0] > CONNECT_SECONDS:
            # Nobody waits any more for what was asked, so nobody else can notice.
            raise trio.TooSlowError
        name, *arguments = words
        assert isinstance(name, bytes)
        command = connection.create_request(name, *arguments)
        self._sent.append((now, command))
        return command

    async def _answer(self, command: _Command, deadline: float) -> object:
        with trio.CancelScope(deadline=deadline):
            return await command
        # If it was this process that was late, the answer is there by now, but not read: that is
        # not the fault of Redis.
        await trio.lowlevel.checkpoint()
        if command.complete:
            return await command
        raise trio.TooSlowError

    def _fail(self, connection: BaseConnection, why: Exception) -> None:
        if connection is self._connection:
            self._connection = None
            self._tell_away(why)
            self._failed.set()

    def _tell_away(self, why: Exception) -> None:
        if not self._told_away:
            self._told_away = True
            reason = reason_of(why)
            if self._secret:  # Redis before 6 quotes the command that it does not know
                reason = reason.replace(self._secret, "***")
            log.warning(
                "rate limit store %s is away (%s); each process counts for itself",
                self._name,
                reason,
            )

    def _tell_back(self) -> None:
        if self._told_away:
            self._told_away = False
            log.warning("rate limit store %s is back", self._name)


def reason_of(exc: BaseException) -> str:
    """Why something failed, in a few words: the first error in a group, and what lies behind it."""
    while True:
        if isinstance(exc, BaseExceptionGroup):
            exc = exc.exceptions[0]
        elif exc.__cause__ is not None:
            exc = exc.__cause__
        else:
            break
    if isinstance(exc, trio.TooSlowError | TimeoutError):
        return "no answer in time"
    if not str(exc):  # streams that ended, and have nothing to say
        return "the connection was lost"
    return f"{type(exc).__name__}: {exc}"[:200]
