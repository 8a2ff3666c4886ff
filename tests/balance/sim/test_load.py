"""Policies that look at what upstreams have to do: least_conn and random_two."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from support.pools import Server, ask, serve, servers
from support.scenario import GET, only
from support.world import World, run, world
from trio_proxy.settings import Balance

LEAST = Balance(policy="least_conn")
RANDOM_TWO = Balance(policy="random_two")


async def hold(w: World, count: int) -> None:
    """Send so many requests, one after the other, and await no answer."""
    for _ in range(count):
        client = await w.client()
        await client.send(GET)
        await trio.sleep(0.001)


async def test_an_idle_pool_takes_turns_by_weight() -> None:
    """least_conn without load is smooth round robin."""
    tables = servers({"weight": 5}, {}, {})
    async with world(upstreams=tables, timeouts=only(), balance=LEAST) as w:
        serve(w)
        assert await ask(w, 14) == b"aabacaaaabacaa"


async def test_a_busy_upstream_is_avoided() -> None:
    """While one hangs on a request, the others share everything."""
    async with world(upstreams=3, timeouts=only(), balance=LEAST) as w:
        every = serve(w)
        every[0].fault = "hang"
        await hold(w, 1)
        every[0].fault = ""
        assert await ask(w, 6) == b"bcbcbc"
        assert [len(each.requests) for each in every] == [1, 3, 3]


async def test_requests_in_flight_are_weighed() -> None:
    """Of 12 that hang, weights 3, 2, 1 have 6, 4, 2."""
    tables = servers({"weight": 3}, {"weight": 2}, {})
    async with world(upstreams=tables, timeouts=only(), balance=LEAST) as w:
        every = serve(w)
        for each in every:
            each.fault = "hang"
        await hold(w, 12)
        assert [each.active for each in every] == [6, 4, 2]


async def test_an_upstream_that_is_ten_times_slower_gets_a_tenth() -> None:
    """Eight clients that ask without pause for a second: shares go by speed."""
    async with world(upstreams=2, timeouts=only(), balance=LEAST) as w:
        fast, slow = serve(w)
        fast.delay, slow.delay = 0.01, 0.1

        async def keep_asking() -> None:
            client = await w.client()
            while True:
                await client.ask(GET)

        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(keep_asking)
        assert (slow.most, fast.most) == (4, 4)
        assert 9 <= len(fast.requests) / len(slow.requests) <= 11


async def hold_at(w: World, every: list[Server], busiest: int, count: int) -> None:
    """Have one upstream hang on so many requests, the others on none."""
    names = [upstream.name for upstream in w.upstreams]
    for name in names:
        w.proxy.pools["default"].drain(name)
    w.proxy.pools["default"].undrain(names[busiest])
    every[busiest].fault = "hang"
    await hold(w, count)
    every[busiest].fault = ""
    for name in names:
        w.proxy.pools["default"].undrain(name)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 4), st.integers(0, 1), st.integers(1, 20))
def test_the_busiest_is_never_chosen(upstreams: int, busiest: int, count: int) -> None:
    """random_two compares two different ones, so it finds a better one each time."""

    async def main() -> None:
        async with world(upstreams=upstreams, timeouts=only(), balance=RANDOM_TWO) as w:
            every = serve(w)
            await hold_at(w, every, busiest, 1)
            await ask(w, count)
            assert len(every[busiest].requests) == 1
            assert sum(len(each.requests) for each in every) == 1 + count

    run(main)


async def test_random_choices_go_by_weight() -> None:
    """Of an idle pool with weights 9 and 1, the light one gets some, and far fewer than half."""
    tables = servers({"weight": 9}, {"weight": 1})
    async with world(upstreams=tables, timeouts=only(), balance=RANDOM_TWO) as w:
        every = serve(w)
        await ask(w, 400)
        assert 5 <= len(every[1].requests) <= 100


@pytest.mark.parametrize("policy", ["round_robin", "least_conn", "random_two", "ip_hash", "hash"])
async def test_every_policy_heeds_availability(policy: str) -> None:
    """An upstream that is out gets nothing, whatever the policy."""
    balance = Balance(policy=policy)
    async with world(upstreams=3, timeouts=only(), balance=balance) as w:
        every = serve(w)
        for number in (1, 2):
            w.proxy.pools["default"].drain(w.upstreams[number].name)
        assert await ask(w, 10) == b"a" * 10
        assert [len(each.requests) for each in every] == [10, 0, 0]
