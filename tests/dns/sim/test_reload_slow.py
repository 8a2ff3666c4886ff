"""Reloads that have to ask DNS, while it is slow, or down, or answers in that moment."""

from __future__ import annotations

import pytest
import trio

from support.naming import (
    A_IP,
    APP,
    B_IP,
    C_IP,
    HOST,
    OTHER,
    OTHER_HOST,
    NamedNet,
    hangs,
    named_settings,
    named_world,
    shown,
    told_of_dns,
)
from support.pools import A, B, C, ask, serve, statuses
from support.scenario import GET, OK, connections, now_ms, only, until_ms
from support.world import upstream_settings
from trio_proxy.settings import Dns, Retry

#: Other servers to ask, though the simulated network knows but one.
OTHERS = Dns(nameservers=("10.0.0.53",))


@pytest.mark.parametrize("table", [OTHERS, Dns(refresh_ms=0)])
async def test_names_are_asked_for_again_if_nobody_else_does_so(table: Dns) -> None:
    """At a reload to other name servers, and at any without refreshes, as nginx has it."""
    net = NamedNet(A_IP)
    async with named_world(net) as w:
        serve(w)
        net.name(HOST, B_IP)
        await until_ms(500)
        await w.reload(named_settings(dns=table))
        assert net.asked_at() == [0, 500]
        assert await ask(w, 2) == b"bb"


@pytest.mark.parametrize("trouble", ["fail_names", "unname", "stall_names"])
async def test_names_that_are_asked_for_again_in_vain_keep_what_they_had(trouble: str) -> None:
    """The reload takes a second at most and brings no outage."""
    net = NamedNet(A_IP)
    async with named_world(net) as w:
        serve(w)
        getattr(net, trouble)(HOST)
        await w.reload(named_settings(dns=OTHERS))
        assert now_ms() == (1000 if trouble == "stall_names" else 0)
        assert await ask(w, 2) == b"aa"
        assert shown(w) == [A]
        assert len(told_of_dns(w)) == 1


# DNS that is slow or down


async def test_a_name_that_hangs_holds_up_the_reload_for_a_second() -> None:
    """Requests are answered all the time, by the old upstreams until then."""
    net = NamedNet(A_IP)
    net.name(OTHER_HOST, B_IP)
    net.stall_names(OTHER_HOST)
    async with named_world(net) as w:
        serve(w)
        times = []

        async def reload() -> None:
            await w.reload(named_settings([APP, OTHER], retry=Retry()))
            times.append(now_ms())

        await until_ms(500)
        w.helpers.start_soon(reload)
        for _ in range(99):
            await trio.sleep(0.01)
            assert await ask(w, 1) == b"a"
        assert now_ms() == 1490
        await until_ms(1501)
        assert times == [1500]
        assert told_of_dns(w) == [hangs(OTHER)]
        net.heal_names()
        await until_ms(2501)
        assert sorted(await ask(w, 4)) == list(b"aabb")
        assert shown(w) == [A, B]


async def test_a_known_name_is_not_waited_for() -> None:
    """With DNS down altogether a reload takes no time, and changes nothing of the members."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net) as w:
        serve(w)
        net.stall_names()
        await until_ms(500)
        await w.reload(named_settings([APP, C]))
        assert now_ms() == 500
        assert sorted(await ask(w, 6)) == list(b"aabbcc")


async def test_a_new_name_that_is_unknown() -> None:
    """The others serve, and it joins as soon as it is found."""
    net = NamedNet(A_IP)
    net.unname(OTHER_HOST)
    async with named_world(net) as w:
        serve(w)
        await w.reload(named_settings([APP, OTHER], retry=Retry()))
        assert now_ms() == 0
        assert await statuses(w, 4) == [200] * 4
        net.name(OTHER_HOST, B_IP)
        await until_ms(1001)
        assert sorted(await ask(w, 4)) == list(b"aabb")
        assert shown(w) == [A, B]


async def test_a_reload_that_is_given_up_changes_nothing() -> None:
    """Cancelled while it waits for DNS; the next one goes through."""
    net = NamedNet(A_IP)
    net.stall_names(OTHER_HOST)
    async with named_world(net) as w:
        serve(w)
        with trio.move_on_after(0.5) as scope:
            await w.reload(named_settings([OTHER]))
        assert scope.cancelled_caught
        assert now_ms() == 500
        assert await ask(w, 2) == b"aa"
        assert w.proxy.settings.upstreams == (upstream_settings(APP),)
        net.name(OTHER_HOST, B_IP)
        net.heal_names()
        await w.reload(named_settings([OTHER]))
        assert await ask(w, 2) == b"bb"


async def test_a_stop_while_a_reload_waits_for_dns() -> None:
    """The stop does not wait; `world` sees that nothing is left."""
    net = NamedNet(A_IP)
    net.stall_names(OTHER_HOST)
    async with named_world(net) as w:
        serve(w)
        w.helpers.start_soon(w.reload, named_settings([OTHER]))
        await trio.sleep(0.1)
    assert now_ms() == 100


async def test_a_refused_reload_leaves_names_alone() -> None:
    """An address that cannot be bound: neither members nor look-ups change."""
    net = NamedNet(A_IP)
    net.name(OTHER_HOST, B_IP)
    async with named_world(net) as w:
        serve(w)
        with pytest.raises(OSError, match="in use"):
            await w.reload(named_settings([OTHER], listen=["10.0.0.1:80", A]))
        assert await ask(w, 2) == b"aa"
        await until_ms(30_001)
        assert net.asked_at() == [0, 30_000]
        assert net.asked_at(OTHER_HOST) == [0]


# At the same moment


@pytest.mark.parametrize("seed", range(12))
async def test_a_reload_removes_a_name_in_the_moment_of_its_refresh(seed: int) -> None:
    """In whichever order it happens, the name is gone, and is looked up when it returns."""
    net = NamedNet(A_IP, seed=seed)
    net.name(OTHER_HOST, B_IP)
    async with named_world(net, [APP, OTHER]) as w:
        serve(w)
        net.name(OTHER_HOST, C_IP)
        await until_ms(30_000)
        await w.reload(named_settings())
        await until_ms(30_001)
        assert shown(w) == [A]
        net.name(OTHER_HOST, B_IP)
        await until_ms(35_000)
        await w.reload(named_settings([APP, OTHER]))
        assert sorted(await ask(w, 4)) == list(b"aabb")
        assert net.asked_at(OTHER_HOST)[-1] == 35_000


@pytest.mark.parametrize("seed", range(12))
async def test_an_address_goes_and_comes_by_reloads_at_once(seed: int) -> None:
    """Two reloads in a row, with requests under way: it is the same upstream as before."""
    net = NamedNet(A_IP, seed=seed)
    net.name(OTHER_HOST, B_IP)
    async with named_world(net, timeouts=only(drain_ms=1000)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        for names in ([OTHER], [APP], [OTHER], [APP, OTHER]):
            await w.reload(named_settings(names, timeouts=only(drain_ms=1000)))
        assert connections(w, 0) == (1, 0)
        await until_ms(5000)
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"
        assert shown(w) == [A, B]
