"""A rolling restart under load: three upstreams, one after the other, and no request fails."""

from __future__ import annotations

import pytest
import trio

from support.outages import (
    POST,
    App,
    at,
    failures_at,
    open_load,
    run_apps,
    slowest,
    statuses,
    tries,
)
from support.pools import NAMES, servers
from support.scenario import GET, until_ms
from support.world import World, settings_for, world
from trio_proxy.settings import Retry
from trio_proxy.testing import SimNet

BOTH = [GET, POST]
#: The proxy comes back to an upstream half a second after a failure.
THREE = servers({}, {}, {}, fail_timeout_ms=500)


async def restart_drained_by_reload(w: World, apps: list[App]) -> None:
    """Mark it ``drain = true``, wait until it has nothing to do, restart it, and unmark it."""
    for number, app in enumerate(apps):
        await trio.sleep(0.5)
        marks = [{"drain": True} if other == number else {} for other in range(3)]
        await w.reload(settings_for(servers(*marks), retry=Retry(attempts=1)))
        before = len(app.arrivals)
        await trio.sleep(0.2)
        assert (app.active, len(app.arrivals)) == (0, before)
        app.kill()
        await trio.sleep(0.5)
        app.start()
        await w.reload(settings_for(servers({}, {}, {}), retry=Retry(attempts=1)))


async def test_drained_by_reload() -> None:
    """Without any retry: nothing is sent where it could be lost, not even a POST."""
    async with world(upstreams=servers({}, {}, {}), retry=Retry(attempts=1)) as w:
        apps = run_apps(w, delay=0.1)
        w.helpers.start_soon(restart_drained_by_reload, w, apps)
        answers = await open_load(w, per_second=60, seconds=5, requests=BOTH)
    assert statuses(answers) == {200: 300}
    assert slowest(answers) == 100
    assert tries(w) == 300
    assert [failures_at(w, number) for number in range(3)] == [{}, {}, {}]


async def restart_drained_by_hand(w: World, apps: list[App]) -> None:
    """The same by the methods that the admin API will call."""
    for name, app in zip(NAMES, apps, strict=False):
        await trio.sleep(0.5)
        w.proxy.pools["default"].drain(name)
        await trio.sleep(0.2)
        app.kill()
        await trio.sleep(0.5)
        app.start()
        w.proxy.pools["default"].undrain(name)


async def test_drained_by_hand() -> None:
    """As by reload; each upstream gets its share again as soon as it is in use again."""
    async with world(upstreams=servers({}, {}, {}), retry=Retry(attempts=1)) as w:
        apps = run_apps(w, delay=0.1)
        w.helpers.start_soon(restart_drained_by_hand, w, apps)
        answers = await open_load(w, per_second=60, seconds=5, requests=BOTH)
    assert statuses(answers) == {200: 300}
    assert tries(w) == 300
    assert apps[0].arrived(500, 1200) == 0
    assert apps[0].arrived(1200, 1700) == pytest.approx(10, abs=1)


def restart_gracefully(w: World, apps: list[App], linger: float = 0.0) -> None:
    """SIGTERM to each after the other; each is gone for a second and back for half a one."""
    for number, app in enumerate(apps):
        at(w, 505 + 1500 * number, lambda app=app: app.stop(linger))
        at(w, 1505 + 1500 * number, app.start)


async def test_stopped_and_started_without_a_word() -> None:
    """Refused connections harm no method; what is under way is finished; nothing is lost."""
    async with world(upstreams=THREE, retry=Retry()) as w:
        apps = run_apps(w, delay=0.1)
        restart_gracefully(w, apps)
        answers = await open_load(w, per_second=60, seconds=6, requests=BOTH)
    assert statuses(answers) == {200: 360}
    assert slowest(answers) == 100
    # Each is asked in vain when it has just gone, and once or twice on trial.
    for number in range(3):
        assert failures_at(w, number).keys() == {"connection_refused"}
        assert failures_at(w, number)["connection_refused"] in (2, 3)
        assert apps[number].arrived(5000, 6000) >= 15


async def test_stopped_with_idle_connections_that_close_slowly() -> None:
    """Until the last has been closed they are used, and a refused dial does not stop that harm."""
    async with world(upstreams=THREE, retry=Retry()) as w:
        apps = run_apps(w, delay=0.1)
        restart_gracefully(w, apps, linger=0.8)
        answers = await open_load(w, per_second=60, seconds=6, requests=BOTH)
    assert statuses(answers) == {200: 360}
    assert slowest(answers) == 100
    for number in range(3):
        assert failures_at(w, number).keys() <= {"connection_refused"}
        assert failures_at(w, number)["connection_refused"] in (1, 2, 3)


@pytest.mark.parametrize("linger", [0.0, 0.8])
@pytest.mark.parametrize("seed", range(2))
async def test_with_requests_on_their_way_to_what_closes(seed: int, linger: float) -> None:
    """A connection that closes as the request leaves costs a GET a second try, and no answer."""
    net = SimNet(seed=seed, latency=0.004, jitter=0.002)
    async with world(upstreams=THREE, retry=Retry(), network=net) as w:
        apps = run_apps(w, delay=0.02)
        restart_gracefully(w, apps, linger)
        answers = await open_load(w, per_second=60, seconds=5.5)
    assert statuses(answers) == {200: 330}
    assert slowest(answers) < 80
    for number in range(3):
        assert failures_at(w, number).keys() <= {"stale", "connection_refused", "connection_reset"}


@pytest.mark.parametrize("seed", range(2))
async def test_killed_one_after_the_other(seed: int) -> None:
    """SIGKILL instead: what was under way is sent again, within the budget."""
    net = SimNet(seed=seed, latency=0.002)
    async with world(upstreams=THREE, retry=Retry(), network=net) as w:
        apps = run_apps(w, delay=0.05)
        for number, app in enumerate(apps):
            at(w, 505 + 1500 * number, app.kill)
            at(w, 1505 + 1500 * number, app.start)
        answers = await open_load(w, per_second=60, seconds=5.5)
    assert statuses(answers) == {200: 330}
    assert slowest(answers) < 150
    assert tries(w) <= 330 * 1.2 + 10


async def test_two_are_enough() -> None:
    """While one restarts the other takes everything, and neither is sent what it cannot take."""
    pool = servers({}, {}, fail_timeout_ms=500)
    async with world(upstreams=pool, retry=Retry()) as w:
        apps = run_apps(w)
        restart_gracefully(w, apps)
        answers = await open_load(w, per_second=60, seconds=4, requests=BOTH)
        await until_ms(4100)
    assert statuses(answers) == {200: 240}
    assert apps[0].arrived(505, 1505) == apps[1].arrived(2005, 3005) == 0


async def test_one_alone_that_restarts_is_gone_for_as_long_as_it_takes() -> None:
    """There is nobody else: 502 for the time without it, and not a moment longer."""
    async with world(upstreams=1, retry=Retry()) as w:
        apps = run_apps(w)
        w.proxy.pools["default"].random = lambda: 0.8
        restart_gracefully(w, apps)
        answers = await open_load(w, per_second=20, seconds=3)
    failed = [answer.at_ms for answer in answers if answer.status != 200]
    assert statuses(answers) == {200: 40, 502: 20}
    assert (min(failed), max(failed)) == (550, 1500)
