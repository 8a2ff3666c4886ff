"""One rate limit in a real redis-server over two proxy processes, whatever becomes of Redis."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from support.processes import DEADLINE, wait_until
from support.proxy_process import ProxyProcess, write_config
from support.rawhttp import RawClient, Response, get
from support.redis_server import RedisServer
from support.shared_limit import AWAY, BACK, BURST, KEYS, limit, wait_until_counted_in

#: What a request in these tests may take beyond its due, on a machine that has more to do.
LATE_SECONDS = 0.5

T = TypeVar("T")

pytestmark = pytest.mark.usefixtures("coredis")


class Pair:
    """Two proxies that share a Redis."""

    def __init__(self, redis: RedisServer, proxies: Sequence[ProxyProcess]) -> None:
        self.redis = redis
        self.proxies = proxies
        #: How many requests of `take_all` were refused so far.
        self.refused = 0

    def wait_until_shared(self) -> None:
        """Each of them counts in Redis."""
        for proxy in self.proxies:
            wait_until_counted_in(self.redis, proxy)

    def lines(self, pattern: str) -> list[int]:
        """How many lines each has logged in which the pattern is found."""
        return [len(proxy.err.matching(pattern)) for proxy in self.proxies]

    def wait_for_more(self, pattern: str, before: Sequence[int]) -> None:
        """Each has logged such a line since it was counted before."""
        wait_until(
            lambda: all(now > then for now, then in zip(self.lines(pattern), before, strict=True)),
            f"both log {pattern!r}",
        )

    def said_once(self) -> bool:
        """Whether Redis is there, and each has said so once whenever it went or came."""
        for proxy in self.proxies:
            lines = proxy.err.matching(f"{AWAY}|{BACK}")
            if len(lines) % 2 or not all(map(re.search, itertools.cycle((AWAY, BACK)), lines)):
                return False
        return True

    def take_all(self, key: str) -> tuple[int, float]:
        """How many of 200 requests over both are let in, and how many seconds that took."""
        return self.undisturbed(self._take_all, key)

    def undisturbed(self, act: Callable[[str], T], key: str) -> T:
        """What comes of ``act`` with a key.

        Done again with another key if this machine was too busy for Redis to answer in time.
        """
        for turn in range(5):
            away = self.lines(AWAY)
            found = act(f"{key} {turn}")
            if self.lines(AWAY) == away:
                return found
            self.wait_until_shared()
        raise AssertionError("Redis is always away")

    def _take_all(self, key: str) -> tuple[int, float]:
        statuses: Counter[int] = Counter()
        started = time.monotonic()
        with ExitStack() as stack:
            clients = [stack.enter_context(RawClient(each.where)) for each in self.proxies] * 2
            for client in clients * 50:
                statuses[client.get("/status/200", f"X-Key: {key}").status] += 1
        assert set(statuses) == {200, 429}
        self.refused += statuses[429]
        return statuses[200], time.monotonic() - started


@contextmanager
def running_pair(tmp_path: Path, redis: RedisServer, upstream: int) -> Iterator[Pair]:
    with ExitStack() as stack:
        path = write_config(tmp_path, [upstream], rate_limit=limit(redis.url))
        proxies = [stack.enter_context(ProxyProcess("run", path, cwd=tmp_path)) for _ in range(2)]
        for each in proxies:
            each.wait_until_started()
        pair = Pair(redis, proxies)
        pair.wait_until_shared()
        yield pair
        for each in proxies:
            each.wait_until_quiet()


@pytest.fixture(scope="module")
def pair(echo_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """For tests that leave it as they found it: with Redis there."""
    tmp_path = tmp_path_factory.mktemp("pair")
    with RedisServer(tmp_path) as redis, running_pair(tmp_path, redis, echo_port) as pair:
        yield pair


class Load:
    """Two clients of each proxy that ask all the time; a context manager that ends it.

    Each request has a key of its own, so that none is to be refused.
    """

    def __init__(self, pair: Pair) -> None:
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []
        self._wheres = [proxy.where for proxy in pair.proxies] * 2
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(number,))
            for number in range(len(self._wheres))
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.wait_for_answers(100)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE)

    def wait_for_answers(self, count: int) -> None:
        """So many more."""
        enough = len(self.seconds) + count
        wait_until(lambda: len(self.seconds) >= enough, f"{count} answers")

    def _ask(self, number: int) -> None:
        try:
            with RawClient(self._wheres[number]) as client:
                for turn in itertools.count():
                    if self._stop.is_set():
                        return
                    started = time.monotonic()
                    status = client.get("/status/200", f"X-Key: load-{number}-{turn}").status
                    self.seconds.append(time.monotonic() - started)
                    self.statuses[str(status)] += 1
        except (OSError, EOFError) as exc:
            self.statuses[repr(exc)] += 1

    def check(self) -> None:
        """Nothing failed, and only those that were under way at some moment were late."""
        assert set(self.statuses) == {"200"}
        late = [each for each in self.seconds if each > LATE_SECONDS]
        assert len(late) <= 3 * len(self._threads), sorted(late)
        assert max(self.seconds) < DEADLINE / 4


def test_two_processes_hold_one_limit(pair: Pair) -> None:
    """Of 200 requests over both the burst is let in, and what came in tokens meanwhile."""
    before = sum(
        each.metrics()['proxy_rejected_total{reason="rate_limited"}'] for each in pair.proxies
    )
    refused = pair.refused
    let_in, seconds = pair.take_all("one limit")
    assert BURST <= let_in <= BURST + 1 + seconds
    after = sum(
        each.metrics()['proxy_rejected_total{reason="rate_limited"}'] for each in pair.proxies
    )
    assert after - before == pair.refused - refused


def test_what_one_process_says_is_what_the_other_holds(pair: Pair) -> None:
    """Remaining counts down over both, and Retry-After is true over both."""

    def count_down(key: str) -> tuple[list[int], float, Response, int]:
        field, started = f"X-Key: {key}", time.monotonic()
        answers = [client.get("/status/200", field) for client in clients * 10]
        passed = time.monotonic() - started
        while (refused := clients[0].get("/status/200", field)).status == 200:
            pass
        time.sleep(1)  # as it says
        left = [int(answer.header("ratelimit-remaining") or -1) for answer in answers]
        return left, passed, refused, clients[1].get("/status/200", field).status

    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(each.where)) for each in pair.proxies]
        left, passed, refused, later = pair.undisturbed(count_down, "one count")
    assert left[0] == BURST - 1
    assert all(one >= other for one, other in itertools.pairwise(left)) or passed > 1
    assert BURST - 20 <= left[-1] <= BURST - 20 + 1 + passed
    assert (refused.status, refused.header("retry-after")) == (429, "1")
    assert later == 200


def test_a_client_behind_one_process_does_not_hurt_one_behind_the_other(pair: Pair) -> None:
    """Keys have buckets of their own in Redis too."""
    pair.take_all("greedy")
    answer = get(pair.proxies[0].where, "/status/200", "X-Key: modest")
    assert (answer.status, answer.header("ratelimit-remaining")) == (200, str(BURST - 1))


def test_a_redis_that_hangs_costs_no_answer_and_little_time(pair: Pair) -> None:
    """Under load: each process says once that it is away, and once that it is back."""
    pair.wait_until_shared()
    away, back = pair.lines(AWAY), pair.lines(BACK)
    with Load(pair) as load:
        pair.redis.stop()
        pair.wait_for_more(AWAY, away)
        load.wait_for_answers(200)
        pair.redis.go_on()
        pair.wait_for_more(BACK, back)
        load.wait_for_answers(100)
    load.check()
    wait_until(pair.said_once, "each has said once what Redis did")


def test_without_redis_each_process_holds_the_limit_for_itself(pair: Pair) -> None:
    """Twice the burst over both; and the one burst as soon as Redis is there again."""
    pair.wait_until_shared()
    away, back = pair.lines(AWAY), pair.lines(BACK)
    pair.redis.stop()
    for proxy in pair.proxies:
        assert get(proxy.where, "/status/200", f"X-Key: {next(KEYS)}").status == 200
    pair.wait_for_more(AWAY, away)
    let_in, seconds = pair.take_all("each for itself")
    assert 2 * BURST <= let_in <= 2 * (BURST + 1 + seconds)
    pair.redis.go_on()
    pair.wait_for_more(BACK, back)
    pair.wait_until_shared()
    let_in, seconds = pair.take_all("together again")
    assert BURST <= let_in <= BURST + 1 + seconds


def test_a_redis_that_is_killed_costs_no_answer_and_little_time(
    tmp_path: Path, echo_port: int
) -> None:
    """By SIGKILL under load; a new one in its place is found, and then the limit is shared."""
    with RedisServer(tmp_path) as redis, running_pair(tmp_path, redis, echo_port) as pair:
        with Load(pair) as load:
            redis.kill()
            pair.wait_for_more(AWAY, [0, 0])
            load.wait_for_answers(200)
            redis.start()
            pair.wait_for_more(BACK, [0, 0])
            load.wait_for_answers(100)
        load.check()
        wait_until(pair.said_once, "each has said once what Redis did")
        pair.wait_until_shared()
        let_in, seconds = pair.take_all("a new one")
        assert BURST <= let_in <= BURST + 1 + seconds
