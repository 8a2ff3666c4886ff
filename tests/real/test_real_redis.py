"""Token buckets in a real redis-server, and what becomes of requests when it fails.

The local buckets have a burst of their own, so that each grant tells where it came from.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trio
from processes import DEADLINE, lacking, wait_until
from redis_server import RedisServer
from trio.testing import wait_all_tasks_blocked

from trio_proxy.handlers import redis_buckets
from trio_proxy.handlers.ratelimit import LocalBuckets
from trio_proxy.handlers.redis_buckets import RedisBuckets
from trio_proxy.policy.ratelimit import Grant, Rate, TokenBuckets

# Of a connection that could not be made, coredis leaves the memory streams for the collector.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")

#: Tokens come so slowly that none comes during a test.
RATE = Rate(0.001, 5)
LOCAL_BURST = 1000
#: A pause after failures that no test waits for.
NEVER = 3600.0


@pytest.fixture(autouse=True)
def coredis() -> None:
    if not find_spec("coredis"):
        lacking("coredis is not installed")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


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
        key = redis_buckets.key_prefix(rate) + b"k"
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


async def test_a_flushed_script_is_sent_again(redis: RedisServer) -> None:
    """No request is counted elsewhere for it."""
    buckets = make_buckets(redis.url, retry_seconds=NEVER)
    async with running(buckets):
        await buckets.take(b"k")
        redis.ask("SCRIPT", "FLUSH")
        assert [(await buckets.take(b"k")).remaining for _ in range(2)] == [3, 2]


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


@pytest.mark.parametrize("password", ["s3cret%21", "s3cret!"])
async def test_a_password_is_used(tmp_path: Path, password: str) -> None:
    """It may be percent-encoded in the URL."""
    with RedisServer(tmp_path, "--requirepass", "s3cret!") as redis:
        buckets = make_buckets(redis.url.replace("//", f"//:{password}@"))
        async with running(buckets):
            assert not is_local(await buckets.take(b"k"))


async def test_a_wrong_password_makes_the_limit_local_and_is_not_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The line names the URL without it, and the reason."""
    with RedisServer(tmp_path, "--requirepass", "s3cret") as redis:
        buckets = make_buckets(redis.url.replace("//", "//default:wr0ng@"))
        async with running(buckets):
            assert is_local(await buckets.take(b"k"))
    (line,) = store_lines(caplog)
    assert redis.url in line
    assert "AuthenticationFailureError" in line
    assert "wr0ng" not in line + repr(buckets)


async def listen(
    nursery: trio.Nursery, serve: Callable[[trio.SocketStream], Awaitable[None]]
) -> int:
    """The port where ``serve`` answers."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, serve, [listener])
    port: int = listener.socket.getsockname()[1]
    return port


#: What a server answers to HELLO and to SCRIPT LOAD.
HELLO = b"%7\r\n+server\r\n+redis\r\n+version\r\n+7.0.0\r\n+proto\r\n:3\r\n+id\r\n:1\r\n"
HELLO += b"+mode\r\n+standalone\r\n+role\r\n+master\r\n+modules\r\n*0\r\n"
LOADED = b"$40\r\n" + b"0" * 40 + b"\r\n"


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([b""], id="closes"),
        pytest.param([b"HTTP/1.1 400 Bad Request\r\n\r\n"], id="http"),
        pytest.param([b"\x00\xff" * 50 + b"\r\n"], id="bytes"),
        pytest.param([b"*-5\r\n:x\r\n"], id="malformed"),
        pytest.param([b"-ERR unknown command `HELLO`, with args `AUTH` `pw-0`\r\n"], id="old"),
        pytest.param([b"+OK\r\n"], id="no hello"),
        pytest.param([HELLO, b"-NOPERM no\r\n"], id="no permission"),
        pytest.param([HELLO, LOADED, b"+OK\r\n"], id="another type"),
        pytest.param([HELLO, LOADED, b"*2\r\n:7\r\n$1\r\n1\r\n"], id="no verdict"),
        pytest.param([HELLO, LOADED, b"*2\r\n:1\r\n$3\r\nnan\r\n"], id="not a number"),
        pytest.param([HELLO, LOADED, b"*2\r\n:1\r\n$4\r\n1e99\r\n"], id="too many"),
        pytest.param([HELLO, LOADED, b"-MOVED 1 127.0.0.1:1\r\n"], id="moved"),
        pytest.param([HELLO, LOADED, b"-MOVED\r\n"], id="malformed moved"),
        pytest.param([HELLO, LOADED, b"-NOSCRIPT no\r\n", b"-NOSCRIPT no\r\n"], id="no script"),
    ],
)
async def test_nonsense_makes_the_limit_local(
    answers: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever listens there, requests go on, and nothing of the URL's password is logged."""

    async def serve(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            for answer in answers:
                await stream.receive_some()
                await stream.send_all(answer)
            if answers != [b""]:
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        port = await listen(nursery, serve)
        buckets = make_buckets(f"redis://:pw%2D0@127.0.0.1:{port}")
        async with running(buckets):
            assert "away" in repr(buckets)
            assert is_local(await buckets.take(b"k"))
        nursery.cancel_scope.cancel()
    (line,) = store_lines(caplog)
    assert "pw-0" not in line
    assert "pw%2D0" not in line


async def test_nonsense_in_the_middle_makes_the_limit_local() -> None:
    """An answer that belongs to no script, on a connection that had worked."""
    sensible = b"*2\r\n:1\r\n$1\r\n1\r\n"

    async def serve(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            for answer in (HELLO, LOADED, sensible, sensible, b"$-1\r\n"):
                await stream.receive_some()
                await stream.send_all(answer)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        port = await listen(nursery, serve)
        buckets = make_buckets(f"redis://127.0.0.1:{port}", retry_seconds=NEVER)
        async with running(buckets):
            assert [is_local(await buckets.take(b"k")) for _ in range(3)] == [False, True, True]
        nursery.cancel_scope.cancel()


async def test_its_task_ends_cleanly_in_the_middle_of_a_handshake(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Cancelled while the server is silent, it raises nothing of its own and logs nothing."""
    asked = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        asked.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        port = await listen(nursery, serve)
        nursery.start_soon(make_buckets(f"redis://127.0.0.1:{port}").run)
        await asked.wait()
        nursery.cancel_scope.cancel()
    assert store_lines(caplog) == []


async def test_other_settings_are_applied_without_a_new_connection(redis: RedisServer) -> None:
    """The next request is counted by them."""
    buckets = make_buckets(redis.url, retry_seconds=NEVER)
    async with running(buckets):
        await buckets.take(b"k")
        buckets.apply(Rate(0.001, 9), 10)
        grant = await buckets.take(b"k")
    assert (grant.limit, grant.remaining) == (9, 8)


@pytest.mark.parametrize(
    ("url", "checks"),
    [
        ("rediss://a.test", True),
        ("rediss://a.test/1?ssl_cert_reqs=required", True),
        ("rediss://a.test?ssl_check_hostname=false", False),
        ("rediss://a.test?ssl_cert_reqs=none", False),
    ],
)
def test_tls_checks_the_name_of_the_host_unless_the_url_says_otherwise(
    url: str, checks: bool
) -> None:
    """A certificate for another host is as good as none."""
    make = redis_buckets.connection_maker(url)
    assert make.keywords["ssl_context"].check_hostname is checks


@pytest.mark.parametrize(
    "url",
    ["redis://", "redis://:pw-0@/1", "redis://:pw-0@a:b", "rediss://:pw-0@a?ssl_ca_certs=/no/file"],
)
def test_a_url_that_cannot_be_used_is_a_value_error_without_its_password(url: str) -> None:
    """It is raised when the buckets are made, not when they are used."""
    with pytest.raises(ValueError, match=r"rediss?://") as caught:
        make_buckets(url)
    assert "pw-0" not in str(caught.value)
