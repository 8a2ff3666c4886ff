"""The thundering herd at the recovery of an upstream, and what holds it back."""

from __future__ import annotations

import pytest

from support.outages import App, at, closed_load, open_load, run_apps, slowest, statuses
from support.pools import A, metric, servers, told
from support.world import World, world
from trio_proxy.settings import Balance, BreakerSettings, Limits, Retry, Timeouts

LEAST_CONN = Balance(policy="least_conn")
BREAKER = BreakerSettings(
    window_ms=1000, min_requests=5, error_percent=50, open_ms=1000, half_open_requests=3
)


def dead_until(w: World, milliseconds: float, delay: float) -> list[App]:
    """The first refuses connections until then; the others are well."""
    apps = run_apps(w, delay)
    apps[0].kill()
    at(w, milliseconds, apps[0].start)
    return apps


def by_second(app: App, first: int, last: int) -> list[int]:
    """How many requests came in each second."""
    return [app.arrived(1000 * number, 1000 * (number + 1)) for number in range(first, last)]


async def test_one_request_at_a_time_is_sent_to_what_was_dead() -> None:
    """Its trial takes 300 ms, in which none of the other 29 clients gets there."""
    pool = servers({}, {}, {}, fail_timeout_ms=1000)
    async with world(upstreams=pool, retry=Retry()) as w:
        apps = dead_until(w, 500, delay=0.1)
        apps[0].delay = 0.3
        answers = await closed_load(w, clients=30, seconds=3)
        assert w.proxy.stats.retries == {"connection_refused": 10}
    assert set(statuses(answers)) == {200}
    assert apps[0].crowd(0, 1300) == 1
    assert apps[0].arrived(0, 1300) == 1
    assert apps[0].crowd(1300, 3100) >= 10


async def test_slow_start_ramps_under_round_robin() -> None:
    """A tenth of its weight in the first second, half after five, all after ten."""
    pool = servers({}, {}, {}, fail_timeout_ms=1000, slow_start_ms=10_000)
    async with world(upstreams=pool, retry=Retry()) as w:
        apps = dead_until(w, 500, delay=0.01)
        answers = await open_load(w, per_second=60, seconds=13)
    assert statuses(answers) == {200: 780}
    assert apps[0].arrived(0, 1000) == 0
    # The share is s / (2 + s) while its weight is the share s of the others': of 60 a second.
    ramp = [60 * s / (2 + s) for s in (0.1, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)]
    assert by_second(apps[0], 1, 11) == pytest.approx(ramp, abs=1.5)
    assert by_second(apps[0], 11, 13) == pytest.approx([20, 20], abs=1)


async def test_slow_start_holds_least_conn_back() -> None:
    """An idle newcomer would get every request; instead it works on few at a time at first."""
    pool = servers({}, {}, {}, fail_timeout_ms=1000, slow_start_ms=4000)
    async with world(upstreams=pool, retry=Retry(), balance=LEAST_CONN) as w:
        apps = dead_until(w, 500, delay=0.1)
        answers = await closed_load(w, clients=12, seconds=7)
    assert set(statuses(answers)) == {200}
    # Twelve in flight are divided by weight: to its quarter one or two, to its half two or three.
    assert apps[0].crowd(1000, 2000) <= 2
    assert apps[0].crowd(2000, 3000) <= 3
    assert apps[0].crowd(5500, 7000) == 4
    assert by_second(apps[0], 1, 2)[0] <= 15
    assert by_second(apps[0], 6, 7)[0] == pytest.approx(40, abs=4)


async def test_without_slow_start_least_conn_sends_the_herd() -> None:
    """The contrast: as soon as the trial is over it has as many requests as the others."""
    pool = servers({}, {}, {}, fail_timeout_ms=1000)
    async with world(upstreams=pool, retry=Retry(), balance=LEAST_CONN) as w:
        apps = dead_until(w, 500, delay=0.1)
        answers = await closed_load(w, clients=12, seconds=2)
    assert set(statuses(answers)) == {200}
    assert apps[0].crowd(1000, 2000) == 4


async def test_the_breaker_lets_only_probes_through() -> None:
    """Three at a time, one try each, until three have succeeded; the herd waits until then."""
    pool = servers({}, {}, max_fails=0)
    retry, timeouts = Retry(budget_percent=1000), Timeouts(read_ms=450)
    async with world(upstreams=pool, retry=retry, breaker=BREAKER, timeouts=timeouts) as w:
        apps = run_apps(w, delay=0.02)
        apps[0].freeze()
        apps[0].delay = 0.3
        at(w, 1000, apps[0].thaw)
        answers = await closed_load(w, clients=20, seconds=2.5)
    assert set(statuses(answers)) == {200}
    assert told(w) == [
        f"upstream {A}: breaker open for 1 s, last error: read_timeout",
        f"upstream {A}: breaker half_open",
        f"upstream {A}: breaker closed",
    ]
    # It opened at 450 ms, when the first were given up. The probes end at 1750 ms.
    assert apps[0].arrived(450, 1450) == 0
    assert apps[0].arrived(1450, 1750) == 3
    assert apps[0].crowd(1450, 1750) == 3
    assert apps[0].crowd(1750, 2500) >= 10


async def test_a_probe_that_fails_sends_no_second_herd() -> None:
    """Still dead when it is probed: one request is lost in each second, and it is retried."""
    pool = servers({}, {}, max_fails=0)
    async with world(upstreams=pool, retry=Retry(), breaker=BREAKER) as w:
        dead_until(w, 3500, delay=0.02)
        answers = await open_load(w, per_second=60, seconds=6)
        assert metric(w, "proxy_breaker_state", A, state="closed") == 1
    assert statuses(answers) == {200: 360}
    # Five to open it, and one at each probe of 1, 2 and 3 s.
    assert w.proxy.stats.retries == {"connection_refused": 8}


async def test_slow_start_follows_the_breaker() -> None:
    """A breaker that has closed is a recovery as well: the ramp begins with it."""
    pool = servers({}, {}, {}, max_fails=0, slow_start_ms=4000)
    async with world(upstreams=pool, retry=Retry(), breaker=BREAKER) as w:
        apps = dead_until(w, 500, delay=0.01)
        answers = await open_load(w, per_second=60, seconds=7)
    assert statuses(answers) == {200: 420}
    # Open at about 200 ms and closed a second later.
    assert by_second(apps[0], 2, 3)[0] == pytest.approx(60 * 0.3 / 2.3, abs=2)
    assert by_second(apps[0], 6, 7)[0] == pytest.approx(20, abs=1)


async def test_a_whole_pool_that_comes_back_gets_probes_only() -> None:
    """The only upstream: beside its probes everybody gets 503 with Retry-After, not a queue."""
    async with world(upstreams=1, retry=Retry(attempts=1), breaker=BREAKER) as w:
        apps = run_apps(w, delay=0.099)
        apps[0].kill()
        at(w, 500, apps[0].start)
        answers = await open_load(w, per_second=200, seconds=2)
        assert metric(w, "proxy_breaker_state", w.upstreams[0].name, state="closed") == 1
    by_time = sorted(answers, key=lambda answer: answer.at_ms)
    opened = 5
    assert [answer.status for answer in by_time[:opened]] == [502] * opened
    # The breaker opened at 20 ms. The first probe ends at 1119 ms, which leaves room for a fourth.
    good = [answer for answer in by_time if answer.status == 200]
    assert [answer.at_ms for answer in good[:4]] == [1020, 1025, 1030, 1120]
    assert apps[0].crowd(0, 1130) == 3
    assert statuses(answers) == {502: 5, 503: 199 + 17, 200: 3 + 176}


async def test_a_queue_that_has_grown_is_let_in_by_and_by() -> None:
    """When the only upstream wakes up, no more than max_conns of those who wait get there."""
    limits = Limits(max_conns_per_upstream=10, queue_ms=10_000)
    async with world(upstreams=1, retry=Retry(attempts=1), limits=limits) as w:
        apps = run_apps(w, delay=0.05)
        apps[0].freeze()
        at(w, 2000, apps[0].thaw)
        answers = await open_load(w, per_second=100, seconds=2)
    assert statuses(answers) == {200: 200}
    assert apps[0].most == 10
    assert slowest(answers) <= 2000 + 20 * 50
