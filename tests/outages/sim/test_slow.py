"""One of three upstreams is ten times as slow as the others."""

from __future__ import annotations

import pytest

from support.outages import App, closed_load, open_load, run_apps, slowest, statuses
from support.pools import servers
from support.world import World, world
from trio_proxy.settings import Balance, Limits, Retry

LEAST_CONN = Balance(policy="least_conn")
THREE = servers({}, {}, {})


def one_slow_app(w: World) -> list[App]:
    """The first takes 100 ms for a request, the others 10 ms."""
    apps = run_apps(w, delay=0.01)
    apps[0].delay = 0.1
    return apps


async def test_least_conn_gives_the_slow_one_a_tenth_of_what_others_get() -> None:
    """Twelve clients are spread evenly at any time, so each upstream gets what it can do."""
    async with world(upstreams=THREE, retry=Retry(), balance=LEAST_CONN) as w:
        apps = one_slow_app(w)
        answers = await closed_load(w, clients=12, seconds=2)
    slow, one, other = [len(app.arrivals) for app in apps]
    assert statuses(answers) == {200: slow + one + other}
    assert slow == pytest.approx(80, abs=4)  # four at a time, each 100 ms, for 2 s
    assert one == pytest.approx(800, abs=8)
    assert other == pytest.approx(800, abs=8)
    assert [app.most for app in apps] == [4, 4, 4]


async def test_round_robin_makes_all_wait_for_the_slow_one() -> None:
    """The same load and a third for each: less than a third of the requests get done."""
    async with world(upstreams=THREE, retry=Retry()) as w:
        apps = one_slow_app(w)
        answers = await closed_load(w, clients=12, seconds=2)
    counts = [len(app.arrivals) for app in apps]
    assert max(counts) - min(counts) <= 1
    assert len(answers) < 1680 / 2.5
    assert apps[0].most >= 9


async def test_random_two_keeps_away_from_the_slow_one() -> None:
    """Of two it takes the one with less to do: nearly as good as least_conn."""
    balance = Balance(policy="random_two")
    async with world(upstreams=THREE, retry=Retry(), balance=balance) as w:
        apps = one_slow_app(w)
        answers = await closed_load(w, clients=12, seconds=2)
    slow = len(apps[0].arrivals)
    assert slow < len(answers) / 10
    assert slow >= 60


async def test_least_conn_under_a_steady_stream() -> None:
    """150 a second keep the slow one at one request at a time; the others do the rest."""
    async with world(upstreams=THREE, retry=Retry(), balance=LEAST_CONN) as w:
        apps = one_slow_app(w)
        answers = await open_load(w, per_second=150, seconds=4)
    assert statuses(answers) == {200: 600}
    assert apps[0].most == 1
    assert len(apps[0].arrivals) == pytest.approx(40, abs=4)
    assert slowest(answers) == 100


async def test_a_slow_upstream_is_no_failed_one() -> None:
    """Slowness below every deadline takes nobody out and costs no retry."""
    async with world(upstreams=THREE, retry=Retry(), balance=LEAST_CONN) as w:
        one_slow_app(w)
        answers = await open_load(w, per_second=30, seconds=3)
        assert all(stats.up for stats in w.proxy.stats.upstreams.values())
    assert statuses(answers) == {200: 90}
    assert w.proxy.stats.retries == {}


async def test_a_slow_upstream_that_is_full_makes_nobody_wait() -> None:
    """With max_conns of 2 it gets what it can do, under round robin too; there is no queue."""
    pool = servers({"max_conns": 2}, {}, {})
    limits = Limits(max_queue=0)
    async with world(upstreams=pool, retry=Retry(), limits=limits) as w:
        apps = one_slow_app(w)
        answers = await open_load(w, per_second=150, seconds=4)
    assert statuses(answers) == {200: 600}
    assert apps[0].most == 2
    assert len(apps[0].arrivals) == pytest.approx(75, abs=8)
