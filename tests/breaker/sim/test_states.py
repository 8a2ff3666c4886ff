"""The circuit breaker of an upstream: when it opens, how it closes, and what shows of it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio

from support.pools import A, B, Server, ask, metric, send, serve, servers, statuses, told, tries
from support.scenario import only, until_ms
from support.world import World, settings_for, world
from trio_proxy.settings import BreakerSettings

#: Errors are at least half of at least four; open for two seconds; two probes close it.
RULES: Mapping[str, int] = {"min_requests": 4, "open_ms": 2000, "half_open_requests": 2}
BREAKER = BreakerSettings(**RULES)
#: Failures alone take nobody out, so that the breaker has the say.
TWO = servers({}, {}, max_fails=0)
OPEN = f"upstream {A}: breaker open for 2 s, last error: "


def state(w: World, upstream: str = A) -> str:
    """The state that ``proxy_breaker_state`` shows; exactly one is 1."""
    states = ("closed", "open", "half_open")
    values = [metric(w, "proxy_breaker_state", upstream, state=each) for each in states]
    assert sorted(values) == [0, 0, 1]
    return states[values.index(1)]


async def open_it(w: World) -> tuple[Server, Server]:
    """Two upstreams; the breaker of the first has just opened."""
    one, other = serve(w)
    one.status = 500
    assert sorted(await statuses(w, 8)) == [200] * 4 + [500] * 4
    assert state(w) == "open"
    one.status = 200
    return one, other


async def test_it_opens_by_the_share_of_errors() -> None:
    """Two of four are half; the others do without that upstream from then on."""
    async with world(upstreams=TWO, timeouts=only(), breaker=BREAKER) as w:
        one, _ = serve(w)
        for status in (500, 200, 200):
            one.status = status
            await statuses(w, 2)
        assert state(w) == "closed"
        one.status = 503
        assert sorted(await statuses(w, 2)) == [200, 503]
        assert state(w) == "open"
        assert state(w, B) == "closed"
        assert told(w) == [OPEN + "status 503"]
        assert await ask(w, 5) == b"bbbbb"
        assert tries(w) == ["a", "b"] * 4 + ["b"] * 5


async def test_less_than_min_requests() -> None:
    """Three errors of three are too few to tell; the fourth sample decides, be it a success."""
    async with world(upstreams=TWO, timeouts=only(), breaker=BREAKER) as w:
        one, _ = serve(w)
        one.status = 500
        assert sorted(await statuses(w, 6)) == [200] * 3 + [500] * 3
        assert state(w) == "closed"
        one.status = 200
        assert await statuses(w, 2) == [200, 200]
        assert state(w) == "open"
        assert told(w) == [OPEN + "status 500"]


async def test_less_than_error_percent() -> None:
    """Three errors of each seven never open it."""
    async with world(upstreams=TWO, timeouts=only(), breaker=BREAKER) as w:
        one, _ = serve(w)
        for number in range(70):
            one.status = 500 if number % 7 in (2, 4, 6) else 200
            await statuses(w, 2)
        assert state(w) == "closed"
        assert told(w) == []


async def test_errors_that_are_forgotten() -> None:
    """The window is the last ten seconds: three errors, and three more much later."""
    async with world(upstreams=TWO, timeouts=only(), breaker=BREAKER) as w:
        serve(w)[0].status = 500
        for at in (0, 10_001, 20_002, 30_003):
            await until_ms(at)
            assert sorted(await statuses(w, 6)) == [200] * 3 + [500] * 3
            assert state(w) == "closed"
        assert sorted(await statuses(w, 2)) == [200, 500]
        assert state(w) == "open"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("reset", "connection_reset"),
        ("close", "connection_reset"),
        ("hang", "read_timeout"),
        ("garbage", "response_malformed"),
        ("refuse", "connection_refused"),
        ("blackhole", "connect_timeout"),
    ],
)
async def test_what_is_an_error(fault: str, reason: str) -> None:
    """Whatever ends a try before its response head."""
    budgets = only(connect_ms=100, read_ms=100)
    async with world(upstreams=TWO, timeouts=budgets, breaker=BREAKER) as w:
        one, _ = serve(w)
        if fault in ("refuse", "blackhole"):
            getattr(w.net, fault)(A)
        one.fault = fault
        await statuses(w, 8)
        assert state(w) == "open"
        assert told(w) == [OPEN + reason]


@pytest.mark.parametrize(
    ("statuses_", "status", "expected"),
    [
        (("5xx",), 500, "open"),
        (("5xx",), 429, "closed"),
        (("5xx",), 404, "closed"),
        (("429",), 429, "open"),
        (("429",), 500, "closed"),
        ((), 500, "closed"),
    ],
)
async def test_statuses_that_are_errors(
    statuses_: tuple[str, ...], status: int, expected: str
) -> None:
    """Those of error_statuses: 5xx by default, none with an empty list."""
    breaker = BreakerSettings(**RULES, error_statuses=statuses_)
    async with world(upstreams=TWO, timeouts=only(), breaker=breaker) as w:
        serve(w)[0].status = status
        await statuses(w, 8)
        assert state(w) == expected


async def test_a_client_that_leaves_is_no_error() -> None:
    """Nor is it a request: it counts for nothing."""
    async with world(upstreams=TWO, timeouts=only(), breaker=BREAKER) as w:
        for each in serve(w):
            each.fault = "hang"
        for client in await send(w, 20):
            client.abort()
        await trio.sleep(1)
        assert (state(w), state(w, B)) == ("closed", "closed")
        assert told(w) == []


async def test_half_open_admits_a_few_probes_at_once() -> None:
    """Two after two seconds; whoever comes while they are under way goes elsewhere."""
    async with world(upstreams=TWO, timeouts=only(), breaker=BREAKER) as w:
        one, other = await open_it(w)
        one.delay = 1.0
        await until_ms(1999)
        assert await ask(w, 4) == b"bbbb"
        assert state(w) == "open"
        await until_ms(2000)
        clients = await send(w, 10)
        assert (one.active, one.most) == (2, 2)
        assert state(w) == "half_open"
        assert len(other.requests) == 4 + 4 + 8
        assert told(w)[1:] == [f"upstream {A}: breaker half_open"]
        assert len(clients) == 10


async def test_probes_that_succeed_close_it() -> None:
    """The second does, with a clean sheet: what was before is forgotten."""
    async with world(upstreams=TWO, timeouts=only(), breaker=BREAKER) as w:
        one, _ = await open_it(w)
        await until_ms(2000)
        assert sorted(await ask(w, 2)) == sorted(b"ab")
        assert state(w) == "half_open"
        await ask(w, 2)
        assert state(w) == "closed"
        assert told(w)[1:] == [
            f"upstream {A}: breaker half_open",
            f"upstream {A}: breaker closed",
        ]
        one.status = 500
        assert sorted(await statuses(w, 6)) == [200] * 3 + [500] * 3
        assert state(w) == "closed"


async def test_a_probe_that_fails_opens_it_again() -> None:
    """For another two seconds from then on, whatever the other probe says later."""
    async with world(upstreams=TWO, timeouts=only(), breaker=BREAKER) as w:
        one, _ = await open_it(w)
        await until_ms(3000)
        one.delay = 1.0
        slow, _ = await send(w, 2)
        one.delay, one.status = 0.0, 502
        assert sorted(await statuses(w, 2)) == [200, 502]
        assert state(w) == "open"
        one.status = 200
        assert (await slow.read_response()).status == 200
        assert state(w) == "open"
        await until_ms(5001)
        assert await ask(w, 2) == b"bb"
        await until_ms(5002)
        assert sorted(await ask(w, 2)) == sorted(b"ab")
        assert [line for line in told(w) if " open " in line] == [
            OPEN + "status 500",
            OPEN + "status 502",
        ]


async def test_a_probe_whose_client_leaves() -> None:
    """It gives its place to the next."""
    async with world(upstreams=TWO, timeouts=only(), breaker=BREAKER) as w:
        one, _ = await open_it(w)
        one.fault = "hang"
        await until_ms(2000)
        for _ in range(5):
            clients = await send(w, 6)
            assert one.active == 2
            for client in clients:
                client.abort()
            await trio.sleep(0.001)
        assert state(w) == "half_open"
        one.fault = ""
        assert sorted(await ask(w, 4)) == sorted(b"aabb")
        assert state(w) == "closed"


async def test_a_request_from_before_has_no_say() -> None:
    """Neither as a success nor as a failure."""
    async with world(upstreams=TWO, timeouts=only(), breaker=BREAKER) as w:
        one, _ = serve(w)
        one.delay, one.fault = 5.0, "reset"
        clients = await send(w, 2)
        one.delay, one.fault, one.status = 0.0, "", 500
        await statuses(w, 8)
        assert state(w) == "open"
        one.status = 200
        await until_ms(2500)
        await ask(w, 4)
        assert state(w) == "closed"
        one.fault = "reset"
        await clients[0].read_response()
        assert state(w) == "closed"
        assert len(told(w)) == 3


async def test_no_breaker_unless_it_is_configured() -> None:
    """An upstream that always says 500 is asked always, and no metric is there."""
    async with world(upstreams=TWO, timeouts=only()) as w:
        serve(w)[0].status = 500
        assert (await statuses(w, 60)).count(500) == 30
        assert metric(w, "proxy_breaker_state", A, state="closed") is None
        assert told(w) == []


async def test_it_is_kept_by_reloads() -> None:
    """Open stays open, since when it was opened; what was counted stays counted."""
    async with world(upstreams=TWO, timeouts=only(), breaker=BREAKER) as w:
        one, other = serve(w)
        one.status = other.status = 500
        await statuses(w, 7)
        assert (state(w), state(w, B)) == ("open", "closed")
        await until_ms(1000)
        await w.reload(settings_for(TWO[::-1], timeouts=only(), breaker=BREAKER))
        assert (state(w), state(w, B)) == ("open", "closed")
        one.status = 200
        assert await statuses(w, 1) == [500]
        assert (state(w), state(w, B)) == ("open", "open")
        await until_ms(2000)
        assert await ask(w, 2) == b"aa"
        assert state(w) == "closed"


async def test_a_reload_changes_its_rules() -> None:
    """open_ms counts from when it was opened; a breaker can be added and taken away."""
    async with world(upstreams=TWO, timeouts=only(), breaker=BREAKER) as w:
        await open_it(w)
        longer = BreakerSettings(min_requests=4, open_ms=5000, half_open_requests=1)
        await w.reload(settings_for(TWO, timeouts=only(), breaker=longer))
        await until_ms(4999)
        assert await ask(w, 2) == b"bb"
        await until_ms(5000)
        assert sorted(await ask(w, 2)) == sorted(b"ab")
        assert state(w) == "closed"
        await w.reload(settings_for(TWO, timeouts=only()))
        assert metric(w, "proxy_breaker_state", A, state="closed") is None
        await w.reload(settings_for(TWO, timeouts=only(), breaker=BREAKER))
        assert state(w) == "closed"


async def test_a_request_under_way_while_a_breaker_is_added() -> None:
    """It was sent before there was one, so it says nothing to it."""
    strict = BreakerSettings(min_requests=1)
    async with world(upstreams=TWO, timeouts=only()) as w:
        one, _ = serve(w)
        one.delay, one.status = 1.0, 500
        (client,) = await send(w, 1)
        await w.reload(settings_for(TWO, timeouts=only(), breaker=strict))
        assert (await client.read_response()).status == 500
        assert state(w) == "closed"
