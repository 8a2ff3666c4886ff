"""Requests that wait while upstreams come back: time alone can make room."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from support.conversation import Speaker
from support.pools import A, B, Server, is_up, serve, servers, statuses, told, tries
from support.scenario import GET, now_ms, only, until_ms
from support.world import World, run, world
from trio_proxy.settings import Balance, BreakerSettings, Limits

NARROW = servers({}, {}, max_conns=1, fail_timeout_ms=1000)
PATIENT = Limits(queue_ms=0)


async def one_out_one_busy(w: World) -> tuple[Server, Speaker]:
    """The first of two has just failed, the second is busy with a request for ever."""
    one, other = serve(w)
    one.fault, other.fault = "reset", "hang"
    assert await statuses(w, 1) == [502]
    one.fault = ""
    client = await w.client()
    await client.send(GET)
    await trio.sleep(0.001)
    assert other.active == 1
    return one, client


async def test_the_end_of_an_ejection() -> None:
    """Who waits is the trial, at that moment; the others follow when it has succeeded."""
    async with world(upstreams=NARROW, timeouts=only(), limits=PATIENT) as w:
        one, _ = await one_out_one_busy(w)
        one.delay = 0.1
        clients = [await w.client() for _ in range(3)]
        for client in clients:
            await client.send(GET)
            await trio.sleep(0.001)
        assert w.proxy.pools["default"].queue_length == 3
        for number, client in enumerate(clients):
            assert (await client.read_response()).body == b"a"
            assert now_ms() == 1100 + number * 100
        assert is_up(w, A)


async def test_a_trial_that_fails_leaves_the_others_waiting() -> None:
    """One of them a second."""
    async with world(upstreams=NARROW, timeouts=only(), limits=PATIENT) as w:
        one, _ = await one_out_one_busy(w)
        one.fault = "reset"
        clients = [await w.client() for _ in range(3)]
        for client in clients:
            await client.send(GET)
            await trio.sleep(0.001)
        for number, client in enumerate(clients):
            assert (await client.read_response()).status == 502
            assert now_ms() == 1000 + number * 1000
        assert len(one.requests) == 4


async def test_a_newcomer_at_the_end_of_an_ejection() -> None:
    """It waits its turn behind who waits already."""
    async with world(upstreams=NARROW, timeouts=only(), limits=PATIENT) as w:
        one, _ = await one_out_one_busy(w)
        early, late = await w.client(), await w.client()
        await early.send(GET.replace(b"/", b"/early", 1))
        await until_ms(1000)
        await late.send(GET.replace(b"/", b"/late", 1))
        await early.read_response()
        await late.read_response()
        assert now_ms() == 1000
        assert [request.start.split()[1] for request in one.requests] == [b"/", b"/early", b"/late"]


async def test_the_end_of_an_open_breaker() -> None:
    """Who waits is the first probe."""
    breaker = BreakerSettings(min_requests=1, open_ms=700, half_open_requests=1)
    tables = servers({}, {}, max_conns=1, max_fails=0)
    async with world(upstreams=tables, timeouts=only(), limits=PATIENT, breaker=breaker) as w:
        _, _ = await one_out_one_busy(w)
        client = await w.client()
        assert (await client.ask(GET)).body == b"a"
        assert now_ms() == 700
        assert told(w)[-1] == f"upstream {A}: breaker closed"


async def test_queue_ms_is_not_lengthened_by_it() -> None:
    """An ejection that ends too late helps nobody: 503 when the wait is over."""
    async with world(upstreams=NARROW, timeouts=only(), limits=Limits(queue_ms=500)) as w:
        one, _ = await one_out_one_busy(w)
        client = await w.client()
        assert (await client.ask(GET)).status == 503
        assert now_ms() == 501
        assert len(one.requests) == 1


async def test_undrain() -> None:
    """An upstream that is in use again takes who waits, at once."""
    async with world(upstreams=NARROW, timeouts=only(), limits=PATIENT) as w:
        one, other = serve(w)
        w.proxy.pools["default"].drain(A)
        other.fault = "hang"
        busy, client = await w.client(), await w.client()
        await busy.send(GET)
        await client.send(GET)
        await until_ms(300)
        assert w.proxy.pools["default"].queue_length == 1
        w.proxy.pools["default"].undrain(A)
        assert (await client.read_response()).body == b"a"
        assert now_ms() == 300
        assert len(one.requests) == 1


async def test_a_drain_of_the_upstream_that_is_waited_for() -> None:
    """Nobody is left to wait for: 503 at once."""
    async with world(upstreams=NARROW[:1], timeouts=only(), limits=PATIENT) as w:
        (server,) = serve(w)
        server.delay = 1.0
        busy, client = await w.client(), await w.client()
        await busy.send(GET)
        await trio.sleep(0.1)
        await client.send(GET)
        await trio.sleep(0.1)
        w.proxy.pools["default"].drain(A)
        refused = await client.read_response()
        assert (refused.status, refused[b"retry-after"], now_ms()) == (503, b"1", 200)
        assert (await busy.read_response()).status == 200


async def test_a_client_that_waits_for_its_own_upstream_holds_up_nobody() -> None:
    """Others find what is free elsewhere, also in the queue behind it."""
    sticky = Balance(sticky_cookie="route")
    async with world(upstreams=NARROW, timeouts=only(), limits=PATIENT, balance=sticky) as w:
        one, other = serve(w)
        async with await w.client() as client:
            cookie = (await client.ask(GET))[b"set-cookie"].partition(b";")[0]
        stuck = b"GET /stuck HTTP/1.1\r\nHost: a\r\nCookie: " + cookie + b"\r\n\r\n"
        one.delay, other.delay = 10.0, 1.0
        busy, *clients = [await w.client() for _ in range(6)]
        await busy.send(stuck)
        for number, client in enumerate(clients):
            await trio.sleep(0.01)
            await client.send(stuck if number % 2 == 0 else GET)
        for number in (1, 3):
            assert (await clients[number].read_response()).body == b"b"
        assert now_ms() == 2020
        assert w.proxy.pools["default"].queue_length == 3
        for number in (0, 2, 4):
            assert (await clients[number].read_response()).body == b"a"
        assert now_ms() == 40_000
        assert B not in {each.upstream for each in w.exchanges if each.target == "/stuck"}


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.lists(st.integers(0, 7000), min_size=1, max_size=5),
)
def test_nobody_waits_longer_than_there_is_need(out_at: int, length: int, plan: list[int]) -> None:
    """Each is answered as soon as it has come and the ejection is over, whatever the times."""

    async def main() -> None:
        tables = servers({}, {}, max_conns=1, fail_timeout_ms=length)
        async with world(upstreams=tables, timeouts=only(), limits=PATIENT) as w:
            await trio.sleep(out_at / 1000)
            await one_out_one_busy(w)
            began = now_ms() - 1

            async def ask_at(at: int) -> None:
                await trio.sleep(at / 1000)
                came = now_ms()
                client = await w.client()
                assert (await client.ask(GET)).body == b"a"
                assert now_ms() == pytest.approx(max(came, began + length), abs=0.001)

            async with trio.open_nursery() as nursery:
                for at in plan:
                    nursery.start_soon(ask_at, at)
            assert tries(w) == ["a"] * (1 + len(plan))

    run(main)
