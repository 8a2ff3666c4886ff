"""One of three upstreams is killed and restarted every 3 s."""

from __future__ import annotations

from support.outages import App, at, failures_at, open_load, run_apps, slowest, statuses
from support.pools import A, metric, servers, told
from support.world import World, world
from trio_proxy.settings import BreakerSettings, Health, Retry, Timeouts


def flapping(w: World, seconds: int) -> list[App]:
    """The first is dead from 3 s to 6 s, from 9 s to 12 s, and so on; a little after the moment."""
    apps = run_apps(w)
    for number in range(3, seconds, 3):
        at(w, number * 1000 + 5, apps[0].kill if number % 6 else apps[0].start)
    return apps


async def test_flapping_is_unseen() -> None:
    """A minute of it: every request is answered at once, and few tries are lost."""
    async with world(upstreams=servers({}, {}, {}), retry=Retry()) as w:
        apps = flapping(w, 60)
        answers = await open_load(w, per_second=15, seconds=60)
    assert statuses(answers) == {200: 900}
    assert slowest(answers) <= 20
    # Dead at 3 s, on trial at 13 s when it is up; dead at 15 s, on trial at 25 s; and so on.
    assert failures_at(w, 0) == {"stale": 4, "connection_refused": 5}
    assert [line.split(" ")[2].rstrip(":") for line in told(w)] == [*["down", "up"] * 4, "down"]
    assert apps[0].arrived(3005, 13_000) == 0
    assert apps[0].arrived(15_005, 25_000) == 0


async def test_a_short_fail_timeout_uses_it_while_it_is_up() -> None:
    """It has its share within 500 ms of each restart; half a second of death costs one try."""
    pool = servers({}, {}, {}, fail_timeout_ms=500)
    async with world(upstreams=pool, retry=Retry()) as w:
        apps = flapping(w, 30)
        answers = await open_load(w, per_second=30, seconds=30)
    assert statuses(answers) == {200: 900}
    assert slowest(answers) <= 20
    for second in range(6, 30, 6):
        assert apps[0].arrived(second * 1000 + 600, second * 1000 + 3000) in (23, 24, 25)
        assert apps[0].arrived(second * 1000 - 2990, second * 1000) == 0
    # Five deaths of 3 s, in each of which it is asked every 500 ms or a little later.
    assert 5 * 5 <= failures_at(w, 0)["connection_refused"] <= 5 * 6


async def test_checks_follow_it() -> None:
    """It is out from the second failed check to the second passed one, in each round."""
    pool = servers({}, {}, {}, max_fails=0)
    health = Health(path="/healthz", interval_ms=500, timeout_ms=200, rise=2, fall=2)
    async with world(upstreams=pool, retry=Retry(), health=health) as w:
        apps = flapping(w, 30)
        answers = await open_load(w, per_second=30, seconds=30)
    assert statuses(answers) == {200: 900}
    lines = told(w)
    down = f"upstream {A} down: health check failed: cannot connect: "
    assert len(lines) == 9
    assert all(line.startswith(down) for line in lines[::2])
    assert set(lines[1::2]) == {f"upstream {A} up: its health check passes"}
    for second in range(6, 30, 6):
        assert apps[0].arrived(second * 1000, second * 1000 + 450) == 0
        assert apps[0].arrived(second * 1000 + 1200, second * 1000 + 3000) >= 17
    # Until the second check fails, every third request is tried there in vain.
    assert 5 * 4 <= failures_at(w, 0)["connection_refused"] <= 5 * 12


async def test_a_breaker_alone_keeps_the_damage_small() -> None:
    """It needs some errors to open, and then only probes are lost; every request is answered."""
    pool = servers({}, {}, {}, max_fails=0)
    breaker = BreakerSettings(window_ms=1000, min_requests=5, error_percent=50, open_ms=1000)
    async with world(upstreams=pool, retry=Retry(budget_percent=50), breaker=breaker) as w:
        apps = flapping(w, 30)
        answers = await open_load(w, per_second=30, seconds=30)
        assert metric(w, "proxy_breaker_state", A, state="closed") == 0
    assert statuses(answers) == {200: 900}
    for second in range(6, 30, 6):
        assert apps[0].arrived(second * 1000 + 1200, second * 1000 + 3000) in (17, 18, 19)
    # At most ten until it opens, and one probe a second while it is dead.
    assert failures_at(w, 0)["connection_refused"] <= 5 * (10 + 3)


async def test_an_upstream_that_hangs_every_3_s() -> None:
    """A hang costs those who are sent there read_ms before it is known, and never the answer."""
    timeouts = Timeouts(read_ms=250)
    pool = servers({}, {}, {}, fail_timeout_ms=1000)
    async with world(upstreams=pool, retry=Retry(), timeouts=timeouts) as w:
        apps = run_apps(w)
        for number in range(3, 30, 3):
            at(w, number * 1000 + 5, apps[0].freeze if number % 6 else apps[0].thaw)
        answers = await open_load(w, per_second=30, seconds=30)
    assert statuses(answers) == {200: 900}
    assert slowest(answers) == 260
    late = [answer for answer in answers if answer.took_ms > 10]
    # In each of the five hangs three before it is known, and two on trial.
    assert len(late) in range(5 * 4, 5 * 6)
    assert failures_at(w, 0)["read_timeout"] in range(5 * 4, 5 * 6)
