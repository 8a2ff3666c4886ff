"""What else the page "When upstreams fail" tells of, played: who is asked, and how often."""

from __future__ import annotations

import ast
import logging
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import trio_proxy
from support.documents import SHOWN_LINE, blocks
from support.outage_plays import PAGE, Play, Server, two_servers
from support.processes import DEADLINE, wait_until
from support.rawhttp import Response, get
from support.redis_server import RedisServer
from support.upstreams import ScriptedUpstream, UpstreamConnection


def test_balancing(tmp_path: Path) -> None:
    """Twelve requests at weights of 5 and 1; the numbers are exact."""
    with ScriptedUpstream() as one, ScriptedUpstream() as other:
        play = Play(tmp_path, "Balancing", [one.port, other.port])
        with play.running():
            assert [play.get() for _ in range(12)] == [200] * 12
            play.shows(0)
            metrics = play.proxy.metrics()
    for port, count in ((one.port, 10), (other.port, 2)):
        assert (
            metrics[f'proxy_upstream_requests_total{{pool="default",upstream="127.0.0.1:{port}"}}']
            == count
        )


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    with two_servers() as both:
        yield both


def cookie_of(answer: Response) -> str | None:
    return answer.header("set-cookie")


def test_the_same_upstream_for_the_same_client(
    tmp_path: Path, servers: tuple[Server, Server]
) -> None:
    """The cookie is as it is shown; it comes once, and anew when its upstream has been killed."""
    one, other = servers
    title = "The same upstream for the same client"
    shown = re.sub("[0-9a-f]{32}", "[0-9a-f]{32}", blocks("text", PAGE.section(title))[0].strip())
    play = Play(tmp_path, title, [one.port, other.port])
    with play.running(block=1):
        first = cookie_of(get(play.proxy.where, "/"))
        assert first is not None
        assert re.fullmatch(shown, f"Set-Cookie: {first}")
        cookie = f"Cookie: {first.partition(';')[0]}"
        assert cookie_of(get(play.proxy.where, "/", cookie)) is None
        one.kill()
        moved = cookie_of(get(play.proxy.where, "/", cookie))
        one.start()
        assert moved not in (None, first)


def test_queue(tmp_path: Path) -> None:
    """Of three requests at one connection one is answered, one waits in vain, one is too many."""

    def hold(connection: UpstreamConnection) -> None:
        connection.read_request()
        assert others_are_over.wait(DEADLINE)
        connection.answer()

    def ask() -> int:
        return play.get("/slow?ms=1000")

    others_are_over = threading.Event()
    small = [("= 20 ", "= 1 "), ("= 1000", "= 1"), ("= 5000", "= 2000")]
    with ScriptedUpstream(hold) as upstream, ThreadPoolExecutor() as pool:
        play = Play(tmp_path, "Queue", [upstream.port])
        with play.running(*small):
            first = pool.submit(ask)
            wait_until(lambda: upstream.connections == 1, "the first one is there")
            second = pool.submit(ask)
            queued = 'proxy_queue_length{pool="default"}'
            wait_until(lambda: play.proxy.metrics()[queued] == 1, "the second one waits")
            assert (ask(), second.result()) == (503, 503)
            others_are_over.set()
            assert first.result() == 200
            play.says(0)


def test_a_queue_that_sheds(tmp_path: Path, echo_port: int) -> None:
    """Of more than can be answered in time, some are told so at once, and the log says it."""
    play = Play(tmp_path, "Queue", [echo_port])
    play.shown[2] = play.shown[2].replace("ms=100", "ms=200")
    deadline = ("[limits]", "[timeouts]\ntotal_ms = 2000\n[limits]")
    with play.running(("= 20 ", "= 4 "), deadline):
        assert set(play.together("/slow?ms=200", 12)) == {200}
        assert {200, 503} <= set(play.together("/slow?ms=200", 60))
        play.says(2)


def test_rate_limit(tmp_path: Path, echo_port: int) -> None:
    """Whoever asks too often is told what is shown."""
    play = Play(tmp_path, "Rate limit", [echo_port])
    with play.running():
        while (refused := get(play.proxy.where, "/status/200")).status == 200:
            pass
        assert refused.status == 429
        play.says(0)
        play.shows(1)
        shown = [line.split(": ", 1) for line in play.shown[2].splitlines()]
        assert len(shown) == 6
        for name, value in shown:
            assert refused.header(name.lower()) == value


@pytest.mark.usefixtures("coredis")
def test_one_limit_for_several_proxies(tmp_path: Path, echo_port: int) -> None:
    """Redis is killed and started again; requests are answered, and the log tells of it."""
    play = Play(tmp_path, "One limit for several proxies", [echo_port])
    with RedisServer(tmp_path) as redis, play.running(("6379", str(redis.port))):
        play.shown = [each.replace("6379", str(redis.port)) for each in play.shown]
        key = f"trio-proxy:rate:{1.0!r}:3:*"

        def is_used() -> bool:
            """And not away, as it may be for a while on a busy machine."""
            assert play.get() in (200, 429)
            away, back = (len(play.proxy.err.matching(each)) for each in ("is away", "is back"))
            return redis.ask("KEYS", key) != [] and away == back

        wait_until(is_used, "it is used")
        redis.kill()
        assert play.get() in (200, 429)
        play.proxy.err.wait_for("is away")
        redis.start()
        play.says(0)


def test_deadlines(tmp_path: Path, echo_port: int) -> None:
    """The caller's, one that has passed, and our own."""
    play = Play(tmp_path, "Deadlines", [echo_port])
    with play.running(("= 2000", "= 1000")):
        assert play.get("/slow?ms=1000", "X-Request-Deadline-Ms: 500") == 504
        assert play.get("/slow?ms=1000", "X-Request-Deadline-Ms: 0") == 504
        assert play.get("/slow?ms=3000") == 504
        play.says(0)
        play.shows(1)


def test_drain(tmp_path: Path) -> None:
    """By a reload; then the table is taken away."""
    play = Play(tmp_path, "Drain", [9001, 9002])
    with play.running(("drain = true", "drain = false")):
        play.configure()
        play.proxy.reload()
        play.shows(1)
        text = play.path.read_text()
        first, second, rest = re.split(r"(?=\[\[|\[balance)", text)[1:]
        play.path.write_text(text.replace(first, ""))
        assert "drain" not in second + rest
        play.proxy.reload()
        play.says(0)


async def test_a_program_drains(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines of Python do what they say, and are logged as shown."""
    caplog.set_level(logging.INFO, "trio_proxy")
    section = PAGE.section("Drain")
    (program,) = blocks("python", section)
    settings = trio_proxy.Settings(
        listen=(trio_proxy.TcpAddress("127.0.0.1", 0),),
        upstreams=tuple(
            trio_proxy.UpstreamSettings(host="127.0.0.1", port=port) for port in (9001, 9002)
        ),
    )
    code = compile(program, "the page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = {"trio_proxy": trio_proxy, "settings": settings}
    await eval(code, names)
    assert capsys.readouterr().out == "['127.0.0.1:9001', '127.0.0.1:9002']\n"
    pool = names["proxy"].pools["default"]  # type: ignore[attr-defined]
    assert {member.name: member.weight for member in pool.members} == {
        "127.0.0.1:9001": 1,
        "127.0.0.1:9002": 5,
    }
    logged = [record.getMessage() for record in caplog.records]
    shown = [SHOWN_LINE.fullmatch(each) for each in blocks("text", section)[-1].splitlines()]
    assert [each[2] for each in shown if each] == [each for each in logged if "upstream" in each]
