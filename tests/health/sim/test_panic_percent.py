"""panic_percent: with too few upstreams left, their health is ignored before all are out."""

from __future__ import annotations

import pytest

from support.pools import NAMES, A, ask, is_up, serve, servers, statuses, told
from support.scenario import only, until_ms
from support.world import World, settings_for, world
from trio_proxy.settings import BreakerSettings, Health

pytestmark = pytest.mark.usefixtures("no_chance")

HALF = Health(panic_percent=50)
CHECKED = Health(path="/up", interval_ms=1000, rise=1, fall=1, panic_percent=50)
PANIC = "pool default: too few upstreams are available, ignoring their health"
FOUR = servers({}, {}, {}, {}, fail_timeout_ms=60_000)


def panicked(w: World) -> bool:
    return PANIC in told(w)


async def test_half_of_them_are_enough() -> None:
    """Exactly half: no panic, and the other half has a rest."""
    async with world(upstreams=FOUR, timeouts=only(), health=HALF) as w:
        every = serve(w)
        every[0].fault = every[1].fault = "reset"
        assert await statuses(w, 2) == [502, 502]
        every[0].fault = every[1].fault = ""
        assert sorted(await ask(w, 6)) == sorted(b"cccddd")
        assert not panicked(w)


async def test_less_than_half() -> None:
    """One of four would be overrun: all four are used, until by that half of them are back."""
    async with world(upstreams=FOUR, timeouts=only(), health=HALF) as w:
        every = serve(w)
        for each in every[:3]:
            each.fault = "reset"
        assert await statuses(w, 3) == [502] * 3
        assert (await statuses(w, 12)).count(200) <= 4
        assert panicked(w)
        assert all(len(each.requests) >= 3 for each in every)
        for each in every[:3]:
            each.fault = ""
        assert await statuses(w, 12) == [200] * 12
        assert sum(is_up(w, name) for name in NAMES[:4]) == 2


async def test_less_than_half_pass_their_checks() -> None:
    """As with failures of requests."""
    async with world(upstreams=FOUR, timeouts=only(), health=CHECKED) as w:
        every = serve(w)
        for each in every[:3]:
            each.status = 500
        await until_ms(501)
        assert not is_up(w, A)
        assert sorted(await statuses(w, 8)) == [200] * 2 + [500] * 6
        assert panicked(w)
        every[0].status = 200
        await until_ms(1501)
        assert await statuses(w, 4) == [200] * 4


async def test_the_default_is_to_use_the_last_one() -> None:
    """0 percent: only an outage of all is a reason to panic."""
    async with world(upstreams=FOUR, timeouts=only()) as w:
        every = serve(w)
        for each in every[:3]:
            each.fault = "reset"
        assert await statuses(w, 3) == [502] * 3
        for each in every[:3]:
            each.fault = ""
        assert await ask(w, 4) == b"dddd"
        assert told(w)[3:] == []


async def test_100_percent_is_to_ignore_health() -> None:
    """As soon as one is out it is used all the same."""
    always = Health(panic_percent=100)
    async with world(upstreams=FOUR, timeouts=only(), health=always) as w:
        every = serve(w)
        every[0].fault = "reset"
        assert sorted(await statuses(w, 8)) == [200] * 6 + [502] * 2


async def test_an_open_breaker_is_heeded() -> None:
    """Panic ignores health; a breaker is there to spare an upstream that is overrun."""
    breaker = BreakerSettings(min_requests=1)
    tables = servers({}, {}, {}, {}, max_fails=0)
    async with world(upstreams=tables, timeouts=only(), health=HALF, breaker=breaker) as w:
        every = serve(w)
        for each in every[:3]:
            each.status = 500
        assert sorted(await statuses(w, 8)) == [200] * 5 + [500] * 3
        assert [len(each.requests) for each in every] == [1, 1, 1, 5]


async def test_drained_upstreams_are_no_reason_to_panic() -> None:
    """Half of the pool is drained by order: of the other half one is out, which is half of it."""
    async with world(upstreams=FOUR, timeouts=only(), health=HALF) as w:
        every = serve(w)
        w.proxy.pools["default"].drain(NAMES[2])
        w.proxy.pools["default"].drain(NAMES[3])
        every[0].fault = "reset"
        assert await statuses(w, 1) == [502]
        assert await ask(w, 4) == b"bbbb"
        assert not panicked(w)


async def test_backups_do_not_calm() -> None:
    """Too few primaries: the others of them come before any backup, which are for none at all."""
    tables = servers({}, {}, {}, {"backup": True}, fail_timeout_ms=60_000)
    async with world(upstreams=tables, timeouts=only(), health=HALF) as w:
        every = serve(w)
        every[0].fault = every[1].fault = "reset"
        assert await statuses(w, 2) == [502, 502]
        await statuses(w, 6)
        assert all(len(each.requests) >= 2 for each in every[:3])
        assert len(every[3].requests) == 0


async def test_panic_percent_by_reload() -> None:
    """It holds from the next request on."""
    async with world(upstreams=FOUR, timeouts=only()) as w:
        every = serve(w)
        for each in every[:3]:
            each.fault = "reset"
        assert await statuses(w, 3) == [502] * 3
        assert await ask(w, 2) == b"dd"
        await w.reload(settings_for(FOUR, timeouts=only(), health=HALF))
        assert 502 in await statuses(w, 2)
