"""A host name that has several addresses: each is a member of the pool in its own right."""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from support.naming import (
    A_IP,
    APP,
    B_IP,
    C_IP,
    OTHER,
    OTHER_HOST,
    NamedNet,
    named_world,
    shown,
)
from support.pools import A, B, C, ask, is_up, metric, serve, statuses, told, tries
from support.scenario import GET, member, now_ms, until_ms
from support.world import upstream_settings
from trio_proxy.settings import Balance, BreakerSettings, Health, Limits, Retry
from trio_proxy.telemetry.accesslog import access_text


async def test_every_address_gets_its_turn() -> None:
    """Three addresses are three upstreams, in logs and metrics known by address and port."""
    async with named_world(NamedNet(A_IP, B_IP, C_IP)) as w:
        serve(w)
        assert await ask(w, 6) == b"abcabc"
        assert shown(w) == [A, B, C]
        assert [metric(w, "proxy_upstream_requests_total", name) for name in (A, B, C)] == [2] * 3
    assert [each.upstream for each in w.exchanges] == [A, B, C] * 2
    assert f" upstream={B} " in access_text(w.exchanges[1])


async def test_the_name_is_asked_once_and_not_by_requests() -> None:
    """One question at the start serves every request until the next refresh."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net) as w:
        serve(w)
        net.fail_names()
        assert await ask(w, 10) == b"ababababab"
        assert net.asked_at() == [0]


async def test_each_has_a_cap_of_its_own() -> None:
    """max_conns = 2 of a name with two addresses is four connections; a fifth request waits."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net, [upstream_settings(APP, max_conns=2)]) as w:
        for each in serve(w):
            each.delay = 1
        clients = [await w.client() for _ in range(5)]
        for client in clients:
            await client.send(GET)
        await until_ms(500)
        assert [member(w, n).limiter.borrowed_tokens for n in (0, 1)] == [2, 2]
        assert w.proxy.pools["default"].queue_length == 1
        assert [(await client.read_response()).status for client in clients] == [200] * 5
        assert now_ms() == 2000


async def test_each_has_the_weight_of_the_name() -> None:
    """A name of weight 2 with two addresses against one of weight 1: two of five for each."""
    net = NamedNet(A_IP, B_IP)
    net.name(OTHER_HOST, C_IP)
    async with named_world(net, [upstream_settings(APP, weight=2), OTHER]) as w:
        serve(w)
        order = await ask(w, 50)
        assert [order.count(letter) for letter in (b"a", b"b", b"c")] == [20, 20, 10]
        assert [metric(w, "proxy_upstream_weight", name) for name in (A, B, C)] == [2, 2, 1]


async def test_each_has_a_health_of_its_own() -> None:
    """One of three addresses refuses: it is out, the two others are not."""
    async with named_world(NamedNet(A_IP, B_IP, C_IP)) as w:
        serve(w)
        w.net.refuse(B)
        assert await statuses(w, 6) == [200, 502, 200, 200, 200, 200]
        assert [is_up(w, name) for name in (A, B, C)] == [True, False, True]
        assert [line for line in told(w) if " down: " in line] == [
            f"upstream {B} down: connection_refused (max_fails=1 within 10 s), not used for 10 s"
        ]
    assert Counter(tries(w)) == {"a": 2, "b": 1, "c": 3}


async def test_a_retry_goes_to_another_address() -> None:
    """No client sees that one of the addresses is dead."""
    async with named_world(NamedNet(A_IP, B_IP), retry=Retry()) as w:
        serve(w)
        w.net.refuse(A)
        assert await statuses(w, 4) == [200] * 4
    assert tries(w) == ["ab", "b", "b", "b"]


async def test_a_name_with_one_address_is_never_taken_out() -> None:
    """It is a sole upstream, as one that was given by its address."""
    async with named_world(NamedNet(A_IP)) as w:
        serve(w)[0].fault = "reset"
        assert await statuses(w, 3) == [502] * 3
        assert is_up(w, A)
    assert tries(w) == ["a", "a", "a"]


async def test_each_has_a_breaker_of_its_own() -> None:
    """The one that answers 500 is left alone, the other goes on."""
    breaker = BreakerSettings(min_requests=2)
    async with named_world(NamedNet(A_IP, B_IP), breaker=breaker) as w:
        serve(w)[0].status = 500
        assert await statuses(w, 6) == [500, 200, 500, 200, 200, 200]
        state = "proxy_breaker_state"
        assert [metric(w, state, name, state="open") for name in (A, B)] == [1, 0]


async def test_each_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A health check goes to every address, and takes out the one that fails."""
    monkeypatch.setattr("random.random", lambda: 0.5)
    checks = Health(path="/up", interval_ms=1000, fall=1)
    async with named_world(NamedNet(A_IP, B_IP), health=checks) as w:
        every = serve(w)
        every[1].status = 500
        await until_ms(501)
        assert [len(each.requests) for each in every] == [1, 1, 0]
        assert [is_up(w, A), is_up(w, B)] == [True, False]
        assert await ask(w, 3) == b"aaa"


async def test_the_addresses_of_a_backup_are_backups() -> None:
    """Used while every address of the other name is out, and then in turn."""
    net = NamedNet(A_IP)
    net.name(OTHER_HOST, B_IP, C_IP)
    async with named_world(net, [APP, upstream_settings(OTHER, backup=True)]) as w:
        every = serve(w)
        assert await ask(w, 3) == b"aaa"
        every[0].fault = "reset"
        assert await statuses(w, 1) == [502]
        assert await ask(w, 4) == b"bcbc"


async def test_the_addresses_of_a_name_that_drains_all_drain() -> None:
    """``drain = true`` of a name keeps new requests from everybody behind it."""
    net = NamedNet(A_IP, B_IP)
    net.name(OTHER_HOST, C_IP)
    async with named_world(net, [upstream_settings(APP, drain=True), OTHER]) as w:
        serve(w)
        assert await ask(w, 4) == b"cccc"
        assert [metric(w, "proxy_upstream_draining", name) for name in (A, B, C)] == [1, 1, 0]


async def test_a_cookie_sticks_to_one_address() -> None:
    """Not to the name: whoever was sent to the second address stays there."""
    balance = Balance(sticky_cookie="srv")
    async with named_world(NamedNet(A_IP, B_IP), balance=balance) as w:
        serve(w)
        client = await w.client()
        await client.ask(GET)
        cookie = (await client.ask(GET))[b"set-cookie"].partition(b";")[0]
        assert (
            await ask(w, 4, b"GET / HTTP/1.1\r\nHost: a\r\nCookie: %s\r\n\r\n" % cookie) == b"bbbb"
        )


async def test_an_address_that_two_names_have_is_one_member() -> None:
    """With one share of the load, and the settings of the first name that has it."""
    net = NamedNet(A_IP, B_IP)
    net.name(OTHER_HOST, B_IP, C_IP)
    upstreams = [upstream_settings(APP, weight=2), upstream_settings(OTHER, max_conns=3)]
    async with named_world(net, upstreams) as w:
        serve(w)
        order = await ask(w, 50)
        assert [order.count(letter) for letter in (b"a", b"b", b"c")] == [20, 20, 10]
        caps = [member(w, number).limiter.total_tokens for number in range(3)]
        assert caps == [100, 100, 3]
        assert shown(w) == [A, B, C]


async def test_an_address_that_is_also_given_literally_is_one_member() -> None:
    """Wherever it stands in the file."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net, [upstream_settings(B, weight=5), APP]) as w:
        serve(w)
        assert sorted(await ask(w, 6)) == list(b"abbbbb")
        assert shown(w) == [A, B]


async def test_ipv6_addresses() -> None:
    """They are members beside those of IPv4, with brackets in their names."""
    six = "[fd00::1]:9000"
    async with named_world(NamedNet("fd00::1", B_IP), servers=[six, B]) as w:
        serve(w)
        assert await ask(w, 4) == b"abab"
        assert shown(w) == [B, six]
        assert metric(w, "proxy_upstream_requests_total", six) == 2


async def test_addresses_and_unix_sockets_are_never_looked_up() -> None:
    """Neither at the start nor later, so they need no DNS at all."""
    net = NamedNet()
    net.fail_names()
    places = [A, "[fd00::1]:9000", "unix:/run/app.sock"]
    async with named_world(net, places, servers=places) as w:
        serve(w)
        assert now_ms() == 0
        assert await ask(w, 3) == b"abc"
        await until_ms(100_000)
        assert net.lookups == []
        assert told(w) == []


async def test_a_queue_is_served_by_whichever_address_is_free_first() -> None:
    """All addresses of a name have one queue."""
    limits = Limits(max_conns_per_upstream=1, queue_ms=0)
    async with named_world(NamedNet(A_IP, B_IP), limits=limits) as w:
        one, two, _ = serve(w)
        one.delay, two.delay = 5, 0.1
        clients = [await w.client() for _ in range(4)]
        for client in clients:
            await client.send(GET)
            await trio.sleep(0.001)
        bodies = [(await client.read_response()).body for client in clients[1:]]
        assert bodies == [b"b", b"b", b"b"]
        assert (await clients[0].read_response()).body == b"a"
