"""The way back: an upstream that was taken out by failures is tried with one request."""

from __future__ import annotations

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from support.pools import A, B, Server, ask, is_up, send, serve, servers, statuses, told, tries
from support.scenario import now_ms, only, until_ms
from support.world import World, run, world
from trio_proxy.settings import Balance, Retry

TWO = servers({}, {}, fail_timeout_ms=2000)
DOWN = f"upstream {A} down: connection_reset (max_fails=1 within 2 s), not used for 2 s"
UP = f"upstream {A} up: a request succeeded"


async def take_out(w: World) -> tuple[Server, Server]:
    """Two upstreams of which the first has failed just now."""
    one, other = serve(w)
    one.fault = "reset"
    assert await statuses(w, 1) == [502]
    assert told(w) == [DOWN]
    return one, other


async def answers_to(w: World, requests: list[bytes]) -> list[bytes]:
    """The body that each of these requests gets."""
    return [await ask(w, 1, request) for request in requests]


async def test_it_is_left_alone_for_fail_timeout() -> None:
    """To the millisecond."""
    async with world(upstreams=TWO, timeouts=only()) as w:
        one, other = await take_out(w)
        one.fault = ""
        for at in (1, 1000, 1999):
            await until_ms(at)
            assert await ask(w, 2) == b"bb"
        await until_ms(2000)
        assert sorted(await ask(w, 4)) == sorted(b"aabb")
        assert [len(one.requests), len(other.requests)] == [3, 8]


async def test_a_trial_that_succeeds() -> None:
    """The upstream is in again at once, with a log line and the gauge."""
    async with world(upstreams=TWO, timeouts=only()) as w:
        one, _ = await take_out(w)
        one.fault = ""
        await until_ms(2500)
        assert not is_up(w, A)
        assert sorted(await ask(w, 2)) == sorted(b"ab")
        assert is_up(w, A)
        assert told(w) == [DOWN, UP]
        assert sorted(await ask(w, 2)) == sorted(b"ab")


async def test_one_request_at_a_time() -> None:
    """While the trial is under way all others go elsewhere, however many they are."""
    async with world(upstreams=TWO, timeouts=only()) as w:
        one, other = await take_out(w)
        one.fault, one.delay = "", 1.0
        await until_ms(3000)
        clients = await send(w, 10)
        assert (one.active, len(other.requests)) == (1, 9)
        answers = [(await client.read_response()).body for client in clients]
        assert sorted(answers) == [b"a"] + [b"b"] * 9
        assert is_up(w, A)
        await send(w, 10)
        assert one.active == 5


async def test_a_trial_that_fails() -> None:
    """Out for another fail_timeout from then on, then one more trial."""
    async with world(upstreams=TWO, timeouts=only()) as w:
        one, _ = await take_out(w)
        await until_ms(3000)
        assert sorted(await statuses(w, 10)) == [200] * 9 + [502]
        await until_ms(4999)
        assert await statuses(w, 4) == [200] * 4
        await until_ms(5000)
        assert sorted(await statuses(w, 10)) == [200] * 9 + [502]
        assert len(one.requests) == 3
        assert not is_up(w, A)
        assert told(w) == [DOWN, DOWN, DOWN]


async def test_one_failure_of_a_trial_is_enough() -> None:
    """max_fails is for those that are in."""
    tables = servers({"max_fails": 3}, {}, fail_timeout_ms=2000)
    async with world(upstreams=tables, timeouts=only()) as w:
        one, _ = serve(w)
        one.fault = "reset"
        assert sorted(await statuses(w, 6)) == [200] * 3 + [502] * 3
        await until_ms(2000)
        assert sorted(await statuses(w, 6)) == [200] * 5 + [502]
        assert len(one.requests) == 4


async def test_a_trial_whose_client_leaves() -> None:
    """It says nothing, so the very next request is the trial."""
    async with world(upstreams=TWO, timeouts=only()) as w:
        one, _ = await take_out(w)
        one.fault = "hang"
        await until_ms(3000)
        for _ in range(3):
            clients = await send(w, 3)
            assert one.active == 1
            for client in clients:
                client.abort()
            await trio.sleep(0.001)
        assert not is_up(w, A)
        one.fault = ""
        assert sorted(await ask(w, 2)) == sorted(b"ab")
        assert is_up(w, A)
        assert told(w) == [DOWN, UP]


async def test_a_trial_that_never_ends() -> None:
    """It bars others for fail_timeout, and no longer."""
    async with world(upstreams=TWO, timeouts=only()) as w:
        one, _ = await take_out(w)
        one.fault = "hang"
        await until_ms(3000)
        await send(w, 2)
        assert one.active == 1
        one.fault = ""
        await until_ms(4999)
        assert await ask(w, 2) == b"bb"
        await until_ms(5001)
        assert sorted(await ask(w, 2)) == sorted(b"ab")
        assert is_up(w, A)


async def test_a_trial_is_retried_elsewhere() -> None:
    """Nobody has to pay for it."""
    async with world(upstreams=TWO, timeouts=only(), retry=Retry()) as w:
        one, _ = serve(w)
        one.fault = "reset"
        for at in (0, 2000, 4000, 6000):
            await until_ms(at)
            assert await statuses(w, 4) == [200] * 4
        assert len(one.requests) == 4
        assert sorted(tries(w)) == sorted(["ab"] * 4 + ["b"] * 12)


async def test_a_request_from_before_that_succeeds_late() -> None:
    """It may have been answered before the failure, so it brings nobody back."""
    async with world(upstreams=TWO, timeouts=only()) as w:
        one, _ = serve(w)
        one.delay = 1.0
        early, _, late = await send(w, 3)
        one.delay, one.fault = 0.0, "reset"
        assert sorted(await statuses(w, 2)) == [200, 502]
        one.fault = ""
        assert (await early.read_response()).status == 200
        assert (await late.read_response()).status == 200
        assert not is_up(w, A)
        assert told(w) == [DOWN]


async def test_failures_from_before_say_nothing_new() -> None:
    """Ten requests that die together are one log line, and one ejection from the first on."""
    async with world(upstreams=TWO, timeouts=only()) as w:
        one, _ = serve(w)
        one.delay, one.fault = 1.0, "reset"
        clients = await send(w, 20)
        for client in clients:
            await client.read_response()
        assert now_ms() == 1018
        assert told(w) == [DOWN]
        one.delay, one.fault = 0.0, ""
        await until_ms(3000)
        assert sorted(await ask(w, 2)) == sorted(b"ab")


async def test_a_hashed_key_is_back_with_its_upstream() -> None:
    """The trial is a request whose key belongs there."""
    balance = Balance(policy="hash", key="uri")
    async with world(upstreams=TWO, timeouts=only(), balance=balance) as w:
        one, _ = serve(w)
        keys = [b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(8)]
        key = keys[(await answers_to(w, keys)).index(b"a")]
        one.fault = "reset"
        assert await statuses(w, 2, key) == [502, 200]
        one.fault = ""
        await until_ms(2000)
        assert await ask(w, 2, key) == b"aa"


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 1500), st.booleans()), min_size=1, max_size=30),
    st.integers(1, 3),
)
def test_it_is_never_asked_while_it_is_out(plan: list[tuple[int, bool]], max_fails: int) -> None:
    """Between "not used for 2 s" and the next trial lie two seconds, whatever happens."""

    async def main() -> None:
        tables = servers({"max_fails": max_fails}, {"max_fails": 0}, fail_timeout_ms=2000)
        async with world(upstreams=tables, timeouts=only()) as w:
            one, _ = serve(w)
            one.fields = b"Connection: close\r\n"  # else a pooled connection is tried first
            out_until = 0.0
            for pause, works in plan:
                await trio.sleep(pause / 1000)
                one.fault = "" if works else "reset"
                asked, lines = len(one.requests), len(told(w))
                await statuses(w, 2)
                assert len(one.requests) - asked == (now_ms() >= out_until)
                if any(" down: " in line for line in told(w)[lines:]):
                    out_until = now_ms() + 2000
                assert is_up(w, A) == (now_ms() >= out_until)
            assert is_up(w, B)

    run(main)
