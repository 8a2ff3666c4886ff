"""What may happen to a pool: configurations and steps for the tests of its laws."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio
from hypothesis import strategies as st

from support.pools import NAMES, Server, servers, statuses
from support.scenario import GET, all_at_once, only
from support.world import World, settings_for
from trio_proxy.settings import BreakerSettings, Health, Retry, Settings

BUDGETS = only(connect_ms=200, read_ms=200)

#: More than eight requests need, one after the other, if each is tried as often as it may be, of
#: which each try fails as late as it can and each pause is as long as it can be.
BURST_SECONDS = 8 * 3 * (0.2 + 0.2 + 2.0)


@st.composite
def files(draw: st.DrawFn, **tables: Any) -> Settings:
    """A configuration of a pool of the first two or three upstreams, or the first alone."""
    count = draw(st.sampled_from([1, 2, 2, 3, 3, 3]))
    rules = st.fixed_dictionaries(
        {
            "weight": st.integers(1, 3),
            "max_fails": st.integers(0, 2),
            "fail_timeout_ms": st.sampled_from([500, 2000]),
            "slow_start_ms": st.sampled_from([0, 0, 3000]),
            "backup": st.booleans(),
            "drain": st.sampled_from([False, False, False, True]),
        }
    )
    checks = draw(st.booleans())
    health = Health(
        path="/up" if checks else "",
        interval_ms=300,
        timeout_ms=100,
        rise=draw(st.integers(1, 2)),
        fall=draw(st.integers(1, 2)),
        panic_percent=draw(st.sampled_from([0, 0, 50, 100])),
    )
    breaker = BreakerSettings(min_requests=3, open_ms=1000, half_open_requests=2)
    return settings_for(
        servers(*(draw(rules) for _ in range(count))),
        timeouts=BUDGETS,
        health=health,
        breaker=draw(st.sampled_from([None, breaker])),
        retry=draw(st.sampled_from([Retry(attempts=1), Retry(), Retry(attempts=3, on=("500",))])),
        **tables,
    )


NUMBERS = st.integers(0, 2)
FAULTS = st.sampled_from(["", "", "", "hang", "reset", "close", "garbage", "cut"])


def steps(**tables: Any) -> st.SearchStrategy[tuple[str, Any]]:
    """Things that can happen; ``tables`` are in every file."""
    ask = st.tuples(st.just("ask"), st.integers(1, 6))
    return st.one_of(
        ask,
        ask,
        st.tuples(st.just("burst"), st.integers(2, 8)),
        st.tuples(st.just("sleep"), st.sampled_from([1, 100, 450, 1000, 2500])),
        st.tuples(st.just("fault"), st.tuples(NUMBERS, FAULTS)),
        st.tuples(st.just("status"), st.tuples(NUMBERS, st.sampled_from([200, 200, 500]))),
        st.tuples(st.just("refuse"), NUMBERS),
        st.tuples(st.just("heal"), NUMBERS),
        st.tuples(st.just("drain"), NUMBERS),
        st.tuples(st.just("undrain"), NUMBERS),
        st.tuples(st.just("leave"), st.integers(1, 3)),
        st.tuples(st.just("reload"), files(**tables)),
    )


async def take(w: World, every: list[Server], step: str, what: object) -> None:
    """One thing that happens."""
    members = [member.name for member in w.proxy.pools["default"].members]
    match step, what:
        case "ask", int(count):
            with suppress(EOFError):  # an answer that is cut off
                await statuses(w, count)
        case "burst", int(count):
            with trio.fail_after(BURST_SECONDS):
                await all_at_once(count, lambda _: take(w, every, "ask", 1))
        case "sleep", int(milliseconds):
            await trio.sleep(milliseconds / 1000)
        case "fault", (number, fault):
            every[number].fault = fault
        case "status", (number, status):
            every[number].status = status
        case "refuse", int(number):
            w.net.refuse(NAMES[number])
        case "heal", int(number):
            w.net.heal(NAMES[number])
        case "drain", int(number) if NAMES[number] in members:
            w.proxy.pools["default"].drain(NAMES[number])
        case "undrain", int(number) if NAMES[number] in members:
            w.proxy.pools["default"].undrain(NAMES[number])
        case "leave", int(count):
            clients = [await w.client() for _ in range(count)]
            for client in clients:
                await client.send(GET)
            await trio.sleep(0.01)
            for client in clients:
                client.abort()
            await trio.testing.wait_all_tasks_blocked()
        case "reload", Settings():
            await w.reload(what)
