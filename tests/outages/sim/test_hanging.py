"""An upstream that hangs: it accepts connections and requests, and never answers."""

from __future__ import annotations

from collections import Counter

from support.outages import (
    POST,
    ask,
    at,
    failures_at,
    open_load,
    outcomes_at,
    run_apps,
    slowest,
    statuses,
)
from support.pools import A, is_up, metric, servers, told
from support.scenario import now_ms, until_ms
from support.world import world
from trio_proxy.settings import Health, Limits, Retry, Timeouts

THREE = servers({}, {}, {})


async def test_a_hanging_upstream_delays_few_and_fails_nobody() -> None:
    """Who is sent there before it is known waits for read_ms; then one request in 10 s does."""
    timeouts = Timeouts(read_ms=450)
    async with world(upstreams=THREE, retry=Retry(), timeouts=timeouts) as w:
        apps = run_apps(w)
        apps[0].freeze()
        answers = await open_load(w, per_second=30, seconds=15)
        assert not is_up(w, A)
        assert metric(w, "proxy_upstream_errors_total", A, type="timeout") == 6
    assert statuses(answers) == {200: 450}
    assert Counter(answer.took_ms for answer in answers) == {10: 444, 460: 6}
    assert outcomes_at(w, 0) == {"read_timeout": 6}
    assert apps[0].arrived(450, 10_450) == 0
    assert apps[0].arrived(10_450, 15_000) == 1
    assert w.proxy.stats.retries == {"read_timeout": 6}


async def test_a_try_deadline_bounds_the_delay() -> None:
    """try_timeout_ms is shorter than what a slow answer may take in general."""
    retry = Retry(try_timeout_ms=120)
    async with world(upstreams=THREE, retry=retry, timeouts=Timeouts(read_ms=5000)) as w:
        apps = run_apps(w)
        apps[0].freeze()
        answers = await open_load(w, per_second=30, seconds=5)
    assert statuses(answers) == {200: 150}
    assert slowest(answers) == 130
    assert outcomes_at(w, 0) == {"try_timeout": 2}


async def test_a_hanging_upstream_may_have_acted_on_a_post() -> None:
    """504 after read_ms for those that it got, and no second try; later ones go elsewhere."""
    timeouts = Timeouts(read_ms=450)
    async with world(upstreams=THREE, retry=Retry(), timeouts=timeouts) as w:
        apps = run_apps(w)
        apps[0].freeze()
        answers = await open_load(w, per_second=30, seconds=5, requests=[POST])
    assert statuses(answers) == {200: 145, 504: 5}
    lost = [each for each in w.exchanges if each.status == 504]
    assert {each.not_retried for each in lost} == {"method"}
    assert {len(each.tries) for each in lost} == {1}
    assert len(apps[0].arrivals) == 5


async def test_it_wakes_up_again() -> None:
    """SIGCONT: what it answers too late goes nowhere, and its trial brings it back."""
    pool = servers({}, {}, fail_timeout_ms=2000)
    async with world(upstreams=pool, retry=Retry(), timeouts=Timeouts(read_ms=250)) as w:
        apps = run_apps(w)
        at(w, 1005, apps[0].freeze)
        at(w, 3000, apps[0].thaw)
        answers = await open_load(w, per_second=20, seconds=5)
        assert is_up(w, A)
    assert statuses(answers) == {200: 100}
    # One was at work when it stopped, and three more came before the first was given up.
    assert failures_at(w, 0) == {"read_timeout": 3}
    assert apps[0].arrived(1250, 3250) == 0
    assert apps[0].arrived(4000, 5000) == 10
    assert told(w)[-1] == f"upstream {A} up: a request succeeded"


async def test_health_checks_find_it_without_a_client() -> None:
    """After so many failed checks nobody is sent there, and no trial is made on clients."""
    health = Health(path="/healthz", interval_ms=1000, timeout_ms=300, fall=2, rise=2)
    timeouts = Timeouts(read_ms=450)
    async with world(upstreams=THREE, retry=Retry(), health=health, timeouts=timeouts) as w:
        w.proxy.pools["default"].random = lambda: (
            0.5
        )  # no jitter, and the first check at half an interval
        apps = run_apps(w)
        apps[0].freeze()
        await until_ms(2150)  # at 500 and 1800, and both ran into the timeout
        assert not is_up(w, A)
        at(w, 20_500, apps[0].thaw)
        answers = await open_load(w, per_second=20, seconds=22)
        assert is_up(w, A)
    assert statuses(answers) == {200: 440}
    assert slowest(answers) == 10
    assert apps[0].checks[-3:-1] == [21_300, 22_310]
    assert apps[0].arrivals[0] == 22_350
    assert told(w) == [
        f"upstream {A} down: health check failed: no answer within 300 ms",
        f"upstream {A} up: its health check passes",
    ]


async def test_an_upstream_that_hangs_does_not_take_every_connection() -> None:
    """With no passive checks it holds max_conns requests at most; the others go elsewhere."""
    pool = servers({}, {}, max_fails=0)
    limits = Limits(max_conns_per_upstream=5)
    async with world(upstreams=pool, retry=Retry(), limits=limits) as w:
        apps = run_apps(w)
        apps[0].freeze()
        answers = await open_load(w, per_second=50, seconds=10)
        assert len(apps[0].arrivals) == 5
    assert statuses(answers) == {200: 500}
    assert Counter(answer.took_ms for answer in answers) == {10: 495, 15_010: 5}


async def test_the_only_upstream_hangs() -> None:
    """504 after read_ms, never 503; the first request after it wakes up is answered."""
    async with world(upstreams=1, retry=Retry(attempts=1), timeouts=Timeouts(read_ms=250)) as w:
        apps = run_apps(w)
        apps[0].freeze()
        at(w, 4990, apps[0].thaw)
        answers = await open_load(w, per_second=10, seconds=6)
    by_time = sorted(answers, key=lambda answer: answer.at_ms)
    # Those of the last 250 ms before are answered as well, late.
    assert [answer.status for answer in by_time] == [504] * 48 + [200] * 12
    assert {answer.took_ms for answer in by_time[:48]} == {250}
    assert [answer.took_ms for answer in by_time[48:]] == [190, 90] + [10] * 10
    assert len(apps[0].arrivals) == 60


async def test_all_hang() -> None:
    """Every client waits for its two tries and gets 504 at 500 ms; nobody is refused."""
    async with world(upstreams=THREE, retry=Retry(), timeouts=Timeouts(read_ms=250)) as w:
        apps = run_apps(w)
        for app in apps:
            app.freeze()
        async with await w.client() as client:
            for number in range(8):
                answer = await ask(client)
                assert (answer.status, answer.took_ms) == (504, 500)
                assert now_ms() == 500 * (number + 1)
    assert sum(len(app.arrivals) for app in apps) == 16
    assert min(len(app.arrivals) for app in apps) >= 4
