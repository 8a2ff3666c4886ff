"""Active checks: when an upstream is asked, how, and what the answers come to."""

from __future__ import annotations

import errno
from itertools import pairwise

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from support.pools import A, B, Server, ask, is_up, metric, serve, servers, statuses, told
from support.scenario import GET, connections, now_ms, only, until_ms
from support.world import World, run, world
from trio_proxy.settings import Health, Limits

CHECKS = Health(path="/healthz", interval_ms=1000, timeout_ms=300)
DOWN = f"upstream {A} down: health check failed: status 500"
UP = f"upstream {A} up: its health check passes"


def checked(w: World) -> tuple[float | None, float | None]:
    """How many checks of the first upstream passed and failed, by the metrics."""
    name = "proxy_health_checks_total"
    return metric(w, name, A, result="pass"), metric(w, name, A, result="fail")


async def test_what_is_asked() -> None:
    """A plain GET on a connection of its own, which is closed after it."""
    async with world(timeouts=only(), health=CHECKS) as w:
        peer = await w.upstreams[0].accept()
        assert await peer.receive_until(b"\r\n\r\n") == (
            b"GET /healthz HTTP/1.1\r\nHost: 10.1.0.1:9000\r\nUser-Agent: trio-proxy\r\n"
            b"Connection: close\r\n\r\n"
        )
        await peer.respond()
        assert await peer.receive_some() == b""
        assert checked(w) == (1, 0)
        assert w.proxy.stats.requests_total == 0
        assert metric(w, "proxy_upstream_requests_total", A) == 0


@pytest.mark.parametrize(
    ("address", "host", "expected"),
    [
        ("10.1.0.1:80", "", b"10.1.0.1"),
        ("[2001:db8::1]:9000", "", b"[2001:db8::1]:9000"),
        ("unix:/run/app.sock", "", b"localhost"),
        ("10.1.0.1:9000", "app.example", b"app.example"),
    ],
)
async def test_what_host_says(address: str, host: str, expected: bytes) -> None:
    """The upstream's address as a client of it would write it, or what is configured."""
    checks = Health(path="/up?full=1", host=host)
    async with world(upstreams=[address], timeouts=only(), health=checks) as w:
        peer = await w.upstreams[0].accept()
        request = await peer.read_request()
        assert request.start == b"GET /up?full=1 HTTP/1.1"
        assert request[b"host"] == expected
        await peer.respond()


async def test_no_checks_without_a_path() -> None:
    """Nobody is asked in a whole day."""
    async with world(timeouts=only(), health=Health(interval_ms=1000)) as w:
        await trio.sleep(86_400)
        assert w.upstreams[0].listener.waiting == 0


async def test_the_first_check_and_those_that_follow() -> None:
    """Within one interval of the start; then 900 to 1100 ms apart, never quite the same."""
    async with world(upstreams=3, timeouts=only(), health=CHECKS) as w:
        times: dict[str, list[float]] = {upstream.name: [] for upstream in w.upstreams}
        for upstream in w.upstreams:

            async def note(peer, name=upstream.name):
                await peer.read_request()
                times[name].append(now_ms())
                await peer.respond()

            upstream.run(note)
        await until_ms(60_000)
        firsts = [each[0] for each in times.values()]
        assert all(0 <= first <= 1000 for first in firsts)
        assert len(set(firsts)) == 3
        for each in times.values():
            gaps = [b - a for a, b in pairwise(each)]
            assert all(900 <= gap <= 1100 for gap in gaps)
            assert max(gaps) - min(gaps) > 20
            assert 53 <= len(each) <= 67


@pytest.mark.usefixtures("no_chance")
async def test_fall_and_rise() -> None:
    """Three failures in a row take it out, two passes bring it back; each is logged once."""
    async with world(upstreams=2, timeouts=only(), health=CHECKS) as w:
        one, other = serve(w)
        one.status = 500
        await until_ms(2499)
        assert sorted(await statuses(w, 2)) == [200, 500]
        await until_ms(2501)
        assert checked(w) == (0, 3)
        assert not is_up(w, A)
        assert told(w) == [DOWN]
        assert await ask(w, 4) == b"bbbb"
        one.status = 200
        await until_ms(3501)
        assert not is_up(w, A)
        assert await ask(w, 2) == b"bb"
        await until_ms(4501)
        assert is_up(w, A)
        assert checked(w) == (2, 3)
        assert sorted(await ask(w, 4)) == sorted(b"aabb")
        await until_ms(60_000)
        assert told(w) == [DOWN, UP]
        assert len(other.requests) > 60


@pytest.mark.usefixtures("no_chance")
@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM])
async def test_errors_of_the_proxy_itself_do_not_count(code: int) -> None:
    """What could not be checked for want of descriptors or memory stays as it was."""
    async with world(upstreams=2, timeouts=only(), health=CHECKS) as w:
        serve(w)
        w.net.refuse(A, code)
        await until_ms(10_000)
        assert is_up(w, A)
        assert checked(w) == (0, 0)
        (line, *_) = told(w)
        assert line.startswith(f"upstream {A} cannot be checked: ")
        w.net.heal(A)
        await until_ms(11_000)
        assert checked(w) == (1, 0)


@pytest.mark.usefixtures("no_chance")
async def test_a_check_in_which_the_proxy_stood_still_does_not_count() -> None:
    """As after SIGSTOP and SIGCONT: who knows whether the answer had come in time."""
    async with world(timeouts=only(), health=CHECKS) as w:
        await (await w.upstreams[0].accept()).read_request()
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(2)
        await (await w.upstreams[0].accept()).read_request()
        assert checked(w) == (0, 0)
        assert told(w) == [f"upstream {A} cannot be checked: the proxy stood still"]


@pytest.mark.usefixtures("no_chance")
async def test_it_starts_up() -> None:
    """Clients are served before any check was made."""
    async with world(timeouts=only(), health=CHECKS) as w:
        serve(w)
        assert await ask(w, 1) == b"a"
        assert now_ms() == 0
        assert is_up(w, A)
        assert checked(w) == (0, 0)


@pytest.mark.usefixtures("no_chance")
async def test_an_interrupted_row() -> None:
    """Two failures, a pass, two failures: nothing has happened and nothing is logged."""
    async with world(upstreams=2, timeouts=only(), health=CHECKS) as w:
        one, _ = serve(w)
        for number, status in enumerate((500, 500, 200, 500, 500, 200)):
            one.status = status
            await until_ms(number * 1000 + 501)
        assert checked(w) == (2, 4)
        assert is_up(w, A)
        assert told(w) == []


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.booleans(), min_size=1, max_size=25),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_the_state_is_that_of_the_last_row(passes: list[bool], rise: int, fall: int) -> None:
    """Up unless `fall` failures in a row came after the last `rise` passes in a row."""

    async def main() -> None:
        checks = Health(path="/up", interval_ms=1000, rise=rise, fall=fall)
        async with world(upstreams=2, timeouts=only(), health=checks) as w:
            one, _ = serve(w)
            expected, lines = True, 0
            for number, good in enumerate(passes):
                one.status = 200 if good else 500
                await until_ms(1000 * number + 501)
                needed = rise if good else fall
                row = passes[max(0, number + 1 - needed) : number + 1]
                if row == [good] * needed and expected != good:
                    expected, lines = good, lines + 1
                assert is_up(w, A) == expected
                assert len(told(w)) == lines

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("random.random", lambda: 0.5)
        run(main)


@pytest.mark.usefixtures("no_chance")
async def test_its_connection_takes_no_place_of_a_request() -> None:
    """An upstream whose max_conns are all in use is checked all the same, and stays up."""
    tables = servers({"max_conns": 1})
    async with world(upstreams=tables, timeouts=only(), health=CHECKS) as w:
        (server,) = serve(w)
        client = await w.client()
        server.fault = "hang"
        await client.send(GET)
        await until_ms(100)
        server.fault = ""
        await until_ms(600)
        assert connections(w) == (1, 0)
        assert len(w.upstreams[0].peers) == 2
        assert checked(w) == (1, 0)


@pytest.mark.usefixtures("no_chance")
async def test_who_waits_is_served_when_a_check_passes() -> None:
    """An upstream that is back takes what is queued, at that moment."""
    tables = servers({"max_conns": 1}, {"max_conns": 1})
    limits = Limits(queue_ms=0)
    checks = Health(path="/up", interval_ms=1000, rise=1, fall=1)
    async with world(upstreams=tables, timeouts=only(), health=checks, limits=limits) as w:
        one, other = serve(w)
        one.status = 500
        await until_ms(600)
        other.fault = "hang"
        first, second = await w.client(), await w.client()
        await first.send(GET)
        await second.send(GET)
        await until_ms(1000)
        assert w.proxy.pools["default"].queue_length == 1
        one.status = 200
        assert (await second.read_response()).body == b"a"
        assert now_ms() == 1500


@pytest.mark.usefixtures("no_chance")
async def test_checks_end_with_the_proxy() -> None:
    """One that is under way is cut; `world` looks for what is left."""
    async with world(upstreams=2, timeouts=only(), health=CHECKS) as w:
        for each in serve(w):
            each.fault = "hang"
        await until_ms(600)
        assert len(w.upstreams[0].peers) == 1


@pytest.mark.usefixtures("no_chance")
async def test_checks_go_on_during_a_drain_of_the_proxy() -> None:
    """Its last requests may still need to know."""
    checks = Health(path="/up", interval_ms=100)
    async with world(upstreams=2, timeouts=only(drain_ms=1000), health=checks) as w:
        one, _ = serve(w)
        client = await w.client()
        await client.send(b"GET / HT")
        await trio.sleep(0.01)
        before = len(one.requests)
        w.helpers.start_soon(w.proxy.drain)
        await until_ms(700)
        assert len(one.requests) - before == 7


def is_a_check(server: Server) -> list[bool]:
    return [request.start.startswith(b"GET /healthz ") for request in server.requests]


@pytest.mark.usefixtures("no_chance")
async def test_checks_do_not_count_as_requests() -> None:
    """They neither appear in the access log nor move the turns of the balancer."""
    async with world(upstreams=2, timeouts=only(), health=CHECKS) as w:
        one, _ = serve(w)
        assert await ask(w, 1) == b"a"
        await until_ms(4600)
        assert await ask(w, 2) == b"ba"
        assert len(w.exchanges) == 3
        assert is_a_check(one) == [False] + [True] * 5 + [False]
        assert ("default", B) in w.proxy.stats.upstreams
