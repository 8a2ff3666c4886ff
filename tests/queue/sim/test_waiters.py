"""Clients that leave the queue or bring a body, and whom it serves under each policy."""

from __future__ import annotations

import pytest

from support.crowd import NO_WAIT, Crowd, each_works, order, rejected, told
from support.pools import A, B, servers
from support.scenario import OK, how_it_ends, only, until_ms, upstream_errors
from support.world import world
from trio_proxy.http.errors import Reason
from trio_proxy.http.phases import Phase
from trio_proxy.settings import Balance, Limits

LONG = 60_000


# Leaving


@pytest.mark.parametrize("gone", [(1,), (2, 3), (4,), (1, 2, 3, 4)])
async def test_whoever_leaves_is_skipped(gone: tuple[int, ...]) -> None:
    """The others keep their order and lose no time; the upstream never hears of the one."""
    async with world(timeouts=only(), limits=NO_WAIT) as w:
        crowd = each_works(w)
        await crowd.come(*range(5))
        await until_ms(50)
        await crowd.leave(*gone)
        assert crowd.waiting == 4 - len(gone)
        await crowd.come(5)
        await until_ms(1000)
        stayed = [number for number in range(6) if number not in gone]
        assert told(crowd, *stayed) == [(200, 100 * n) for n in range(1, len(stayed) + 1)]
        assert order(w.upstreams[0]) == stayed
        assert len(w.upstreams[0].peers) == 1
    for number in gone:
        assert crowd.reason(number) is Reason.CLIENT_GONE
        assert crowd.exchange(number).tries == []
    assert w.proxy.stats.disconnects[Phase.PICK] == len(gone)
    assert (rejected(w), upstream_errors(w)) == ({}, {})


async def test_whoever_leaves_makes_room_in_a_full_queue() -> None:
    """At once: the next to come waits in its place."""
    limits = Limits(max_conns_per_upstream=1, queue_ms=0, max_queue=2)
    async with world(timeouts=only(), limits=limits) as w:
        crowd = each_works(w)
        await crowd.come(0, 1, 2, 3)
        await crowd.leave(1)
        await crowd.come(4)
        await until_ms(1000)
        assert told(crowd, 0, 2, 3, 4) == [(200, 100), (200, 200), (503, 0), (200, 300)]


async def test_a_client_that_closes_while_it_waits() -> None:
    """An end is a departure as much as a reset is, once the request has been there for a while."""
    async with world(timeouts=only(), limits=NO_WAIT) as w:
        crowd = each_works(w)
        await crowd.come(0, 1, 2)
        await until_ms(50)
        crowd.clients[1].close()
        await until_ms(51)
        assert crowd.waiting == 1
        await until_ms(1000)
        assert told(crowd, 0, 2) == [(200, 100), (200, 200)]
    assert crowd.reason(1) is Reason.CLIENT_GONE


# Bodies


async def test_a_body_waits_with_its_request() -> None:
    """It is not read before there is an upstream for it, nor does body_ms run; then it goes out."""
    async with world(timeouts=only(body_ms=200), limits=NO_WAIT) as w:
        crowd = Crowd(w)
        await crowd.come(0)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        client = await w.client()
        await client.send(b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf ")
        await until_ms(5000)
        assert crowd.waiting == 1
        await upstream.send(OK)
        await until_ms(5100)
        await client.send(b"a day")
        request = await upstream.read_request()
        assert (request.start, request.body) == (b"POST /1 HTTP/1.1", b"half a day")
        await upstream.send(OK)
        assert (await client.read_response()).status == 200
        await until_ms(6000)
        assert told(crowd, 0) == [(200, 5000)]


# Policies and backups


POLICIES = ["round_robin", "least_conn", "random_two", "ip_hash", "hash"]


@pytest.mark.parametrize("policy", POLICIES)
async def test_nobody_waits_while_an_upstream_has_room(policy: str) -> None:
    """Whatever the policy would prefer: ten requests, four places, three rounds in their order."""
    limits = Limits(max_conns_per_upstream=2, queue_ms=0)
    balance = Balance(policy=policy, key="uri")  # type: ignore[arg-type]
    async with world(upstreams=2, timeouts=only(), limits=limits, balance=balance) as w:
        crowd = each_works(w)
        await crowd.come(*range(10))
        assert crowd.waiting == 6
        await until_ms(1000)
        rounds = [100] * 4 + [200] * 4 + [300] * 2
        assert told(crowd, *range(10)) == [(200, at) for at in rounds]
        assert [len(upstream.peers) for upstream in w.upstreams] == [2, 2]


@pytest.mark.parametrize("policy", POLICIES)
async def test_the_queue_moves_with_whichever_upstream_is_free(policy: str) -> None:
    """One of two hangs: all who wait go to the other, in their order."""
    balance = Balance(policy=policy, key="uri")  # type: ignore[arg-type]
    async with world(upstreams=2, timeouts=only(), limits=NO_WAIT, balance=balance) as w:
        crowd = each_works(w)
        await crowd.come(0, 1, work=LONG)
        await crowd.come(*range(2, 8))
        await crowd.leave(0)
        await until_ms(1000)
        free = next(each for each in w.upstreams if 0 in order(each))
        assert order(free) == [0, *range(2, 8)]
        await crowd.leave(1)


async def test_a_backup_is_for_failures_and_not_for_a_crowd() -> None:
    """Busy primaries are waited for; the moment the last is out, the backup serves who waits."""
    tables = servers({"max_fails": 1}, {"max_fails": 1}, {"backup": True})
    async with world(upstreams=tables, timeouts=only(), limits=NO_WAIT) as w:
        crowd = each_works(w)
        await crowd.come(0, 1, work=LONG)
        await crowd.come(2)
        await until_ms(100)
        assert crowd.waiting == 1
        w.net.refuse(A)
        w.net.refuse(B)
        w.upstreams[0].peers[0].abort()
        await crowd.come(3)
        await until_ms(1000)
        ends = dict(zip(range(4), told(crowd, 0, 1, 2, 3), strict=True))
        assert ends[0] == (502, 100)
        assert order(w.upstreams[2]) == []
        w.upstreams[1].peers[0].abort()
        await until_ms(1500)
        assert told(crowd, 1, 2, 3) == [(502, 1000), (200, 1100), (200, 1200)]
        assert order(w.upstreams[2]) == [2, 3]


async def test_an_upstream_that_closes_its_connection_frees_the_place() -> None:
    """`Connection: close`, or an end while idle: the next one dials, within the cap."""
    async with world(timeouts=only(), limits=NO_WAIT) as w:
        crowd = Crowd(w)
        await crowd.come(0, 1, 2)
        for number in range(3):
            peer = await w.upstreams[0].accept()
            assert (await peer.read_request()).start == b"GET /%d HTTP/1.1" % number
            await peer.send(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            assert await how_it_ends(peer) == (b"", "eof")
        await until_ms(1)
        assert told(crowd, 0, 1, 2) == [(200, 0)] * 3
