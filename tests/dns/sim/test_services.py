"""SRV records: servers with ports, weights and priorities of their own (RFC 2782)."""

from __future__ import annotations

import trio

from support.naming import (
    A_IP,
    APP,
    B_IP,
    C_IP,
    HOST,
    OTHER_HOST,
    SERVICE,
    NamedNet,
    named_world,
    service,
    shown,
)
from support.pools import A, B, C, ask, is_up, metric, serve, statuses
from support.scenario import GET, OK, connections, now_ms, only, until_ms
from support.world import upstream_settings


async def test_every_record_has_its_own_port() -> None:
    """Two servers on one host and one on another are three members."""
    places = [f"{A_IP}:8001", f"{A_IP}:8002", f"{B_IP}:8003"]
    net = NamedNet(A_IP)
    net.name(OTHER_HOST, B_IP)
    net.service(SERVICE, (HOST, 8001, 0, 0), (HOST, 8002, 0, 0), (OTHER_HOST, 8003, 0, 0))
    async with named_world(net, [service()], servers=places) as w:
        serve(w)
        assert await ask(w, 6) == b"abcabc"
        assert shown(w) == places


async def test_a_target_with_several_addresses() -> None:
    """Each is a member, with the port and the weight of the record."""
    net = NamedNet(A_IP, B_IP)
    net.service(SERVICE, (HOST, 9000, 0, 2), (C_IP, 9000, 0, 1))
    async with named_world(net, [service()]) as w:
        serve(w)
        order = await ask(w, 50)
        assert [order.count(letter) for letter in (b"a", b"b", b"c")] == [20, 20, 10]


async def test_a_refresh_asks_for_the_service_and_its_hosts() -> None:
    """Each period; a target that is an address already needs no question."""
    net = NamedNet(A_IP)
    net.service(SERVICE, (HOST, 9000, 0, 0), (B_IP, 9000, 0, 0))
    async with named_world(net, [service()]) as w:
        serve(w)
        await ask(w, 4)
        await until_ms(60_001)
        assert net.lookups == [SERVICE, HOST] * 3
        assert net.asked_at(SERVICE) == net.asked_at(HOST) == [0, 30_000, 60_000]


# Weights


async def test_weights_share_the_load() -> None:
    """Nginx's interleaving, as if the weights stood in the file."""
    net = NamedNet()
    net.service(SERVICE, (A_IP, 9000, 0, 5), (B_IP, 9000, 0, 1), (C_IP, 9000, 0, 1))
    async with named_world(net, [service()]) as w:
        serve(w)
        assert await ask(w, 7) == b"aabacaa"
        assert [metric(w, "proxy_upstream_weight", name) for name in (A, B, C)] == [5, 1, 1]


async def test_a_weight_of_0_is_next_to_none() -> None:
    """It counts as 1, so that records without weights share equally."""
    net = NamedNet()
    net.service(SERVICE, (A_IP, 9000, 0, 9), (B_IP, 9000, 0, 0))
    async with named_world(net, [service()]) as w:
        serve(w)
        order = await ask(w, 20)
        assert (order.count(b"a"), order.count(b"b")) == (18, 2)


async def test_the_weight_of_the_table_multiplies() -> None:
    """A service of weight 2 against a server of weight 1: 6 and 2 of 9."""
    net = NamedNet()
    net.service(SERVICE, (A_IP, 9000, 0, 3), (B_IP, 9000, 0, 1))
    async with named_world(net, [service(weight=2), C]) as w:
        serve(w)
        order = await ask(w, 45)
        assert [order.count(letter) for letter in (b"a", b"b", b"c")] == [30, 10, 5]


async def test_a_weight_that_changes() -> None:
    """From the refresh on; connections and health stay, and so does a drain by hand."""
    net = NamedNet()
    net.service(SERVICE, (A_IP, 9000, 0, 1), (B_IP, 9000, 0, 1), (C_IP, 9000, 0, 1))
    async with named_world(net, [service(fail_timeout_ms=60_000)]) as w:
        every = serve(w)
        assert await ask(w, 3) == b"abc"
        w.proxy.pools["default"].drain(C)
        every[1].fault = "reset"
        assert sorted(await statuses(w, 2)) == [200, 502]
        net.service(SERVICE, (A_IP, 9000, 0, 3), (B_IP, 9000, 0, 2), (C_IP, 9000, 0, 4))
        await until_ms(30_001)
        assert [metric(w, "proxy_upstream_weight", name) for name in (A, B, C)] == [3, 2, 4]
        assert not is_up(w, B)
        assert [metric(w, "proxy_upstream_draining", name) for name in (A, B, C)] == [0, 0, 1]
        assert await ask(w, 4) == b"aaaa"
        assert len(w.upstreams[0].peers) == 1


# Priorities


async def test_other_priorities_are_backups() -> None:
    """Used when all those of the lowest number are out (as nginx has it)."""
    net = NamedNet()
    net.service(SERVICE, (A_IP, 9000, 10, 1), (B_IP, 9000, 20, 1), (C_IP, 9000, 30, 1))
    async with named_world(net, [service()]) as w:
        every = serve(w)
        assert await ask(w, 4) == b"aaaa"
        every[0].fault = "reset"
        assert await statuses(w, 1) == [502]
        assert sorted(await ask(w, 4)) == list(b"bbcc")


async def test_a_service_that_is_a_backup_is_one_as_a_whole() -> None:
    """Whatever the priorities of its records."""
    net = NamedNet()
    net.service(SERVICE, (A_IP, 9000, 0, 1), (B_IP, 9000, 1, 1))
    async with named_world(net, [service(backup=True), C]) as w:
        serve(w)
        assert await ask(w, 4) == b"cccc"
        w.proxy.pools["default"].drain(C)
        assert sorted(await ask(w, 4)) == list(b"aabb")


async def test_priorities_that_change() -> None:
    """The old primary is the backup from the refresh on; its request under way goes on."""
    net = NamedNet()
    net.service(SERVICE, (A_IP, 9000, 1, 1), (B_IP, 9000, 2, 1))
    async with named_world(net, [service()]) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        w.upstreams[1].serve(b"b")
        net.service(SERVICE, (A_IP, 9000, 3, 1), (B_IP, 9000, 2, 1))
        await until_ms(30_001)
        assert await ask(w, 3) == b"bbb"
        await until_ms(50_000)
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"
        assert connections(w, 0) == (0, 1)


# Changes


async def test_records_that_come_and_go() -> None:
    """A new one gets traffic, a removed one none; a request under way there has drain_ms."""
    net = NamedNet()
    net.service(SERVICE, (A_IP, 9000, 0, 1), (B_IP, 9000, 0, 1))
    async with named_world(net, [service()], timeouts=only(drain_ms=5000)) as w:
        client = await w.client()
        await client.send(GET)
        await (await w.upstreams[0].accept()).read_request()
        net.service(SERVICE, (B_IP, 9000, 0, 1), (C_IP, 9000, 0, 1))
        for upstream, body in zip(w.upstreams[1:], (b"b", b"c"), strict=True):
            upstream.serve(body)
        await until_ms(30_001)
        assert sorted(await ask(w, 4)) == list(b"bbcc")
        assert (await client.read_response()).status == 503
        assert now_ms() == 35_000
        await trio.sleep(0.001)
        assert shown(w) == [B, C]


async def test_a_port_that_changes() -> None:
    """Another port is another server; the old one is seen off."""
    net = NamedNet(A_IP)
    net.service(SERVICE, (HOST, 8001, 0, 0))
    places = [f"{A_IP}:8001", f"{A_IP}:8002"]
    async with named_world(net, [service()], servers=places) as w:
        serve(w)
        assert await ask(w, 2) == b"aa"
        net.service(SERVICE, (HOST, 8002, 0, 0))
        await until_ms(30_001)
        assert await ask(w, 2) == b"bb"
        assert shown(w) == places[1:]


async def test_an_address_of_a_target_that_changes() -> None:
    """The records are the same, but their hosts have moved."""
    net = NamedNet(A_IP)
    net.service(SERVICE, (HOST, 9000, 0, 0))
    async with named_world(net, [service()]) as w:
        serve(w)
        assert await ask(w, 2) == b"aa"
        net.name(HOST, B_IP)
        await until_ms(30_001)
        assert await ask(w, 2) == b"bb"


async def test_a_server_that_a_service_and_a_name_have_in_common() -> None:
    """It is one member, with the settings of the one that comes first in the file."""
    net = NamedNet(A_IP, B_IP)
    net.service(SERVICE, (A_IP, 9000, 0, 3), (C_IP, 9000, 0, 3))
    async with named_world(net, [upstream_settings(APP), service()]) as w:
        serve(w)
        order = await ask(w, 50)
        assert [order.count(letter) for letter in (b"a", b"b", b"c")] == [10, 10, 30]
