"""Reloads that add, remove and rename names, and those that leave them alone."""

from __future__ import annotations

import pytest

from support.naming import (
    A_IP,
    APP,
    B_IP,
    C_IP,
    HOST,
    OTHER,
    OTHER_HOST,
    SERVICE,
    NamedNet,
    found_again,
    named_settings,
    named_world,
    servfail,
    service,
    shown,
    told_of_dns,
)
from support.pools import A, B, C, ask, is_up, metric, serve, statuses, told
from support.scenario import GET, OK, connections, member, now_ms, until_ms
from support.world import upstream_settings
from trio_proxy.settings import Dns, Limits

EACH_SECOND = Dns(refresh_ms=1000)


async def test_a_name_that_is_added() -> None:
    """Its addresses are members from the end of the reload on."""
    net = NamedNet(A_IP)
    net.name(OTHER_HOST, B_IP, C_IP)
    async with named_world(net) as w:
        serve(w)
        assert await ask(w, 2) == b"aa"
        await until_ms(10_000)
        await w.reload(named_settings([APP, OTHER]))
        assert now_ms() == 10_000
        assert sorted(await ask(w, 6)) == list(b"aabbcc")
        await until_ms(70_001)  # just after: what comes in the same step may come later
        assert net.asked_at(OTHER_HOST) == [10_000, 40_000, 70_000]
        assert net.asked_at() == [0, 30_000, 60_000]


async def test_a_name_that_is_removed() -> None:
    """Its addresses are seen off, and it is not looked up any more."""
    net = NamedNet(A_IP)
    net.name(OTHER_HOST, B_IP)
    async with named_world(net, [APP, OTHER]) as w:
        serve(w)
        assert await ask(w, 2) == b"ab"
        await until_ms(10_000)
        await w.reload(named_settings())
        assert await ask(w, 2) == b"aa"
        await until_ms(70_000)
        assert shown(w) == [A]
        assert net.asked_at(OTHER_HOST) == [0]


async def test_a_name_that_returns_is_looked_up_anew() -> None:
    """What it was before it was removed counts for nothing."""
    net = NamedNet(A_IP)
    net.name(OTHER_HOST, B_IP)
    async with named_world(net, [APP, OTHER]) as w:
        serve(w)
        await w.reload(named_settings())
        net.name(OTHER_HOST, C_IP)
        await until_ms(5000)
        await w.reload(named_settings([APP, OTHER]))
        assert sorted(await ask(w, 4)) == list(b"aacc")
        assert net.asked_at(OTHER_HOST) == [0, 5000]


async def test_another_name_for_the_same_addresses() -> None:
    """Connections, requests under way and health are kept: they belong to the address."""
    net = NamedNet(A_IP, B_IP, C_IP)
    net.name(OTHER_HOST, C_IP, B_IP, A_IP)
    async with named_world(net) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        two, three = serve(w)[1:]
        two.fault = "reset"
        assert await statuses(w, 2) == [502, 200]
        await w.reload(named_settings([OTHER]))
        assert not is_up(w, B)
        assert connections(w, 0) == (1, 0)
        assert connections(w, 2) == (0, 1)
        assert metric(w, "proxy_upstream_requests_total", C) == 1
        await until_ms(5000)
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"
        assert [line for line in told(w) if "removed" in line] == []
        assert len(three.requests) == 1


@pytest.mark.parametrize(("before", "after"), [(A, APP), (APP, A)])
async def test_from_an_address_to_a_name_and_back(before: str, after: str) -> None:
    """It is the same upstream, with the same connection."""
    async with named_world(NamedNet(A_IP), [before]) as w:
        serve(w)
        await ask(w, 1)
        await w.reload(named_settings([after]))
        await ask(w, 1)
        assert len(w.upstreams[0].peers) == 1
        assert metric(w, "proxy_upstream_requests_total", A) == 2


async def test_from_a_name_to_a_service() -> None:
    """Those that both have stay as they are; the others come and go."""
    net = NamedNet(A_IP, B_IP)
    net.service(SERVICE, (B_IP, 9000, 0, 1), (C_IP, 9000, 0, 3))
    async with named_world(net) as w:
        serve(w)
        assert await ask(w, 2) == b"ab"
        await w.reload(named_settings([service()]))
        assert sorted(await ask(w, 8)) == list(b"bbcccccc")
        assert len(w.upstreams[1].peers) == 1
        assert shown(w) == [B, C]


async def test_the_name_gets_other_settings() -> None:
    """All of its addresses have them; it is not looked up for that."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net, [APP, C]) as w:
        serve(w)
        await w.reload(named_settings([upstream_settings(APP, weight=3, max_conns=5), C]))
        order = await ask(w, 70)
        assert [order.count(letter) for letter in (b"a", b"b", b"c")] == [30, 30, 10]
        assert [member(w, number).limiter.total_tokens for number in (0, 1)] == [5, 5]
        assert net.asked_at() == [0]


async def test_a_reload_of_something_else_leaves_the_refresh_alone() -> None:
    """Even one each 100 ms: the period neither starts anew nor is there a further question."""
    net = NamedNet(A_IP)
    async with named_world(net, dns=EACH_SECOND) as w:
        for number in range(1, 50):
            await until_ms(number * 100 - 50)
            await w.reload(named_settings(dns=EACH_SECOND, limits=Limits(max_queue=number)))
        assert net.asked_at() == [0, 1000, 2000, 3000, 4000]


async def test_what_dns_has_said_outlives_a_reload() -> None:
    """The members are those of the last refresh, not those of the start."""
    net = NamedNet(A_IP)
    async with named_world(net, dns=EACH_SECOND) as w:
        serve(w)
        net.name(HOST, B_IP, C_IP)
        await until_ms(1001)
        net.fail_names()
        await w.reload(named_settings(dns=EACH_SECOND, limits=Limits(max_queue=7)))
        assert sorted(await ask(w, 4)) == list(b"bbcc")
        assert shown(w) == [B, C]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (0, 2000, [0, 5500, 7500, 9500]),
        (1000, 0, [0, 1000, 2000, 3000, 3500]),
        (1000, 4000, [0, 1000, 2000, 3000, 7500]),
    ],
)
async def test_another_period(before: int, after: int, expected: list[float]) -> None:
    """It counts from the reload, at 3500 ms; with none a reload is all that asks again."""
    net = NamedNet(A_IP)
    async with named_world(net, dns=Dns(refresh_ms=before)) as w:
        await until_ms(3500)
        await w.reload(named_settings(dns=Dns(refresh_ms=after)))
        await until_ms(10_000)
        assert net.asked_at() == expected


async def test_another_period_in_a_failure() -> None:
    """The log still has one line for its beginning and one for its end."""
    net = NamedNet(A_IP)
    async with named_world(net, dns=EACH_SECOND) as w:
        net.fail_names()
        await until_ms(1500)
        await w.reload(named_settings(dns=Dns(refresh_ms=2000)))
        await until_ms(6000)
        net.heal_names()
        await until_ms(9000)
        assert told_of_dns(w) == [servfail(APP), found_again(APP)]
