"""What holds of the health of upstreams whatever happens to them, in whatever order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from support.pool_plans import BUDGETS, files, steps, take
from support.pools import A, is_up, metric, serve, told
from support.world import World, run, world
from trio_proxy.settings import Balance, Limits, Settings

#: Room for one request at each upstream; who waits for it waits as long as it takes.
NARROW = Limits(max_conns_per_upstream=1, queue_ms=0)


def last_told(w: World, upstream: str) -> bool:
    """Whether the last that the log tells of an upstream is that it is up."""
    starts = f"upstream {upstream} up: ", f"upstream {upstream} down: "
    lines = [line for line in told(w) if line.startswith(starts)]
    return not lines or lines[-1].startswith(starts[0])


def check(w: World) -> None:
    """The laws."""
    assert is_up(w, A) == last_told(w, A)
    for member in w.proxy.pools["default"].members:
        states = [
            metric(w, "proxy_breaker_state", member.name, state=each)
            for each in ("closed", "open", "half_open")
        ]
        has_breaker = w.proxy.settings.breaker is not None
        assert states.count(1) == has_breaker
        assert states.count(None) == (0 if has_breaker else 3)
        draining = metric(w, "proxy_upstream_draining", member.name)
        assert draining == member.condition.draining
    if len(w.proxy.pools["default"].members) == 1 and not w.proxy.settings.health.path:
        assert is_up(w, A)


@settings(max_examples=40, deadline=None)
@given(files(), st.lists(steps(), max_size=25))
def test_the_log_the_metrics_and_what_clients_see_agree(
    first: Settings, plan: list[tuple[str, object]]
) -> None:
    """Up and down alternate as the gauge does; no error of ours; 503 only with nobody to ask."""

    async def main() -> None:
        async with world(upstreams=3, timeouts=BUDGETS) as w:
            every = serve(w)
            await w.reload(first)
            for step, what in plan:
                known = len(w.exchanges)
                await take(w, every, step, what)
                check(w)
                for exchange in w.exchanges[known:]:
                    assert exchange.status != 500 or exchange.error is None
                    if exchange.error and exchange.error.reason.slug == "no_upstream":
                        assert all(m.condition.draining for m in w.proxy.pools["default"].members)

    run(main)


STUCK = Balance(policy="least_conn", sticky_cookie="route")


@settings(max_examples=40, deadline=None)
@given(
    files(limits=NARROW, balance=STUCK), st.lists(steps(limits=NARROW, balance=STUCK), max_size=25)
)
def test_nobody_waits_for_ever(first: Settings, plan: list[tuple[str, object]]) -> None:
    """In a queue without a deadline: whatever comes free, or back, goes to somebody."""

    async def main() -> None:
        async with world(upstreams=3, timeouts=BUDGETS, limits=NARROW) as w:
            every = serve(w)
            await w.reload(first)
            for step, what in plan:
                await take(w, every, step, what)
                check(w)
                assert w.proxy.pools["default"].queue_length == 0

    run(main)
