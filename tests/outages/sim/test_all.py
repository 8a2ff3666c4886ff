"""All upstreams are dead, and then they are back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from support.outages import (
    Answer,
    App,
    at,
    failures_at,
    open_load,
    outcomes_at,
    run_apps,
    statuses,
    tries,
)
from support.pools import NAMES, is_up, servers, told
from support.world import World, world
from trio_proxy.settings import BreakerSettings, Health, Limits, Retry, Timeouts

THREE = servers({}, {}, {})


def all_dead_until(w: World, milliseconds: float) -> list[App]:
    """Every upstream refuses connections from the start until then."""
    apps = run_apps(w)
    for app in apps:
        app.kill()
        at(w, milliseconds, app.start)
    return apps


def first_good(answers: Sequence[Answer]) -> float:
    """When the first request was sent that was answered, in milliseconds."""
    return min(answer.at_ms for answer in answers if answer.status == 200)


def in_order(answers: Sequence[Answer]) -> list[int]:
    """The statuses in the order of the requests."""
    return [answer.status for answer in sorted(answers, key=lambda answer: answer.at_ms)]


async def test_the_first_request_after_the_return_is_answered() -> None:
    """0 ms of outage are added: nobody is told 503, and no fail_timeout_ms has to pass."""
    async with world(upstreams=THREE, retry=Retry()) as w:
        apps = all_dead_until(w, 3005)
        answers = await open_load(w, per_second=20, seconds=6)
    assert in_order(answers) == [502] * 61 + [200] * 59
    assert first_good(answers) == 3050
    assert {answer.took_ms for answer in answers} == {0, 10}
    # The retries: ten, and then a fifth of the requests.
    assert sum(failures_at(w, number)["connection_refused"] for number in range(3)) == 61 + 12
    assert sum(len(app.arrivals) for app in apps) == 59
    *down, panic, up, second_up, third_up = [line for line in told(w) if "budget" not in line]
    assert [line.split(" (")[0] for line in down] == [
        f"upstream {name} down: connection_refused" for name in NAMES[:3]
    ]
    assert panic == "pool default: no upstream is available, ignoring their health"
    ups = [up, second_up, third_up]
    assert all(line.endswith(" up: a request succeeded") for line in ups)


async def test_when_one_is_back_the_others_are_asked_too() -> None:
    """What put all out at once is over for all: none has to carry the whole load for 10 s."""
    async with world(upstreams=THREE, retry=Retry()) as w:
        apps = all_dead_until(w, 3005)
        answers = await open_load(w, per_second=30, seconds=5)
    assert in_order(answers) == [502] * 91 + [200] * 59
    assert [app.arrived(3505, 4505) for app in apps] == pytest.approx([10, 10, 10], abs=1)


async def test_each_dead_upstream_keeps_its_share_of_the_tries() -> None:
    """None is asked more than the others, for nobody knows which comes back first."""
    async with world(upstreams=THREE, retry=Retry(attempts=1)) as w:
        all_dead_until(w, 100_000)
        answers = await open_load(w, per_second=10, seconds=9)
    assert statuses(answers) == {502: 90}
    assert [outcomes_at(w, number).total() for number in range(3)] == pytest.approx([30] * 3, abs=1)


async def test_one_of_three_comes_back() -> None:
    """It is found with the third request at the latest: 100 ms at twenty a second."""
    async with world(upstreams=THREE, retry=Retry(budget_percent=0)) as w:
        apps = run_apps(w)
        for app in apps:
            app.kill()
        at(w, 3005, apps[1].start)
        answers = await open_load(w, per_second=20, seconds=6)
    assert 3050 <= first_good(answers) <= 3150
    good = in_order(answers).index(200)
    # The budget is spent, so the trials of the two that are dead still cost a client each.
    assert in_order(answers)[good:].count(502) <= 2


async def test_machines_without_power_come_back() -> None:
    """Dials that hang are given up after connect_ms with 504, or get through at the return."""
    timeouts = Timeouts(connect_ms=240)
    async with world(upstreams=THREE, retry=Retry(attempts=1), timeouts=timeouts) as w:
        apps = run_apps(w)
        for app in apps:
            app.vanish()
            at(w, 3005, app.start)
        answers = await open_load(w, per_second=20, seconds=6)
    assert statuses(answers) == {504: 56, 200: 64}
    assert first_good(answers) == 2800  # its dial was under way
    assert {answer.took_ms for answer in answers if answer.status == 504} == {240}


async def test_processes_that_hang_wake_up() -> None:
    """What was sent less than read_ms before is answered late, everything after it at once."""
    timeouts = Timeouts(read_ms=240)
    async with world(upstreams=THREE, retry=Retry(attempts=1), timeouts=timeouts) as w:
        apps = run_apps(w)
        for app in apps:
            app.freeze()
            at(w, 3005, app.thaw)
        answers = await open_load(w, per_second=20, seconds=6)
    assert in_order(answers) == [504] * 56 + [200] * 64
    assert sum(len(app.arrivals) for app in apps) == 120


async def test_with_every_breaker_open_the_return_is_seen_at_the_next_probe() -> None:
    """503 with Retry-After meanwhile; open_ms after the last failed probe all is well."""
    breaker = BreakerSettings(min_requests=5, open_ms=1000, half_open_requests=2)
    pool = servers({}, {}, {}, max_fails=0)
    async with world(upstreams=pool, retry=Retry(attempts=1), breaker=breaker) as w:
        apps = all_dead_until(w, 3005)
        answers = await open_load(w, per_second=20, seconds=6)
    by_status = statuses(answers)
    # Fifteen failures until all are open, and a probe each in each second after.
    assert by_status[502] <= 15 + 3 * 3
    assert by_status[503] == 120 - by_status[200] - by_status[502]
    assert first_good(answers) <= 3005 + 1000
    good = in_order(answers).index(200)
    assert set(in_order(answers)[good:]) == {200}
    assert max(app.crowd(0, 6000) for app in apps) == 1


async def test_with_checks_nobody_waits_for_them() -> None:
    """They need two passes to call an upstream up, and the first request does not wait for that."""
    health = Health(path="/healthz", interval_ms=1000, timeout_ms=200, rise=2, fall=2)
    async with world(upstreams=THREE, retry=Retry(), health=health) as w:
        w.proxy.pools["default"].random = lambda: 0.5
        all_dead_until(w, 5005)
        answers = await open_load(w, per_second=20, seconds=5.5)
        assert not any(is_up(w, name) for name in NAMES[:3])
        answers += await open_load(w, per_second=20, seconds=2)
        assert all(is_up(w, name) for name in NAMES[:3])
    assert in_order(answers) == [502] * 101 + [200] * 49
    up = [line for line in told(w) if " up: " in line]
    assert sorted(up) == [f"upstream {name} up: its health check passes" for name in NAMES[:3]]


async def test_one_of_two_stays_dead() -> None:
    """The one that is back serves everything; the other costs one client an answer at most.

    That one is its trial right after the return, as the outage has used up the budget for retries.
    """
    async with world(upstreams=servers({}, {}), retry=Retry()) as w:
        apps = run_apps(w)
        for app in apps:
            app.kill()
        at(w, 3005, apps[0].start)
        answers = await open_load(w, per_second=20, seconds=20)
    good = in_order(answers).index(200)
    assert good in (61, 62)
    # Right after the outage the budget is spent, so the first trial in vain costs one client.
    assert in_order(answers)[good:].count(502) <= 1
    late = [each for each in w.exchanges[good:] if each.tries[0].upstream == NAMES[1]]
    assert len(late) in (1, 2, 3)


async def test_waiting_requests_outlast_the_outage() -> None:
    """All connections hang, the rest waits in the queue; when they wake up everybody is served."""
    limits = Limits(max_conns_per_upstream=5, queue_ms=10_000)
    pool = servers({}, {}, max_fails=0)
    async with world(upstreams=pool, retry=Retry(), limits=limits) as w:
        apps = run_apps(w)
        for app in apps:
            app.freeze()
            at(w, 3005, app.thaw)
        answers = await open_load(w, per_second=50, seconds=3)
        assert w.proxy.stats.queue_length == {"default": 0}
    assert statuses(answers) == {200: 150}
    assert max(answer.at_ms + answer.took_ms for answer in answers) == 3005 + 14 * 10
    assert [app.most for app in apps] == [5, 5]
    assert tries(w) == 150
