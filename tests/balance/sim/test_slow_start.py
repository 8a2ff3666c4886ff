"""A slow start: the load of an upstream that is new, or back, grows with time."""

from __future__ import annotations

import pytest

from support.pools import A, B, ask, serve, servers, statuses, told
from support.scenario import only, until_ms
from support.world import World, settings_for, world
from trio_proxy.settings import Balance, BreakerSettings, Health

SLOW = {"slow_start_ms": 10_000}
#: One upstream, then two of which the second starts slowly.
BEFORE, AFTER = servers({}), servers({}, SLOW)


async def share(w: World, count: int = 100) -> int:
    """How many of so many requests the second upstream gets."""
    return (await ask(w, count)).count(b"b")


async def newcomer(w: World) -> None:
    """Have a second upstream join that starts slowly."""
    await w.add_upstream(B)
    serve(w)
    await w.reload(settings_for(AFTER, timeouts=only()))


async def test_a_newcomer_by_reload() -> None:
    """Its weight against 1 grows from 0.1 in ten seconds: shares of w / (1 + w), then half."""
    async with world(upstreams=BEFORE, timeouts=only()) as w:
        await newcomer(w)
        assert await share(w) == pytest.approx(100 * 0.1 / 1.1, abs=1)
        await until_ms(2500)
        assert await share(w) == pytest.approx(100 * 0.25 / 1.25, abs=1)
        await until_ms(5000)
        assert await share(w) == pytest.approx(100 * 0.5 / 1.5, abs=1)
        await until_ms(9000)
        assert await share(w) == pytest.approx(100 * 0.9 / 1.9, abs=1)
        await until_ms(10_000)
        assert await share(w) == pytest.approx(50, abs=1)


async def test_not_at_the_first_start() -> None:
    """All begin with their whole weight: there is nobody who could spare them."""
    async with world(upstreams=servers({}, SLOW), timeouts=only()) as w:
        serve(w)
        assert await ask(w, 6) == b"ababab"


async def test_not_for_those_that_stay() -> None:
    """A reload that changes something else starts nobody slowly."""
    async with world(upstreams=servers({}, SLOW), timeouts=only()) as w:
        serve(w)
        await w.reload(settings_for(servers({}, {**SLOW, "max_conns": 7}), timeouts=only()))
        assert await ask(w, 6) == b"ababab"


async def test_after_an_ejection() -> None:
    """From the trial that succeeds on, not from the end of fail_timeout on."""
    tables = servers({}, {**SLOW, "fail_timeout_ms": 1000})
    async with world(upstreams=tables, timeouts=only()) as w:
        every = serve(w)
        every[1].fault = "reset"
        assert await statuses(w, 2) == [200, 502]
        every[1].fault = ""
        await until_ms(6000)
        assert await ask(w, 2) in (b"ab", b"ba")
        assert told(w)[-1] == f"upstream {B} up: a request succeeded"
        assert await share(w) == pytest.approx(100 * 0.1 / 1.1, abs=1)
        await until_ms(11_000)
        assert await share(w) == pytest.approx(100 * 0.5 / 1.5, abs=1)
        await until_ms(16_000)
        assert await share(w) == pytest.approx(50, abs=1)


async def test_after_its_health_check_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """From that check on: the one at 2500 ms, as intervals of a second begin at 500 ms."""
    monkeypatch.setattr("random.random", lambda: 0.5)
    checks = Health(path="/up", interval_ms=1000, rise=1, fall=1)
    async with world(upstreams=servers({}, SLOW), timeouts=only(), health=checks) as w:
        every = serve(w)
        every[1].status = 500
        await until_ms(600)
        assert await share(w) == 0
        await until_ms(2000)
        every[1].status = 200
        await until_ms(2501)
        assert told(w)[-1] == f"upstream {B} up: its health check passes"
        assert await share(w) == pytest.approx(100 * 0.1 / 1.1, abs=1)
        await until_ms(7500)
        assert await share(w) == pytest.approx(100 * 0.5 / 1.5, abs=1)


async def test_after_its_breaker_has_closed() -> None:
    """An upstream that failed so badly is not given everything at once."""
    breaker = BreakerSettings(min_requests=2, open_ms=1000, half_open_requests=1)
    tables = servers({}, {**SLOW, "max_fails": 0})
    async with world(upstreams=tables, timeouts=only(), breaker=breaker) as w:
        every = serve(w)
        every[1].fault = "reset"
        assert await statuses(w, 4) == [200, 502, 200, 502]
        every[1].fault = ""
        await until_ms(1000)
        await ask(w, 2)
        assert told(w)[-1] == f"upstream {B}: breaker closed"
        assert await share(w) == pytest.approx(100 * 0.1 / 1.1, abs=1)


async def test_the_ramp_is_of_its_own_weight() -> None:
    """An upstream of weight 5 is worth 2.5 at half time."""
    async with world(upstreams=BEFORE, timeouts=only()) as w:
        await w.add_upstream(B)
        serve(w)
        heavy = servers({}, {**SLOW, "weight": 5})
        await w.reload(settings_for(heavy, timeouts=only()))
        await until_ms(5000)
        assert await share(w, 70) == 50


async def test_a_reload_in_the_middle_of_it() -> None:
    """It goes on where it was."""
    async with world(upstreams=BEFORE, timeouts=only()) as w:
        await newcomer(w)
        await until_ms(5000)
        await w.reload(settings_for(AFTER, timeouts=only()))
        assert await share(w) == pytest.approx(100 * 0.5 / 1.5, abs=1)


async def test_a_reload_that_takes_the_slow_start_away() -> None:
    """The whole weight at once."""
    async with world(upstreams=BEFORE, timeouts=only()) as w:
        await newcomer(w)
        await until_ms(1000)
        await w.reload(settings_for(servers({}, {}), timeouts=only()))
        assert await statuses(w, 2) == [200, 200]
        assert await share(w) == 50


async def test_a_newcomer_to_an_idle_pool_alone() -> None:
    """A ramp of the only upstream that is available takes nothing from it."""
    async with world(upstreams=BEFORE, timeouts=only()) as w:
        await newcomer(w)
        w.proxy.pools["default"].drain(A)
        assert await ask(w, 5) == b"bbbbb"


async def test_least_conn_heeds_the_ramp() -> None:
    """With 22 requests that hang, one in its first tenth has two."""
    balance = Balance(policy="least_conn")
    async with world(upstreams=BEFORE, timeouts=only(), balance=balance) as w:
        await w.add_upstream(B)
        every = serve(w)
        await w.reload(settings_for(AFTER, timeouts=only(), balance=balance))
        for each in every:
            each.fault = "hang"
        for _ in range(22):
            client = await w.client()
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await until_ms(1)
        assert [each.active for each in every] == [20, 2]
