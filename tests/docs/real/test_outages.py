"""The outages that the page "When upstreams fail" tells of, played with real processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.dns_server import DnsServer, running_dns
from support.documents import line_pattern
from support.outage_plays import Moody, Play, Server, two_servers
from support.processes import wait_until
from support.upstreams import ScriptedUpstream, UpstreamConnection


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    with two_servers() as both:
        yield both


def test_failed_requests_take_an_upstream_out(
    tmp_path: Path, servers: tuple[Server, Server]
) -> None:
    """A server is killed and started again; no client sees anything of it."""
    one, other = servers
    play = Play(tmp_path, "Failed requests take an upstream out", [one.port, other.port])
    with play.running(("= 2000", "= 200")):
        assert [play.get() for _ in range(2)] == [200, 200]
        one.kill()
        assert [play.get() for _ in range(2)] == [200, 200]
        play.says(0)
        play.shows(1)
        one.start()
        wait_until(lambda: play.get() == 200 and play.proxy.err.matching(" up: "), "it is back")
        play.says(2)


def test_one_hangs(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    """A server is stopped; one client waits until the try is over, the next one does not."""
    one, other = servers
    play = Play(tmp_path, "One hangs", [one.port, other.port])
    with play.running(("= 500", "= 1000")):
        one.signal(signal.SIGSTOP)
        try:
            assert [play.get() for _ in range(2)] == [200, 200]
            play.says(0)
            play.shows(1)
        finally:
            one.signal(signal.SIGCONT)


def test_health_checks(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    """A server is killed and started again, and the checks find out with no request."""
    one, other = servers
    play = Play(tmp_path, "Health checks", [one.port, other.port])
    with play.running(("= 1000", "= 50"), ("= 500", "= 5000"), ('"ok"', '"healthz"')):
        one.kill()
        play.proxy.err.wait_for("down: health check failed")
        one.start()
        play.says(0)
        play.shows(1)


def test_reasons_of_health_checks(tmp_path: Path) -> None:
    """Each kind of failure has its words."""

    def refuse(connection: UpstreamConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    def reset(connection: UpstreamConnection) -> None:
        connection.read_request()
        connection.reset()

    def ignore(connection: UpstreamConnection) -> None:
        connection.wait_for_end()

    def mislead(connection: UpstreamConnection) -> None:
        connection.read_request()
        connection.answer(b"maintenance\n")

    with ExitStack() as stack:
        upstreams = [
            stack.enter_context(ScriptedUpstream(each)) for each in (refuse, reset, ignore, mislead)
        ]
        play = Play(tmp_path, "Health checks", [each.port for each in upstreams])
        with play.running(("= 1000", "= 50"), ("= 500", "= 1500"), ("fall = 2", "fall = 1")):
            play.says(2)


def test_all_are_out(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    """Both are killed and started again, and the first requests after that are answered."""
    one, other = servers
    play = Play(tmp_path, "All are out", [one.port, other.port])
    with play.running():
        one.kill()
        other.kill()
        assert play.get() == 502
        one.start()
        other.start()
        assert [play.get() for _ in range(4)] == [200] * 4
        play.says(0)


@contextmanager
def names_in(tmp_path: Path, server: DnsServer) -> Iterator[Play]:
    """A proxy that asks this server, often."""
    play = Play(tmp_path, "Names that move", [9001])
    play.shown = [each.replace("10.0.0.2@53", f"127.0.0.1@{server.port}") for each in play.shown]
    with play.running(("10.0.0.2", server.where), ("= 30000", "= 50")):
        yield play


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with running_dns() as server:
        server.records = {
            "_http._tcp.app.internal": {"SRV": ["10 1 9002 b.internal."]},
            "b.internal": {"A": ["127.0.0.9"]},
        }
        yield server


def test_names_that_move(tmp_path: Path, dns: DnsServer) -> None:
    """An address is replaced by another; then the server fails, and comes back."""
    dns.records["app.internal"] = {"A": ["127.0.0.2", "127.0.0.3"]}
    with names_in(tmp_path, dns) as play:
        dns.records["app.internal"] = {"A": ["127.0.0.3", "127.0.0.4"]}
        play.says(0)
        dns.fail("app.internal")
        play.proxy.err.wait_for("SERVFAIL")
        dns.heal()
        play.says(1)
        play.shows(2)


def test_names_that_are_unknown_at_the_start(tmp_path: Path, dns: DnsServer) -> None:
    """Clients are told so until they are found."""
    del dns.records["_http._tcp.app.internal"]
    with names_in(tmp_path, dns) as play:
        assert play.get() == 502
        dns.records["app.internal"] = {"A": ["127.0.0.2", "127.0.0.3"]}
        play.says(3)


def test_retries(tmp_path: Path) -> None:
    """Answered after all, or not, and why there was no other try."""
    moody = Moody()
    with ScriptedUpstream(moody) as one, ScriptedUpstream() as other:
        moody.mood = moody.busy
        two = Play(tmp_path, "Retries", [one.port, other.port])
        with two.running():
            assert two.get() == 200
        play = Play(tmp_path, "Retries", [one.port])
        with play.running():
            moody.mood = moody.busy_for_a_second
            assert play.get() == 200
            moody.mood = moody.reset
            assert play.upload("POST", 100) == 502
            assert play.upload("PUT", 1_000_000) == 502
            moody.mood = moody.busy_for_long
            assert play.get() == 503
            moody.mood = moody.busy
            assert {play.get("/status/503") for _ in range(12)} == {503}
            moody.mood = moody.fine
            play.get()
            play.proxy.wait_until_quiet()  # its connection is idle now
            moody.mood = moody.close_once
            assert play.get() == 200
            moody.mood = moody.cut
            with pytest.raises(EOFError):
                play.get()
            first, *rest = play.shown[0].splitlines()
            two.proxy.err.wait_for(line_pattern(two.real(first)))
            for line in rest:
                play.proxy.err.wait_for(line_pattern(play.real(line)))
            for block in (2, 4, 5):
                play.says(block)
            play.shows(1)
            play.shows(3)


def test_breaker(tmp_path: Path) -> None:
    """It opens, tries in vain, tries with success; and when both are open clients are told so."""
    moods = [Moody(), Moody()]
    with ScriptedUpstream(moods[0]) as one, ScriptedUpstream(moods[1]) as other:
        play = Play(tmp_path, "Breaker", [one.port, other.port])
        with play.running(("= 2000", "= 200")):
            moods[0].mood = moods[0].failing
            while not play.proxy.err.matching("breaker open"):
                play.get()
            play.shows(1)
            while len(play.proxy.err.matching("breaker open")) < 2:
                play.get()
            moods[0].mood = moods[0].fine
            while not play.proxy.err.matching("breaker closed"):
                play.get()
            play.says(0)
            for each in moods:
                each.mood = each.failing
            while play.get("/") != 503:
                pass
            play.says(2)
            play.shows(3)
