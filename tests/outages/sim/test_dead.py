"""One of three upstreams is dead: refused, gone without a word, or killed under load."""

from __future__ import annotations

import pytest

from support.outages import (
    POST,
    at,
    failures_at,
    open_load,
    outcomes_at,
    run_apps,
    slowest,
    statuses,
)
from support.pools import A, is_up, metric, servers, told
from support.scenario import upstream_errors
from support.world import world
from trio_proxy.settings import Retry, Timeouts
from trio_proxy.telemetry.accesslog import access_text
from trio_proxy.testing import SimNet

THREE = servers({}, {}, {})


async def test_a_dead_upstream_costs_one_try_for_each_fail_timeout() -> None:
    """Every request is answered; in 30 s the dead one is asked once, and twice more on trial."""
    async with world(upstreams=THREE, retry=Retry()) as w:
        apps = run_apps(w)
        apps[0].kill()
        answers = await open_load(w, per_second=10, seconds=30)
        assert not is_up(w, A)
    assert statuses(answers) == {200: 300}
    assert slowest(answers) == 10
    assert outcomes_at(w, 0) == {"connection_refused": 3}
    assert outcomes_at(w, 1) + outcomes_at(w, 2) == {"200": 300}
    assert upstream_errors(w, 0) == {"connection_refused": 3}
    assert w.proxy.stats.retries == {"connection_refused": 3}
    assert (
        told(w)
        == [f"upstream {A} down: connection_refused (max_fails=1 within 10 s), not used for 10 s"]
        * 3
    )


async def test_an_upstream_that_is_killed_under_load_and_restarted() -> None:
    """Nobody notices; it is used again with its first trial, at the end of fail_timeout_ms."""
    async with world(upstreams=THREE, retry=Retry()) as w:
        apps = run_apps(w)
        at(w, 1025, apps[0].kill)  # in the middle of a request
        at(w, 2000, apps[0].start)
        answers = await open_load(w, per_second=50, seconds=13)
        assert is_up(w, A)
    assert statuses(answers) == {200: 650}
    assert slowest(answers) < 20
    # A connection that was idle before may have been stale, so a new one is tried first.
    assert failures_at(w, 0) == {"stale": 1, "connection_refused": 1}
    assert apps[0].arrived(1025, 11_025) == 0
    assert apps[0].arrived(11_025, 12_000) == pytest.approx(16, abs=1)
    assert told(w) == [
        f"upstream {A} down: connection_refused (max_fails=1 within 10 s), not used for 10 s",
        f"upstream {A} up: a request succeeded",
    ]


async def test_every_request_in_flight_to_a_killed_upstream() -> None:
    """Ten wait for it when it dies; each is sent once more, to one of the others."""
    async with world(upstreams=THREE, retry=Retry()) as w:
        apps = run_apps(w, delay=0.5)
        at(w, 400, apps[0].kill)
        answers = await open_load(w, per_second=75, seconds=0.4)
    assert statuses(answers) == {200: 30}
    assert outcomes_at(w, 0) == {"connection_reset": 10}
    assert len(apps[1].arrivals) == len(apps[2].arrivals) == 15
    assert w.proxy.stats.retries == {"connection_reset": 10}


async def test_what_may_not_be_sent_twice_is_lost_with_the_upstream() -> None:
    """A POST under way gets 502 and is not repeated; those that come later are not touched."""
    async with world(upstreams=THREE, retry=Retry()) as w:
        apps = run_apps(w, delay=0.1)
        at(w, 190, apps[0].kill)
        answers = await open_load(w, per_second=20, seconds=5, requests=[POST])
    assert statuses(answers) == {200: 99, 502: 1}
    (lost,) = [each for each in w.exchanges if each.status == 502]
    assert [one.upstream for one in lost.tries] == [A]
    assert lost.not_retried == "method"
    assert [len(app.arrivals) for app in apps] == [2, 49, 49]


async def test_a_refused_connection_harms_no_method() -> None:
    """Nothing was sent, so the POST goes to the next upstream."""
    async with world(upstreams=THREE, retry=Retry()) as w:
        apps = run_apps(w)
        apps[0].kill()
        answers = await open_load(w, per_second=20, seconds=2, requests=[POST])
    assert statuses(answers) == {200: 40}
    assert outcomes_at(w, 0) == {"connection_refused": 1}
    line = access_text(w.exchanges[0])
    assert " 200 2B 10.0ms upstream=10.1.0.2:9000 " in line
    assert " tries=2 phase=stream tried=10.1.0.1:9000:connection_refused,10.1.0.2:9000:200" in line


async def test_a_machine_without_power() -> None:
    """Who is sent there waits for connect_ms; from then on nobody, but for a trial each 10 s."""
    timeouts = Timeouts(connect_ms=250)
    async with world(upstreams=THREE, retry=Retry(), timeouts=timeouts) as w:
        apps = run_apps(w)
        apps[0].vanish()
        answers = await open_load(w, per_second=30, seconds=15)
        assert metric(w, "proxy_upstream_errors_total", A, type="timeout") == 4
    assert statuses(answers) == {200: 450}
    late = [answer for answer in answers if answer.took_ms > 10]
    assert [answer.took_ms for answer in late] == [260] * 4
    assert [answer.at_ms < 250 for answer in late] == [True] * 3 + [False]
    assert outcomes_at(w, 0) == {"connect_timeout": 4}


async def test_a_machine_that_loses_its_power_under_load() -> None:
    """Idle connections to it say nothing of it: who is sent along one waits for read_ms."""
    timeouts = Timeouts(connect_ms=250, read_ms=500)
    async with world(upstreams=THREE, retry=Retry(), timeouts=timeouts) as w:
        apps = run_apps(w)
        at(w, 1005, apps[0].vanish)
        at(w, 5000, apps[0].start)
        answers = await open_load(w, per_second=30, seconds=15)
        assert is_up(w, A)
    assert statuses(answers) == {200: 450}
    assert slowest(answers) == 510
    # The first that comes too late for the idle connection has to dial.
    assert outcomes_at(w, 0) == {"200": 46, "read_timeout": 1, "connect_timeout": 3}
    assert outcomes_at(w, 0).total() + len(apps[1].arrivals) + len(apps[2].arrivals) == 454


@pytest.mark.parametrize("seed", range(5))
async def test_a_burst_upon_three_of_which_one_is_dead(seed: int) -> None:
    """A third of it is refused at the same moment, and served by the others at that moment."""
    async with world(upstreams=THREE, retry=Retry(), network=SimNet(seed=seed, latency=0.001)) as w:
        apps = run_apps(w)
        apps[0].kill()
        answers = await open_load(w, per_second=1e9, seconds=30e-9)
    assert statuses(answers) == {200: 30}
    assert slowest(answers) == 18  # 10 of work, and a way to a dead one and back in vain
    assert outcomes_at(w, 0) == {"connection_refused": 10}


async def test_without_retries_one_client_sees_it() -> None:
    """max_fails is 1: the failure that takes it out is the only one in fail_timeout_ms."""
    async with world(upstreams=THREE, retry=Retry(attempts=1)) as w:
        apps = run_apps(w)
        apps[0].kill()
        answers = await open_load(w, per_second=10, seconds=9)
    assert statuses(answers) == {200: 89, 502: 1}
    assert answers[0].status == 502
    assert w.exchanges[0].not_retried == ""


async def test_a_backup_serves_only_while_no_primary_is_there() -> None:
    """It takes over with the request that found the last primary dead, and steps back."""
    pool = servers({}, {"backup": True}, fail_timeout_ms=1000)
    async with world(upstreams=pool, retry=Retry()) as w:
        apps = run_apps(w)
        at(w, 1005, apps[0].kill)
        at(w, 3500, apps[0].start)
        answers = await open_load(w, per_second=20, seconds=6)
    assert statuses(answers) == {200: 120}
    assert outcomes_at(w, 0)["connection_refused"] == 3
    assert (apps[1].arrivals[0], apps[1].arrivals[-1]) == (1005, 4000)
