"""The retry storm: every upstream fails, and every client's request would be sent five times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import cycle, repeat

import pytest

from support.outages import App, at, open_load, outcomes_at, run_apps, statuses, tries
from support.pools import servers
from support.world import world
from trio_proxy.settings import BreakerSettings, Retry, Timeouts

THREE = servers({}, {}, {})
FIVE = Retry(attempts=5, on=("connect", "reset", "timeout", "503"))


def refuse(app: App) -> None:
    app.kill()


def reset(app: App) -> None:
    app.reset_everybody()


def hang(app: App) -> None:
    app.freeze()


def be_busy(app: App) -> None:
    app.statuses = repeat(503)


@pytest.mark.parametrize(
    ("fail", "outcome", "status"),
    [
        (refuse, "connection_refused", 502),
        (reset, "connection_reset", 502),
        (hang, "read_timeout", 504),
        (be_busy, "503", 503),
    ],
)
async def test_a_storm_of_30_s_is_held_by_the_budget(
    fail: Callable[[App], None], outcome: str, status: int
) -> None:
    """At most a fifth more tries than requests, where five times as many were asked for."""
    async with world(upstreams=THREE, retry=FIVE, timeouts=Timeouts(read_ms=250)) as w:
        for app in run_apps(w):
            fail(app)
        answers = await open_load(w, per_second=12, seconds=30)
        assert w.proxy.stats.retries == {outcome: tries(w) - 360}
    assert statuses(answers) == {status: 360}
    assert 360 * 1.15 <= tries(w) <= 360 * 1.2 + 10
    assert all(outcomes_at(w, number).keys() == {outcome} for number in range(3))
    # Nobody is asked much more often than the others.
    shares = [outcomes_at(w, number).total() for number in range(3)]
    assert max(shares) - min(shares) <= 0.1 * sum(shares)
    given_up = Counter(exchange.not_retried for exchange in w.exchanges)
    # An upstream that took too long is not asked again, so three tries are all that there can be.
    assert given_up.keys() <= {"budget", "attempts", "no_upstream"}
    assert given_up["budget"] >= 280


async def test_without_a_budget_it_is_a_storm() -> None:
    """The contrast: five tries for each request."""
    retry = Retry(attempts=5, budget_percent=1000)
    async with world(upstreams=THREE, retry=retry) as w:
        for app in run_apps(w):
            app.kill()
        answers = await open_load(w, per_second=25, seconds=4)
    assert statuses(answers) == {502: 100}
    assert tries(w) == 500


async def test_a_quiet_service_may_retry_all_the_same() -> None:
    """One request a second: the floor of ten retries in 10 s lets nearly each be tried twice."""
    async with world(upstreams=THREE, retry=Retry()) as w:
        for app in run_apps(w):
            app.kill()
        answers = await open_load(w, per_second=1, seconds=30)
    assert statuses(answers) == {502: 30}
    # The window has steps of a second, and errs to the side of fewer: ten in eleven seconds.
    assert Counter(len(exchange.tries) for exchange in w.exchanges) == {2: 28, 1: 2}


async def test_a_budget_of_nothing_leaves_the_floor() -> None:
    """budget_percent = 0 grants ten in 10 s, whatever the traffic."""
    async with world(upstreams=THREE, retry=Retry(budget_percent=0)) as w:
        for app in run_apps(w):
            app.kill()
        await open_load(w, per_second=25, seconds=20)
    assert 500 + 15 <= tries(w) <= 500 + 20


async def test_the_budget_is_back_when_the_storm_is_over() -> None:
    """After 10 s of health a dead upstream costs no client anything again."""
    async with world(upstreams=THREE, retry=Retry()) as w:
        apps = run_apps(w)
        for app in apps:
            at(w, 25, app.kill)
            at(w, 4930, app.start)
        answers = await open_load(w, per_second=25, seconds=5)
        assert set(statuses(answers)) == {200, 502}
        answers = await open_load(w, per_second=25, seconds=11)
        assert statuses(answers) == {200: 275}
        apps[1].kill()
        answers = await open_load(w, per_second=25, seconds=5)
        assert statuses(answers) == {200: 125}


async def test_upstreams_that_fail_half_the_time() -> None:
    """With second tries for a fifth of the requests half the errors become at most 40 percent."""
    async with world(upstreams=THREE, retry=FIVE) as w:
        for app in run_apps(w):
            app.statuses = cycle([503, 200])
        answers = await open_load(w, per_second=25, seconds=20)
    assert tries(w) <= 500 * 1.2 + 10
    assert statuses(answers)[200] >= 0.55 * 500


async def test_breakers_end_the_storm() -> None:
    """With all of them open only probes get through: a few tries a second instead of thirty."""
    breaker = BreakerSettings(min_requests=10, open_ms=1000, half_open_requests=1)
    async with world(upstreams=THREE, retry=FIVE, breaker=breaker) as w:
        apps = run_apps(w)
        for app in apps:
            be_busy(app)
        answers = await open_load(w, per_second=25, seconds=20)
        assert all(app.arrived(5000, 15_000) <= 11 for app in apps)
    assert statuses(answers) == {503: 500}
    assert tries(w) <= 3 * (10 + 20)


@pytest.mark.parametrize(("clients", "patient"), [(1, 1), (2, 2), (7, 3)])
async def test_retry_after_is_kept_and_counts_as_any_retry(clients: int, patient: int) -> None:
    """Two are busy for 2 s: a third try waits for that, if the floor of ten allows it at all."""
    async with world(upstreams=servers({}, {}), retry=Retry(attempts=3, on=("503",))) as w:
        apps = run_apps(w)
        for app in apps:
            be_busy(app)
            app.fields = b"Retry-After: 2\r\n"
        answers = await open_load(w, per_second=1e6, seconds=clients / 1e6)
    assert statuses(answers) == {503: clients}
    assert Counter(answer.took_ms > 2000 for answer in answers)[True] == patient
    assert all(app.arrived(30, 2010) == 0 for app in apps)
    assert tries(w) == clients * 2 + patient
