"""Reloads: checks come, go and change; what is known of an upstream is kept by its address."""

from __future__ import annotations

import pytest
import trio

from support.pools import A, B, C, ask, is_up, metric, serve, servers, statuses, told
from support.scenario import GET, now_ms, only, until_ms
from support.world import World, settings_for, world
from trio_proxy.settings import Health

pytestmark = pytest.mark.usefixtures("no_chance")

CHECKS = Health(path="/up", interval_ms=1000, timeout_ms=300, rise=1, fall=1)
FAILS = f"upstream {A} down: health check failed: status 500"


async def reload(w: World, upstreams: object = 2, **tables: object) -> None:
    await w.reload(settings_for(upstreams, timeouts=only(), **tables))  # type: ignore[arg-type]


def checks_of(w: World, upstream: str = A) -> float:
    name = "proxy_health_checks_total"
    counts = [metric(w, name, upstream, result=result) for result in ("pass", "fail")]
    return sum(count or 0 for count in counts)


def ups(w: World) -> int:
    """How often the log says that the first upstream is up."""
    return sum(line.startswith(f"upstream {A} up: ") for line in told(w))


async def test_checks_that_are_added() -> None:
    """From half an interval after the reload on."""
    async with world(upstreams=2, timeouts=only()) as w:
        serve(w)[0].status = 500
        await until_ms(10_000)
        assert checks_of(w) == 0
        await reload(w, health=CHECKS)
        await until_ms(10_499)
        assert checks_of(w) == 0
        await until_ms(10_501)
        assert checks_of(w) == 1
        assert told(w) == [FAILS]


async def test_checks_that_are_taken_away() -> None:
    """They stop, what they said counts for nothing, and the log tells that it is up."""
    async with world(upstreams=2, timeouts=only(), health=CHECKS) as w:
        one, _ = serve(w)
        one.status = 500
        await until_ms(600)
        assert await statuses(w, 2) == [200, 200]
        await reload(w)
        assert is_up(w, A)
        assert sorted(await statuses(w, 2)) == [200, 500]
        before = checks_of(w)
        await trio.sleep(600)
        assert checks_of(w) == before == 1
        assert ups(w) == 1


async def test_checks_that_stay_the_same() -> None:
    """A reload neither starts them anew nor asks once more, even if it comes each time before."""
    async with world(upstreams=2, timeouts=only(), health=CHECKS) as w:
        serve(w)
        for number in range(50):
            await until_ms(number * 100)
            await reload(w, servers({"weight": number + 1}, {}), health=CHECKS)
        assert checks_of(w) == 5


async def test_checks_that_change() -> None:
    """The next one is of the new kind; the state is kept until it says otherwise."""
    async with world(upstreams=2, timeouts=only(), health=CHECKS) as w:
        one, _ = serve(w)
        one.status = 500
        await until_ms(600)
        assert not is_up(w, A)
        other = Health(path="/other", interval_ms=4000, timeout_ms=300, rise=1, fall=1)
        await reload(w, health=other)
        assert not is_up(w, A)
        one.status = 200
        await until_ms(2599)
        assert not is_up(w, A)
        await until_ms(2601)
        assert is_up(w, A)
        assert [each.start for each in one.requests] == [
            b"GET /up HTTP/1.1",
            b"GET /other HTTP/1.1",
        ]


async def test_rise_and_fall_that_change() -> None:
    """The row so far counts, and the check that is due comes when it was due."""
    async with world(upstreams=2, timeouts=only(), health=CHECKS) as w:
        one, _ = serve(w)
        await until_ms(600)
        patient = Health(path="/up", interval_ms=1000, timeout_ms=300, rise=1, fall=3)
        await reload(w, health=patient)
        one.status = 500
        await until_ms(2600)
        assert is_up(w, A)
        await reload(w, health=CHECKS)
        await until_ms(3501)
        assert not is_up(w, A)
        assert checks_of(w) == 4


async def test_an_upstream_that_is_added() -> None:
    """It is checked, within an interval."""
    async with world(upstreams=[A], timeouts=only(), health=CHECKS) as w:
        await w.add_upstream(B)
        serve(w)
        await until_ms(10_000)
        await reload(w, [A, B], health=CHECKS)
        await until_ms(10_501)
        assert checks_of(w, B) == 1


async def test_an_upstream_that_is_removed() -> None:
    """Its checks stop, one that is under way is cut off."""
    async with world(upstreams=2, timeouts=only(), health=CHECKS) as w:
        one, two = serve(w)
        two.fault = "hang"
        await until_ms(600)
        assert two.active == 1
        await reload(w, [A], health=CHECKS)
        await trio.sleep(0.001)
        assert two.active == 0
        await trio.sleep(60)
        assert len(two.requests) == 1
        assert len(one.requests) == 61
        assert ("default", B) not in w.proxy.stats.upstreams
        assert told(w) == [f"upstream {B} removed, 0 exchanges left"]


async def test_what_checks_have_said_is_kept() -> None:
    """A reload is no amnesty, however the list is ordered."""
    async with world(upstreams=2, timeouts=only(), health=CHECKS) as w:
        serve(w)[0].status = 500
        await until_ms(600)
        await w.add_upstream(C)
        await reload(w, [C, B, A], health=CHECKS)
        assert not is_up(w, A)
        w.upstreams[2].serve()
        assert await statuses(w, 6) == [200] * 6
        assert told(w) == [FAILS, f"upstream {C} added"]


async def test_what_requests_have_said_is_kept() -> None:
    """An upstream that is out stays out, for the time that the new file says."""
    async with world(upstreams=2, timeouts=only()) as w:
        one, _ = serve(w)
        one.fault = "reset"
        assert await statuses(w, 1) == [502]
        one.fault = ""
        await until_ms(1000)
        await reload(w, servers({}, {}, fail_timeout_ms=3000))
        assert not is_up(w, A)
        await until_ms(2999)
        assert await ask(w, 2) == b"bb"
        await until_ms(3000)
        assert sorted(await ask(w, 2)) == sorted(b"ab")


async def test_failures_so_far_are_kept() -> None:
    """Two before the reload and one after it make three."""
    three = servers({"max_fails": 3}, {"max_fails": 3})
    async with world(upstreams=three, timeouts=only()) as w:
        serve(w)[0].fault = "reset"
        assert sorted(await statuses(w, 4)) == [200, 200, 502, 502]
        await reload(w, three)
        assert sorted(await statuses(w, 2)) == [200, 502]
        assert not is_up(w, A)


async def test_max_fails_0_by_reload() -> None:
    """An upstream that is out is in again, and that is told."""
    async with world(upstreams=2, timeouts=only()) as w:
        one, _ = serve(w)
        one.fault = "reset"
        assert await statuses(w, 1) == [502]
        await reload(w, servers({}, {}, max_fails=0))
        assert is_up(w, A)
        assert sorted(await statuses(w, 4)) == [200, 200, 502, 502]
        assert ups(w) == 1


async def test_an_upstream_that_is_left_alone() -> None:
    """A reload that makes it the only one brings it back, and that is told."""
    async with world(upstreams=2, timeouts=only()) as w:
        serve(w)[0].fault = "reset"
        assert await statuses(w, 1) == [502]
        await reload(w, [A])
        assert is_up(w, A)
        assert await statuses(w, 3) == [502] * 3
        assert is_up(w, A)
        assert ups(w) == 1


async def test_one_that_is_no_longer_alone() -> None:
    """It can be taken out from now on."""
    async with world(upstreams=[A], timeouts=only()) as w:
        await w.add_upstream(B)
        one, _ = serve(w)
        one.fault = "reset"
        assert await statuses(w, 2) == [502, 502]
        await reload(w, [A, B])
        assert sorted(await statuses(w, 4)) == [200] * 3 + [502]
        assert not is_up(w, A)


async def test_the_old_self_of_an_upstream_that_returns() -> None:
    """What becomes of a request from before it was removed does not show in the new one."""
    async with world(upstreams=2, timeouts=only()) as w:
        client = await w.client()
        await client.send(GET)
        peer = await w.upstreams[0].accept()
        await reload(w, [B])
        await trio.sleep(0.1)
        await reload(w, [A, B])
        await trio.sleep(0.1)
        peer.abort()
        assert (await client.read_response()).status == 502
        serve(w)
        answers = await ask(w, 4)
        assert is_up(w, A) == (b"a" in answers)


async def test_an_upstream_that_returns_at_once_is_still_out() -> None:
    """Health is kept by address: to take it from the file for a moment does not heal it."""
    async with world(upstreams=2, timeouts=only()) as w:
        client = await w.client()
        await client.send(GET)
        await (await w.upstreams[0].accept()).read_request()
        _, two = serve(w)
        w.proxy.pools["default"].drain(B)
        w.upstreams[0].peers[0].abort()
        assert (await client.read_response()).status == 502
        await reload(w, [B])
        await reload(w, [A, B])
        assert not is_up(w, A)
        assert await ask(w, 3) == b"bbb"
        assert len(two.requests) == 3
        assert now_ms() == 0
