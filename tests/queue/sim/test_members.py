"""Reloads, drains and moving names while requests wait for an upstream."""

from __future__ import annotations

from support.crowd import NO_WAIT, each_works, order, rejected, told
from support.pools import A, B, servers
from support.scenario import connections, ending, now_ms, only, until_ms
from support.world import settings_for, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.settings import Dns, Limits
from trio_proxy.testing import SimNet

LONG = 60_000


async def test_more_connections_by_reload_serve_as_many_at_once() -> None:
    """In the order in which they came; the rest goes on waiting."""
    async with world(timeouts=only(), limits=NO_WAIT) as w:
        crowd = each_works(w)
        await crowd.come(*range(6))
        await until_ms(50)
        three = Limits(max_conns_per_upstream=3, queue_ms=0)
        await w.reload(settings_for(timeouts=only(), limits=three))
        assert crowd.waiting == 3
        await until_ms(1000)
        assert told(crowd, *range(6)) == [(200, t) for t in (100, 150, 150, 200, 250, 250)]
    assert order(w.upstreams[0])[0] == 0
    assert sorted(order(w.upstreams[0])[1:3]) == [1, 2]


async def test_fewer_connections_by_reload_serve_nobody_until_the_new_cap_is_reached() -> None:
    """Two that end leave the one that is allowed; only its end lets a waiter go."""
    three = Limits(max_conns_per_upstream=3, queue_ms=0)
    async with world(timeouts=only(), limits=three) as w:
        crowd = each_works(w)
        for number, work in enumerate((100, 200, 300, 100, 100)):
            await crowd.come(number, work=work)
        await until_ms(50)
        await w.reload(settings_for(timeouts=only(), limits=NO_WAIT))
        await until_ms(250)
        assert connections(w) == (1, 0)
        assert crowd.waiting == 2
        await until_ms(1000)
        assert told(crowd, 2, 3, 4) == [(200, 300), (200, 400), (200, 500)]
        assert connections(w) == (0, 1)


async def test_another_upstream_by_reload_serves_at_once() -> None:
    """Those who waited for the one that hangs go to the new one, in their order."""
    async with world(timeouts=only(), limits=NO_WAIT) as w:
        await w.add_upstream(B)
        crowd = each_works(w)
        await crowd.come(0, work=LONG)
        await crowd.come(1, 2)
        await until_ms(30)
        await w.reload(settings_for(2, timeouts=only(), limits=NO_WAIT))
        await until_ms(1000)
        assert told(crowd, 0, 1, 2) == [None, (200, 130), (200, 230)]
        assert order(w.upstreams[1]) == [1, 2]
        await crowd.leave(0)


async def test_an_upstream_that_takes_the_place_of_the_other_serves_at_once() -> None:
    """What the old one is doing still ends there; who waits is not bound to it."""
    async with world(upstreams=[A], timeouts=only(drain_ms=500), limits=NO_WAIT) as w:
        await w.add_upstream(B)
        crowd = each_works(w)
        await crowd.come(0, work=400)
        await crowd.come(1, 2)
        await until_ms(10)
        await w.reload(settings_for([B], timeouts=only(drain_ms=500), limits=NO_WAIT))
        await until_ms(1000)
        assert told(crowd, 0, 1, 2) == [(200, 400), (200, 110), (200, 210)]
        assert (order(w.upstreams[0]), order(w.upstreams[1])) == ([0], [1, 2])


async def test_when_every_upstream_drains_by_reload_waiters_fail_at_once() -> None:
    """503 to those who wait and to those who come; what is under way ends well."""
    async with world(upstreams=servers({}, {}), timeouts=only(), limits=NO_WAIT) as w:
        crowd = each_works(w)
        await crowd.come(*range(4), work=500)
        await until_ms(20)
        draining = servers({}, {}, drain=True)
        await w.reload(settings_for(draining, timeouts=only(), limits=NO_WAIT))
        assert crowd.waiting == 0
        await until_ms(30)
        await crowd.come(4)
        await until_ms(1000)
        assert told(crowd, *range(5)) == [(200, 500), (200, 500), (503, 20), (503, 20), (503, 30)]
    assert ending(crowd.exchange(2)) == (503, Reason.NO_UPSTREAM, Source.PROXY, Phase.PICK)
    assert rejected(w) == {"no_upstream": 3}


async def test_when_the_last_upstream_is_drained_by_hand_waiters_fail_at_once() -> None:
    """`Pool.drain` leaves nobody to wait for; a drained one beside another leaves that."""
    async with world(upstreams=servers({}, {}), timeouts=only(), limits=NO_WAIT) as w:
        crowd = each_works(w)
        await crowd.come(*range(3), work=500)
        await until_ms(20)
        w.proxy.pools["default"].drain(A)
        assert crowd.waiting == 1
        w.proxy.pools["default"].drain(B)
        await until_ms(30)
        assert crowd.waiting == 0
        await crowd.come(3)
        await until_ms(1000)
        assert told(crowd, *range(4)) == [(200, 500), (200, 500), (503, 20), (503, 30)]
    assert crowd.reason(2) is Reason.NO_UPSTREAM


async def test_an_upstream_put_back_into_use_by_hand_serves_at_once() -> None:
    """`Pool.undrain`."""
    drained = servers({}, {"drain": True})
    async with world(upstreams=drained, timeouts=only(), limits=NO_WAIT) as w:
        crowd = each_works(w)
        await crowd.come(0, work=LONG)
        await crowd.come(1)
        await until_ms(40)
        w.proxy.pools["default"].undrain(B)
        await until_ms(200)
        assert told(crowd, 0, 1) == [None, (200, 140)]
        await crowd.leave(0)


async def test_a_name_that_moves_takes_its_waiters_along() -> None:
    """The new address serves those who waited for the old, from the look-up that finds it."""
    net = SimNet()
    net.name("app", "10.1.0.1")
    tables = {"timeouts": only(), "limits": NO_WAIT, "dns": Dns(refresh_ms=1000)}
    async with world(upstreams=["app:9000"], network=net, **tables) as w:
        old, new = await w.add_upstream(A), await w.add_upstream(B)
        crowd = each_works(w)
        await crowd.come(0, work=2000)
        await crowd.come(1, 2)
        net.name("app", "10.1.0.2")
        assert [member.name for member in w.proxy.pools["default"].members] == [A]
        await until_ms(3000)
        assert [member.name for member in w.proxy.pools["default"].members] == [B]
        assert told(crowd, 0)[0][0] in (200, 503)
        moved = crowd.ends[1][1] - 100
        assert told(crowd, 1, 2) == [(200, moved + 100), (200, moved + 200)]
        assert moved <= 1100
        assert (order(old), order(new)) == ([0], [1, 2])


async def test_a_drain_of_the_proxy_serves_who_waits_and_then_cuts() -> None:
    """Until drain_ms they are served in turn; then whoever is left gets 503 at once."""
    async with world(timeouts=only(drain_ms=250), limits=NO_WAIT) as w:
        crowd = each_works(w)
        await crowd.come(*range(5))
        await until_ms(50)
        await w.proxy.drain()
        assert now_ms() == 300
        assert crowd.waiting == 0
        await until_ms(301)
        answers = [(200, 100), (200, 200), (200, 300), (503, 300), (503, 300)]
        assert told(crowd, 0, 1, 3, 4) == [answers[n] for n in (0, 1, 3, 4)]
        assert crowd.ends[2] in (answers[2], (503, 300))
    assert crowd.reason(4) is Reason.SHUTTING_DOWN
    assert crowd.exchange(4).tries == []
