"""Names are looked up again on a period: who has joined, and what happens when DNS fails."""

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
    named_world,
    shown,
)
from support.pools import A, B, ask, is_up, metric, serve, statuses, told
from support.scenario import GET, connections, now_ms, until_ms
from support.world import upstream_settings
from trio_proxy.settings import Dns, Health, Limits

# When


async def test_every_thirty_seconds() -> None:
    """The default of refresh_ms, counted from the start."""
    net = NamedNet(A_IP)
    async with named_world(net):
        await until_ms(100_000)
        assert net.asked_at() == [0, 30_000, 60_000, 90_000]


async def test_the_period_begins_when_an_answer_has_come() -> None:
    """Look-ups of 300 ms each every second: the next one a second after the last has ended."""
    net = NamedNet(A_IP, lookup_seconds=0.3)
    async with named_world(net, dns=Dns(refresh_ms=1000)):
        assert now_ms() == 300
        await until_ms(4000)
        assert net.asked_at() == [0, 1300, 2600, 3900]


async def test_never_again() -> None:
    """refresh_ms = 0: a name that was found at the start is not looked up any more."""
    net = NamedNet(A_IP)
    async with named_world(net, dns=Dns(refresh_ms=0)) as w:
        serve(w)
        net.name(HOST, B_IP)
        await until_ms(24 * 60 * 60 * 1000)
        assert net.asked_at() == [0]
        assert await ask(w, 2) == b"aa"


async def test_each_name_on_its_own() -> None:
    """A name that stalls does not hold up the refresh of another."""
    net = NamedNet(A_IP)
    net.name(OTHER_HOST, B_IP)
    async with named_world(net, [APP, OTHER], dns=Dns(refresh_ms=1000)) as w:
        serve(w)
        net.stall_names(HOST)
        net.name(OTHER_HOST, C_IP)
        await until_ms(3500)
        assert net.asked_at() == [0, 1000]
        assert net.asked_at(OTHER_HOST) == [0, 1000, 2000, 3000]
        assert await ask(w, 4) == b"acac"


async def test_two_ports_of_a_host_are_two_pools_of_addresses() -> None:
    """Each ``[[upstreams]]`` is looked up by itself, and its port goes with every address."""
    places = [f"{A_IP}:9000", f"{A_IP}:9001", f"{B_IP}:9000", f"{B_IP}:9001"]
    async with named_world(NamedNet(A_IP, B_IP), [APP, "app.test:9001"], servers=places) as w:
        serve(w)
        assert sorted(await ask(w, 4)) == list(b"abcd")
        assert shown(w) == places


# Who joins


async def test_a_new_address_gets_traffic_from_the_refresh_on() -> None:
    """Not a moment before; and it is in the metrics, with nothing on its account."""
    net = NamedNet(A_IP)
    async with named_world(net) as w:
        serve(w)
        net.name(HOST, A_IP, B_IP)
        await until_ms(29_999)
        assert await ask(w, 4) == b"aaaa"
        assert shown(w) == [A]
        await until_ms(30_001)
        assert shown(w) == [A, B]
        assert metric(w, "proxy_upstream_requests_total", B) == 0
        assert sorted(await ask(w, 4)) == list(b"aabb")
        assert is_up(w, B)
        assert told(w) == [f"upstream {B} added"]


async def test_a_new_address_starts_slowly() -> None:
    """Against one that was there before its share grows from 0.1 / 1.1 to a half."""
    net = NamedNet(A_IP)
    async with named_world(net, [upstream_settings(APP, slow_start_ms=10_000)]) as w:
        serve(w)
        net.name(HOST, A_IP, B_IP)
        await until_ms(30_000.001)
        assert (await ask(w, 110)).count(b"b") == pytest.approx(10, abs=1)
        await until_ms(35_000)
        assert (await ask(w, 150)).count(b"b") == pytest.approx(50, abs=1)
        await until_ms(40_000)
        assert (await ask(w, 100)).count(b"b") == pytest.approx(50, abs=1)


async def test_the_first_addresses_do_not_start_slowly() -> None:
    """At the start of the proxy there is nobody else who could take the load."""
    net = NamedNet(A_IP)
    net.name(OTHER_HOST, B_IP)
    upstreams = [APP, upstream_settings(OTHER, slow_start_ms=10_000)]
    async with named_world(net, upstreams) as w:
        serve(w)
        assert await ask(w, 6) == b"ababab"


async def test_an_address_that_stays_goes_on_with_its_slow_start() -> None:
    """Another newcomer, ten seconds later, does not start it anew."""
    net = NamedNet(A_IP)
    upstreams = [upstream_settings(APP, slow_start_ms=40_000)]
    async with named_world(net, upstreams, dns=Dns(refresh_ms=10_000)) as w:
        serve(w)
        net.name(HOST, A_IP, B_IP)
        await until_ms(15_000)
        net.name(HOST, A_IP, B_IP, C_IP)
        await until_ms(30_000)
        order = await ask(w, 200)
        # After 20 s b is at a half and after 10 s c is at a quarter.
        shares = [order.count(letter) for letter in (b"a", b"b", b"c")]
        assert shares == pytest.approx([1 / 1.75 * 200, 0.5 / 1.75 * 200, 0.25 / 1.75 * 200], abs=2)


async def test_those_who_wait_go_to_a_new_address_at_once() -> None:
    """The queue is served at the moment of the refresh."""
    net = NamedNet(A_IP)
    limits = Limits(max_conns_per_upstream=1, queue_ms=0)
    async with named_world(net, limits=limits) as w:
        every = serve(w)
        every[0].delay = 60
        first, second = await w.client(), await w.client()
        await first.send(GET)
        await trio.sleep(0.001)
        await second.send(GET)
        net.name(HOST, A_IP, B_IP)
        assert (await second.read_response()).body == b"b"
        assert now_ms() == 30_000
        assert (await first.read_response()).body == b"a"


async def test_a_new_address_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first time within one interval of the refresh."""
    monkeypatch.setattr("random.random", lambda: 0.5)
    net = NamedNet(A_IP)
    checks = Health(path="/up", interval_ms=1000, fall=1)
    async with named_world(net, health=checks) as w:
        every = serve(w)
        every[1].status = 500
        net.name(HOST, A_IP, B_IP)
        await until_ms(30_499)
        assert every[1].requests == []
        await until_ms(30_501)
        assert len(every[1].requests) == 1
        assert not is_up(w, B)
        assert await ask(w, 2) == b"aa"


async def test_an_answer_that_says_the_same_changes_nothing() -> None:
    """Also in another order: connections are kept, and nothing is logged."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net) as w:
        every = serve(w)
        await ask(w, 2)
        net.name(HOST, B_IP, A_IP)
        await until_ms(30_001)
        assert sorted(await ask(w, 2)) == list(b"ab")
        assert [connections(w, number) for number in (0, 1)] == [(0, 1), (0, 1)]
        assert [len(w.upstreams[number].peers) for number in (0, 1)] == [1, 1]
        assert [len(one.requests) for one in every] == [2, 2, 0]
        assert told(w) == []


# Health is kept


async def test_an_address_that_is_out_stays_out() -> None:
    """A refresh that brings others does not bring it back before fail_timeout_ms."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net, dns=Dns(refresh_ms=1000)) as w:
        every = serve(w)
        every[0].fault = "reset"
        assert await statuses(w, 2) == [502, 200]
        every[0].fault = ""
        net.name(HOST, A_IP, B_IP, C_IP)
        await until_ms(2000)
        assert sorted(await ask(w, 4)) == list(b"bbcc")
        await until_ms(9999)
        assert sorted(await ask(w, 4)) == list(b"bbcc")
        await until_ms(10_001)
        assert b"a" in await ask(w, 3)
        assert len(every[0].requests) == 2


async def test_a_drain_by_hand_outlives_a_refresh() -> None:
    """So does a weight by hand; only a reload sets them to what the file says."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net) as w:
        serve(w)
        w.proxy.pools["default"].drain(A)
        w.proxy.pools["default"].set_weight(B, 3)
        net.name(HOST, A_IP, B_IP, C_IP)
        await until_ms(30_001)
        assert sorted(await ask(w, 4)) == list(b"bbbc")
