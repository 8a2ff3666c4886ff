"""Where the buckets of the rate limit are: stores that change, or that cannot be had at all."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from support.processes import DEADLINE, wait_until
from support.proxy_process import ProxyProcess, config_text, running_proxy, write_config
from support.rawhttp import RawClient, get
from support.redis_server import RedisServer
from support.shared_limit import BURST, again_if_disturbed, counting, limit, wait_until_counted_in

pytestmark = pytest.mark.usefixtures("coredis")


def let_in_alone(proxy: ProxyProcess, key: str, count: int = BURST + 20) -> int:
    """How many of so many requests a proxy lets in, all sent within a moment."""
    with RawClient(proxy.where) as client:
        statuses = [client.get("/status/200", f"X-Key: {key}").status for _ in range(count)]
    assert set(statuses) <= {200, 429}
    return statuses.count(200)


@again_if_disturbed
def test_reloads_set_change_and_unset_the_store(tmp_path: Path, echo_port: int) -> None:
    """Each store has buckets of its own, and a connection only while it is in force."""
    (tmp_path / "second").mkdir(exist_ok=True)

    def reload(store: str) -> None:
        text = config_text([echo_port], rate_limit=slow(store))
        (tmp_path / "proxy.toml").write_text(text)
        proxy.reload()

    def slow(store: str) -> dict[str, Any]:
        return limit(store, rate=0.001, burst=5)

    with (
        RedisServer(tmp_path) as first,
        RedisServer(tmp_path / "second") as second,
        running_proxy(tmp_path, [echo_port], rate_limit=slow("")) as proxy,
        counting(proxy),
    ):
        assert let_in_alone(proxy, "k", 7) == 5
        for redis, other in ((first, second), (second, first)):
            reload(redis.url)
            wait_until_counted_in(redis, proxy)
            assert let_in_alone(proxy, "k", 7) == 5
            assert let_in_alone(proxy, "k", 2) == 0
            wait_until(lambda other=other: other.clients() == 0, "the old connection ends")
            assert redis.clients() == 1
        reload("")
        wait_until(lambda: second.clients() == 0, "the last connection ends")
        assert let_in_alone(proxy, "k", 7) == 5
        reload(first.url)
        wait_until_counted_in(first, proxy)
        assert let_in_alone(proxy, "k", 2) == 0
        assert not proxy.err.matching("is away|is back")


def test_a_wrong_password_is_told_once_and_the_limit_is_local(
    tmp_path: Path, echo_port: int
) -> None:
    """However often it is tried; the password is nowhere in the log, and no file is left open."""
    with RedisServer(tmp_path) as redis:
        store = redis.url.replace("//", "//somebody:wr0ng-word@")

        def connections() -> int:
            stats = redis.ask("INFO", "stats")
            assert isinstance(stats, bytes)
            (line,) = [each for each in stats.split() if b"total_connections_received" in each]
            nonlocal asked
            asked += 1
            return int(line.partition(b":")[2]) - asked

        asked = 0
        with running_proxy(tmp_path, [echo_port], rate_limit=limit(store, rate=0.001)) as proxy:
            line = proxy.err.wait_for("is away .*")[0]
            assert let_in_alone(proxy, "k") == BURST
            files = proxy.open_files()
            wait_until(lambda: connections() >= 2, "it tries again")
            assert proxy.open_files() <= files + 1
            assert len(proxy.err.matching("rate limit store|coredis|AUTH")) == 1
            assert "wr0ng-word" not in proxy.err.text()
        assert "is away (AuthenticationFailureError: " in line


#: TLS to a Redis, with authorities that cannot be read.
UNUSABLE = "rediss://:pw-0@127.0.0.1:1/0?ssl_ca_certs=/nonexistent/ca.pem"


def test_a_store_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    """One readable line without the password, and exit status 1."""
    path = write_config(tmp_path, [1], rate_limit=limit(UNUSABLE))
    with ProxyProcess("run", path, cwd=tmp_path) as proxy:
        assert proxy.wait_for_end() == 1
        (line,) = proxy.err.text().splitlines()
    assert line.startswith("trio-proxy: ")
    assert "rediss://127.0.0.1:1/0" in line
    assert "pw-0" not in line


@again_if_disturbed
def test_a_reload_to_a_store_that_cannot_be_used_changes_nothing(
    tmp_path: Path, echo_port: int
) -> None:
    """It is refused in one line; upstreams, listeners and the limit in Redis stay."""
    with (
        RedisServer(tmp_path) as redis,
        running_proxy(tmp_path, [echo_port], rate_limit=limit(redis.url, rate=0.001)) as proxy,
        RawClient(proxy.where) as client,
        counting(proxy),
    ):
        wait_until_counted_in(redis, proxy)
        assert let_in_alone(proxy, "k") == BURST
        text = config_text([1], listen=["127.0.0.2:0"], rate_limit=limit(UNUSABLE, key="global"))
        (tmp_path / "proxy.toml").write_text(text)
        start = len(proxy.err)
        proxy.signal(signal.SIGHUP)
        line = proxy.err.wait_for("reload (refused|failed).*", start=start)[0]
        assert line.startswith("reload refused: ")
        assert "rediss://127.0.0.1:1/0" in line
        assert client.get("/status/200", "X-Key: k").status == 429
        assert client.get("/status/200", "X-Key: new").status == 200
        wait_until_counted_in(redis, proxy)
        assert redis.clients() == 1
        assert "pw-0" not in proxy.err.text()
        assert not proxy.err.matching("no longer listening|is away|reload failed")
        assert proxy.metrics()['proxy_config_reloads_total{result="failure"}'] == 1


@pytest.mark.parametrize("how", ["never there", "silent", "stopped"])
def test_a_stop_does_not_wait_for_redis(tmp_path: Path, echo_port: int, how: str) -> None:
    """SIGTERM ends the proxy at once, whatever it is doing with Redis."""
    with RedisServer(tmp_path) as redis:
        if how == "never there":
            redis.kill()
        elif how == "silent":
            redis.stop()
        with running_proxy(tmp_path, [echo_port], rate_limit=limit(redis.url)) as proxy:
            if how == "stopped":
                wait_until_counted_in(redis, proxy)
                redis.stop()
            assert get(proxy.where, "/status/200").status == 200
            started = time.monotonic()
            proxy.signal(signal.SIGTERM)
            assert proxy.wait_for_end() == 0
            assert time.monotonic() - started < DEADLINE / 2
