"""An upstream that is drained by order: it finishes what it has and gets nothing new."""

from __future__ import annotations

import pytest
import trio

from support.pools import A, B, ask, is_up, metric, serve, servers, statuses, told, tries
from support.scenario import GET, OK, SWITCH, UPGRADE, connections, now_ms, only, until_ms
from support.world import World, settings_for, world
from trio_proxy.settings import Balance, Health, Retry

DRAINED = servers({"drain": True}, {})
BOTH = servers({}, {})


def is_draining(w: World) -> bool:
    """What ``proxy_upstream_draining`` says of the first."""
    return metric(w, "proxy_upstream_draining", A) == 1


async def test_it_gets_no_new_requests() -> None:
    """From the next one on, until it is undrained; it is up all the while, as the log tells."""
    async with world(upstreams=2, timeouts=only()) as w:
        every = serve(w)
        assert await ask(w, 2) == b"ab"
        w.proxy.pools["default"].drain(A)
        assert is_draining(w)
        assert is_up(w, A)
        assert await ask(w, 6) == b"bbbbbb"
        w.proxy.pools["default"].undrain(A)
        assert not is_draining(w)
        assert sorted(await ask(w, 4)) == sorted(b"aabb")
        assert [len(each.requests) for each in every] == [3, 9]
        assert told(w) == [f"upstream {A} draining", f"upstream {A} in use again"]


async def test_orders_that_change_nothing() -> None:
    """Are not told twice."""
    async with world(upstreams=2, timeouts=only()) as w:
        serve(w)
        for _ in range(3):
            w.proxy.pools["default"].drain(A)
        for _ in range(3):
            w.proxy.pools["default"].undrain(A)
        w.proxy.pools["default"].undrain(B)
        assert told(w) == [f"upstream {A} draining", f"upstream {A} in use again"]


async def test_it_finishes_what_it_has() -> None:
    """However long that takes: a drain by order has no deadline."""
    async with world(upstreams=2, timeouts=only(drain_ms=500)) as w:
        client = await w.client()
        await client.send(GET)
        peer = await w.upstreams[0].accept()
        await peer.read_request()
        w.proxy.pools["default"].drain(A)
        await until_ms(60_000)
        await peer.send(OK)
        assert (await client.read_response()).body == b"ok"
        assert tries(w) == ["a"]


async def test_a_tunnel_goes_on() -> None:
    """Both ways, for as long as both sides like."""
    async with world(upstreams=2, timeouts=only()) as w:
        client = await w.client()
        await client.send(UPGRADE)
        peer = await w.upstreams[0].accept()
        await peer.read_request()
        await peer.send(SWITCH)
        await client.read_head()
        w.proxy.pools["default"].drain(A)
        await until_ms(10_000)
        await client.send(b"to")
        assert await peer.receive_exactly(2) == b"to"
        await peer.send(b"fro")
        assert await client.receive_exactly(3) == b"fro"
        client.close()
        peer.close()


async def test_by_reload_and_back() -> None:
    """``drain = true`` in the file is the same order, and the log tells it the same way."""
    async with world(upstreams=BOTH, timeouts=only()) as w:
        serve(w)
        assert await ask(w, 2) == b"ab"
        await w.reload(settings_for(DRAINED, timeouts=only()))
        assert is_draining(w)
        assert await ask(w, 4) == b"bbbb"
        await w.reload(settings_for(BOTH, timeouts=only()))
        assert not is_draining(w)
        assert sorted(await ask(w, 4)) == sorted(b"aabb")
        assert told(w) == [f"upstream {A} draining", f"upstream {A} in use again"]


async def test_from_the_start() -> None:
    """An upstream that begins drained gets its first request after it was undrained."""
    async with world(upstreams=DRAINED, timeouts=only()) as w:
        serve(w)
        assert is_draining(w)
        assert await ask(w, 4) == b"bbbb"
        w.proxy.pools["default"].undrain(A)
        assert sorted(await ask(w, 4)) == sorted(b"aabb")


async def test_the_file_has_the_last_word() -> None:
    """A reload undoes an order of which the file says nothing, and one that it contradicts."""
    async with world(upstreams=BOTH, timeouts=only()) as w:
        serve(w)
        w.proxy.pools["default"].drain(A)
        await w.reload(settings_for(BOTH, timeouts=only()))
        assert sorted(await ask(w, 4)) == sorted(b"aabb")
        await w.reload(settings_for(DRAINED, timeouts=only()))
        w.proxy.pools["default"].undrain(A)
        await w.reload(settings_for(DRAINED, timeouts=only()))
        assert await ask(w, 4) == b"bbbb"


async def test_its_stuck_clients_stay_by_reload_too() -> None:
    """New clients go elsewhere."""
    sticky = Balance(sticky_cookie="route")
    async with world(upstreams=BOTH, timeouts=only(), balance=sticky) as w:
        serve(w)
        async with await w.client() as client:
            cookie = (await client.ask(GET))[b"set-cookie"].partition(b";")[0]
            await w.reload(settings_for(DRAINED, timeouts=only(), balance=sticky))
            stuck = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: " + cookie + b"\r\n\r\n"
            for _ in range(3):
                answer = await client.ask(stuck)
                assert answer.body == b"a"
                assert b"set-cookie" not in answer
                assert (await client.ask(GET)).body == b"b"


async def test_it_is_no_target_of_a_retry() -> None:
    """Rather the same upstream once more than one that is drained."""
    async with world(upstreams=2, timeouts=only(), retry=Retry()) as w:
        one, other = serve(w)
        w.proxy.pools["default"].drain(A)
        other.fault = "reset"
        assert await statuses(w, 2) == [502, 502]
        assert tries(w) == ["bb", "bb"]
        assert len(one.requests) == 0


async def test_its_idle_connections_are_let_go_in_time() -> None:
    """They serve nobody any more; upstream_idle_ms closes them as ever."""
    async with world(upstreams=2, timeouts=only(upstream_idle_ms=5000)) as w:
        serve(w)
        await ask(w, 2)
        w.proxy.pools["default"].drain(A)
        await until_ms(4999)
        assert connections(w, 0) == (0, 1)
        await until_ms(5001)
        assert connections(w, 0) == (0, 0)


async def test_its_health_is_still_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it is known when it is undrained."""
    monkeypatch.setattr("random.random", lambda: 0.5)
    checks = Health(path="/up", interval_ms=1000, fall=1)
    async with world(upstreams=2, timeouts=only(), health=checks) as w:
        one, _ = serve(w)
        w.proxy.pools["default"].drain(A)
        one.status = 500
        await until_ms(600)
        assert not is_up(w, A)
        w.proxy.pools["default"].undrain(A)
        assert await ask(w, 3) == b"bbb"


async def test_a_trial_under_way_when_it_is_drained() -> None:
    """Its success counts, and shows when the drain is over."""
    async with world(upstreams=servers({}, {}, fail_timeout_ms=1000), timeouts=only()) as w:
        one, _ = serve(w)
        one.fault = "reset"
        assert await statuses(w, 1) == [502]
        one.fault, one.delay = "", 0.5
        await until_ms(1000)
        clients = [await w.client() for _ in range(2)]
        for client in clients:
            await client.send(GET)
        await trio.sleep(0.1)
        assert one.active == 1
        w.proxy.pools["default"].drain(A)
        for client in clients:
            assert (await client.read_response()).status == 200
        assert is_up(w, A)
        assert await ask(w, 2) == b"bb"
        w.proxy.pools["default"].undrain(A)
        assert sorted(await ask(w, 2)) == sorted(b"ab")


async def test_removal_after_a_drain() -> None:
    """The way to take a server away without a failure: drain, wait until it is idle, remove."""
    async with world(upstreams=BOTH, timeouts=only(drain_ms=100)) as w:
        one, _ = serve(w)
        one.delay = 3.0
        client = await w.client()
        await client.send(GET)
        await trio.sleep(0.1)
        await w.reload(settings_for(DRAINED, timeouts=only(drain_ms=100)))
        assert connections(w, 0) == (1, 0)
        assert (await client.read_response()).body == b"a"
        assert now_ms() == 3000
        assert connections(w, 0) == (0, 1)
        await w.reload(settings_for([B], timeouts=only(drain_ms=100)))
        await trio.sleep(0.001)
        assert ("default", A) not in w.proxy.stats.upstreams
        assert await ask(w, 2) == b"bb"
        assert told(w)[-1] == f"upstream {A} removed, 0 exchanges left"
