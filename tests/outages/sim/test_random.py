"""Whatever happens to the upstreams, and in whatever order: what holds of every outage."""

from __future__ import annotations

import math
from typing import Any

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.outages import Answer, App, at, open_load, run_apps, statuses, tries
from support.pools import servers
from support.world import World, run, world
from trio_proxy.exchange.exchange import STALE
from trio_proxy.settings import Balance, BreakerSettings, Retry, Timeouts
from trio_proxy.testing import SimNet

#: Milliseconds between two events, longer than any request takes that nothing happens to.
STEP = 100
ORDERS = ("kill", "start", "freeze", "vanish", "reset_everybody", "stop")
POLICIES = ("round_robin", "least_conn", "random_two", "ip_hash")

#: Which of three upstreams, and what is done to it.
events = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(ORDERS)) | st.none(), min_size=1, max_size=15
)
examples = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def in_turn(w: World, apps: list[App], orders: list[tuple[int, str] | None]) -> float:
    """Give an order each `STEP`; when the last has been given, in milliseconds."""
    for number, order in enumerate(orders):
        if order is not None:
            at(w, number * STEP + 7, getattr(apps[order[0]], order[1]))
    return len(orders) * STEP + 0.0


def pool(fail_timeout_ms: int, slow_start_ms: int) -> list[Any]:
    return servers({}, {}, {}, fail_timeout_ms=fail_timeout_ms, slow_start_ms=slow_start_ms)


@examples
@given(
    order=st.lists(st.integers(0, 2), min_size=1, max_size=15),
    fail_timeout_ms=st.sampled_from((50, 300, 10_000)),
    slow_start_ms=st.sampled_from((0, 500)),
    policy=st.sampled_from(POLICIES),
    seed=st.integers(0, 99),
)
def test_as_long_as_one_of_three_lives_every_get_is_answered(
    order: list[int], fail_timeout_ms: int, slow_start_ms: int, policy: Any, seed: int
) -> None:
    """With a try for each and no budget, however they are killed and restarted in turns."""

    async def main() -> list[Answer]:
        async with world(
            upstreams=pool(fail_timeout_ms, slow_start_ms),
            retry=Retry(attempts=3, budget_percent=1000),
            balance=Balance(policy=policy),
            network=SimNet(seed=seed, latency=0.001),
        ) as w:
            apps = run_apps(w)
            is_alive = [True, True, True]
            for number, which in enumerate(order):
                # The last one that lives is left alone.
                if not is_alive[which] or sum(is_alive) > 1:
                    is_alive[which] = not is_alive[which]
                    order_ = apps[which].start if is_alive[which] else apps[which].kill
                    at(w, number * STEP + 7, order_)
            answers = await open_load(w, per_second=70, seconds=len(order) * STEP / 1000)
        for exchange in w.exchanges:
            asked = [one.upstream for one in exchange.tries if one.outcome != STALE]
            assert len(asked) == len(set(asked)) <= 3
        return answers

    answers = run(main)
    assert statuses(answers) == {200: len(answers)}


@examples
@given(
    orders=events,
    fail_timeout_ms=st.sampled_from((50, 300, 10_000)),
    slow_start_ms=st.sampled_from((0, 500)),
    policy=st.sampled_from(POLICIES),
    attempts=st.integers(1, 4),
    with_breaker=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_outage_ends_when_its_cause_does(
    orders: list[tuple[int, str] | None],
    fail_timeout_ms: int,
    slow_start_ms: int,
    policy: Any,
    attempts: int,
    with_breaker: bool,
    seed: int,
) -> None:
    """Each answer comes in time, the tries are within the budget, and all is well in the end."""
    breaker = BreakerSettings(min_requests=5, open_ms=500) if with_breaker else None
    expected = {200, 502, 504, 503} if with_breaker else {200, 502, 504}

    async def main() -> None:
        async with world(
            upstreams=pool(fail_timeout_ms, slow_start_ms),
            retry=Retry(attempts=attempts),
            balance=Balance(policy=policy),
            breaker=breaker,
            timeouts=Timeouts(connect_ms=150, read_ms=200, total_ms=700),
            network=SimNet(seed=seed, latency=0.001),
        ) as w:
            apps = run_apps(w)
            ends_at = in_turn(w, apps, orders)
            answers = await open_load(w, per_second=70, seconds=ends_at / 1000)
            assert set(statuses(answers)) <= expected
            assert max(answer.took_ms for answer in answers) <= 700 + 2
            for app in apps:
                app.start()
            if with_breaker:
                await trio.sleep(0.5)  # an open breaker waits for its time, whatever happens
            answers = await open_load(w, per_second=70, seconds=0.5)
            assert set(statuses(answers)) == {200}
            fresh = [one for each in w.exchanges for one in each.tries if one.outcome != STALE]
            windows = math.ceil(trio.current_time() / 10) + 1
            assert len(fresh) <= 1.2 * len(w.exchanges) + 10 * windows
            assert tries(w) <= len(w.exchanges) * attempts * 2

    run(main)
