"""Weights: nginx's interleaving, and what changes it while requests come."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from support.pools import A, B, C, ask, metric, serve, servers
from support.scenario import GET, only
from support.world import run, settings_for, world
from trio_proxy.settings import Balance

FIVE_ONE_ONE = ({"weight": 5}, {}, {})


@pytest.mark.parametrize("policy", ["round_robin", "weighted"])
async def test_the_turns_of_a_heavy_upstream_are_spread_out(policy: str) -> None:
    """Weights 5, 1, 1 give a a b a c a a, again and again; both names of the policy do."""
    balance = Balance(policy=policy)
    async with world(upstreams=servers(*FIVE_ONE_ONE), timeouts=only(), balance=balance) as w:
        every = serve(w)
        assert await ask(w, 14) == b"aabacaaaabacaa"
        assert [len(each.requests) for each in every] == [10, 2, 2]


async def test_the_turns_are_those_of_all_clients_together() -> None:
    """Seven clients at the same time share one round."""
    async with world(upstreams=servers(*FIVE_ONE_ONE), timeouts=only()) as w:
        every = serve(w)
        for each in every:
            each.delay = 1.0
        clients = [await w.client() for _ in range(7)]
        for client in clients:
            await client.send(GET)
            await trio.sleep(0.001)
        answers = [(await client.read_response()).body for client in clients]
        assert b"".join(answers) == b"aabacaa"


async def test_an_upstream_without_room_is_passed_over() -> None:
    """max_conns of each bounds it; its turns go to the others, and nobody waits."""
    async with world(upstreams=servers({"weight": 5, "max_conns": 2}, {}), timeouts=only()) as w:
        every = serve(w)
        for each in every:
            each.delay = 1.0
        clients = [await w.client() for _ in range(6)]
        for client in clients:
            await client.send(GET)
            await trio.sleep(0.001)
        assert (every[0].active, every[1].active) == (2, 4)
        assert w.proxy.pools["default"].queue_length == 0
        assert sorted([(await client.read_response()).body for client in clients]) == (
            [b"a"] * 2 + [b"b"] * 4
        )


async def test_a_weight_by_runtime_control() -> None:
    """`Pool.set_weight` holds from the next request on, and shows in the metrics."""
    async with world(upstreams=2, timeouts=only()) as w:
        serve(w)
        assert await ask(w, 4) == b"abab"
        w.proxy.pools["default"].set_weight(B, 3)
        assert sorted(await ask(w, 8)) == sorted(b"aabbbbbb")
        assert metric(w, "proxy_upstream_weight", B) == 3
        assert metric(w, "proxy_upstream_weight", A) == 1


async def test_a_weight_by_runtime_control_holds_until_a_reload() -> None:
    """The file has the last word."""
    async with world(upstreams=2, timeouts=only()) as w:
        serve(w)
        w.proxy.pools["default"].set_weight(B, 9)
        await w.reload(settings_for(2, timeouts=only()))
        assert sorted(await ask(w, 8)) == sorted(b"aaaabbbb")
        assert metric(w, "proxy_upstream_weight", B) == 1


@pytest.mark.parametrize("weight", [0, -1])
async def test_a_weight_that_is_none(weight: int) -> None:
    """ValueError, and nothing has changed."""
    async with world(upstreams=2, timeouts=only()) as w:
        serve(w)
        with pytest.raises(ValueError, match="expected at least 1"):
            w.proxy.pools["default"].set_weight(A, weight)
        assert await ask(w, 4) == b"abab"


async def test_runtime_control_of_an_upstream_that_there_is_not() -> None:
    """LookupError, which names the pool and the upstream."""
    async with world(upstreams=2, timeouts=only()) as w:
        pool = w.proxy.pools["default"]
        for order in (pool.drain, pool.undrain, lambda name: pool.set_weight(name, 2)):
            with pytest.raises(LookupError, match=rf"pool default has no upstream {C}"):
                order(C)
        serve(w)
        assert await ask(w, 4) == b"abab"


async def test_a_weight_by_reload() -> None:
    """It holds from the next request on, and connections are kept."""
    async with world(upstreams=2, timeouts=only()) as w:
        serve(w)
        assert await ask(w, 2) == b"ab"
        await w.reload(settings_for(servers({}, {"weight": 3}), timeouts=only()))
        assert sorted(await ask(w, 8)) == sorted(b"aabbbbbb")
        assert [len(upstream.peers) for upstream in w.upstreams] == [1, 1]


async def test_a_policy_by_reload() -> None:
    """The new one begins at once."""
    async with world(upstreams=2, timeouts=only()) as w:
        serve(w)
        assert await ask(w, 4) == b"abab"
        hashes = Balance(policy="ip_hash")
        await w.reload(settings_for(2, timeouts=only(), balance=hashes))
        assert await ask(w, 4) in (b"aaaa", b"bbbb")
        await w.reload(settings_for(2, timeouts=only()))
        assert await ask(w, 4) == b"abab"


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=5))
def test_every_round_is_divided_exactly(weights: list[int]) -> None:
    """In each row of as many requests as the weights add up to, everybody gets its weight."""

    async def main() -> None:
        tables = servers(*({"weight": weight} for weight in weights))
        async with world(upstreams=tables, timeouts=only()) as w:
            serve(w)
            for _ in range(3):
                answers = await ask(w, sum(weights))
                assert [answers.count(letter) for letter in b"abcde"[: len(weights)]] == weights

    run(main)
