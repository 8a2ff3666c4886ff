"""One of three upstreams answers 500 to every other request."""

from __future__ import annotations

from itertools import cycle, repeat

import pytest

from support.outages import POST, App, at, closed_load, open_load, outcomes_at, run_apps, statuses
from support.pools import A, is_up, metric, servers, told
from support.scenario import GET
from support.world import World, world
from trio_proxy.settings import Balance, BreakerSettings, Health, Retry

THREE = servers({}, {}, {})
ON_500 = Retry(on=("connect", "reset", "timeout", "500"))
BREAKER = BreakerSettings(min_requests=20, error_percent=50, open_ms=2000, half_open_requests=3)


def one_that_errs(w: World) -> list[App]:
    """The first fails with its first request, its third, and so on."""
    apps = run_apps(w)
    apps[0].statuses = cycle([500, 200])
    return apps


async def test_by_default_a_500_is_an_answer() -> None:
    """Clients see it, nothing is repeated, and the upstream keeps its share (as with nginx)."""
    async with world(upstreams=THREE, retry=Retry()) as w:
        apps = one_that_errs(w)
        answers = await open_load(w, per_second=30, seconds=10)
        assert is_up(w, A)
    assert statuses(answers) == {200: 250, 500: 50}
    assert [len(app.arrivals) for app in apps] == [100, 100, 100]
    assert w.proxy.stats.retries == {}


async def test_retries_hide_it() -> None:
    """A sixth of the requests is sent twice, and the budget allows a fifth: no client sees it."""
    async with world(upstreams=THREE, retry=ON_500) as w:
        one_that_errs(w)
        answers = await open_load(w, per_second=30, seconds=20)
        assert metric(w, "proxy_upstream_requests_total", A) == outcomes_at(w, 0).total()
    assert statuses(answers) == {200: 600}
    errors = outcomes_at(w, 0)["500"]
    assert errors in range(100, 121)
    assert w.proxy.stats.retries == {"500": errors}
    assert {len(each.tries) for each in w.exchanges} == {1, 2}


async def test_retries_do_not_repeat_a_post() -> None:
    """A method that is not idempotent gets the 500 as it came, body and all."""
    async with world(upstreams=THREE, retry=ON_500) as w:
        one_that_errs(w)
        async with await w.client() as client:
            response = await client.ask(POST)
            assert (response.status, response.body) == (500, b"ok")
    assert w.exchanges[0].not_retried == "method"
    assert len(w.exchanges[0].tries) == 1


async def test_fail_statuses_take_it_out() -> None:
    """Three errors within fail_timeout_ms: it is out, and back on trial with its next answer."""
    pool = servers({}, {}, {}, max_fails=3, fail_timeout_ms=2000)
    health = Health(fail_statuses=("5xx",))
    async with world(upstreams=pool, retry=Retry(), health=health) as w:
        apps = one_that_errs(w)
        answers = await open_load(w, per_second=30, seconds=2.6)
        assert is_up(w, A)
    # Of five answers three were errors, and the sixth was the trial that ended well.
    assert statuses(answers) == {200: 75, 500: 3}
    assert outcomes_at(w, 0)["500"] == 3
    assert apps[0].arrived(411, 2400) == 0
    assert told(w) == [
        f"upstream {A} down: status 500 (max_fails=3 within 2 s), not used for 2 s",
        f"upstream {A} up: a request succeeded",
    ]


async def test_the_breaker_leaves_it_alone() -> None:
    """It opens with the twentieth answer, ten of which were errors; a failed probe reopens it."""
    async with world(upstreams=THREE, retry=Retry(), breaker=BREAKER) as w:
        apps = one_that_errs(w)
        answers = await open_load(w, per_second=30, seconds=4.3)
        assert metric(w, "proxy_breaker_state", A, state="open") == 1
        assert len(apps[0].arrivals) == 21
        answers += await open_load(w, per_second=30, seconds=1.7)
    # The twentieth came at 1900; after 2 s the probe failed.
    assert apps[0].arrivals[19:] == [1900, 4000]
    assert statuses(answers) == {200: 169, 500: 11}
    assert told(w) == [
        f"upstream {A}: breaker open for 2 s, last error: status 500",
        f"upstream {A}: breaker half_open",
        f"upstream {A}: breaker open for 2 s, last error: status 500",
    ]


async def test_the_breaker_closes_when_it_is_repaired() -> None:
    """Three probes that succeed put it back to work with a third of the load."""
    async with world(upstreams=THREE, retry=Retry(), breaker=BREAKER) as w:
        apps = one_that_errs(w)

        def repair() -> None:
            apps[0].statuses = repeat(200)

        at(w, 3000, repair)
        answers = await open_load(w, per_second=30, seconds=10)
        assert metric(w, "proxy_breaker_state", A, state="closed") == 1
    assert statuses(answers) == {200: 290, 500: 10}
    assert apps[0].arrived(1901, 3910) == 0
    assert apps[0].arrived(5000, 10_000) == 50
    assert told(w) == [
        f"upstream {A}: breaker open for 2 s, last error: status 500",
        f"upstream {A}: breaker half_open",
        f"upstream {A}: breaker closed",
    ]


async def test_retries_and_breaker_together() -> None:
    """No client sees an error, and only the probes of an open breaker are sent twice."""
    async with world(upstreams=THREE, retry=ON_500, breaker=BREAKER) as w:
        one_that_errs(w)
        answers = await open_load(w, per_second=30, seconds=10)
    assert statuses(answers) == {200: 300}
    assert outcomes_at(w, 0)["500"] <= 15
    assert w.proxy.stats.retries == {"500": outcomes_at(w, 0)["500"]}


@pytest.mark.parametrize("with_breaker", [False, True])
async def test_one_that_fails_at_once_attracts_least_conn(with_breaker: bool) -> None:
    """It is always the least busy, so it gets nearly everything, until its breaker opens."""
    balance, breaker = Balance(policy="least_conn"), BREAKER if with_breaker else None
    async with world(upstreams=THREE, retry=ON_500, balance=balance, breaker=breaker) as w:
        apps = run_apps(w, delay=0.05)
        apps[0].delay, apps[0].statuses = 0.001, repeat(500)
        answers = await closed_load(w, clients=12, seconds=0.2)
    if with_breaker:
        assert len(apps[0].arrivals) <= 20 + 12
        assert statuses(answers)[500] <= 12
    else:
        assert len(apps[0].arrivals) > len(apps[1].arrivals) + len(apps[2].arrivals)
        assert statuses(answers)[500] > statuses(answers)[200]


async def test_the_only_upstream_errs() -> None:
    """There is nobody else: it is asked again after a pause, and its answer relayed if it errs."""
    async with world(upstreams=1, retry=ON_500) as w:
        w.proxy.pools["default"].random = lambda: 0.8
        apps = run_apps(w)
        apps[0].statuses = cycle([500, 200, 500, 500])
        async with await w.client() as client:
            assert (await client.ask(GET)).status == 200
            assert (await client.ask(GET)).status == 500
    # Full jitter: 0.8 of the 25 ms that the first pause may last.
    assert apps[0].arrivals == [0, 30, 40, 70]
    assert w.exchanges[1].not_retried == "attempts"


async def test_the_error_that_opens_the_last_breaker_is_relayed() -> None:
    """There is nobody to ask again, so the client gets what came: it says more than a 503."""
    breaker = BreakerSettings(min_requests=4, open_ms=2000)
    async with world(upstreams=1, retry=ON_500, breaker=breaker) as w:
        apps = run_apps(w)
        apps[0].statuses = cycle([200, 200, 500])
        async with await w.client() as client:
            for status in (200, 200):
                assert (await client.ask(GET)).status == status
            apps[0].statuses = repeat(500)
            response = await client.ask(GET)
            assert (response.status, response.body) == (500, b"ok")
            response = await client.ask(GET)
            assert response.status == 503
            assert response[b"retry-after"] == b"2"
    assert len(apps[0].arrivals) == 4
