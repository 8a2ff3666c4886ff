"""SRV records whose look-up fails, or that of the servers that they name."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from support.naming import (
    A_IP,
    B_IP,
    C_IP,
    HOST,
    OTHER_HOST,
    SERVICE,
    NamedNet,
    fails,
    found_again,
    named_world,
    servfail,
    service,
    shown,
    told_of_dns,
    unknown,
)
from support.pools import A, B, ask, is_up, metric, serve, statuses
from support.scenario import ending, member, now_ms, until_ms
from trio_proxy.http.errors import Reason
from trio_proxy.net.network import LookupFailed
from trio_proxy.settings import Dns, Retry

EACH_SECOND = Dns(refresh_ms=1000)


async def test_a_target_that_is_not_known_is_left_out_and_named() -> None:
    """The others serve; somebody has to be told, as else it is never missed."""
    net = NamedNet(A_IP)
    net.unname("gone.test")
    net.service(SERVICE, (HOST, 9000, 0, 0), ("gone.test", 9000, 0, 0))
    async with named_world(net, [service()], dns=EACH_SECOND) as w:
        serve(w)
        assert await ask(w, 2) == b"aa"
        await until_ms(5500)
        assert told_of_dns(w) == [unknown("gone.test")]


async def test_a_target_whose_look_up_fails_keeps_its_addresses() -> None:
    """One name server of many is away: nobody is seen off for that."""
    net = NamedNet(A_IP)
    net.name(OTHER_HOST, B_IP)
    net.service(SERVICE, (HOST, 9000, 0, 0), (OTHER_HOST, 9000, 0, 0))
    async with named_world(net, [service()], dns=EACH_SECOND) as w:
        serve(w)
        net.fail_names(OTHER_HOST)
        await until_ms(1001)
        assert sorted(await ask(w, 4)) == list(b"aabb")
        net.service(SERVICE, (OTHER_HOST, 9000, 0, 0), (C_IP, 9000, 0, 0))
        await until_ms(2001)
        assert sorted(await ask(w, 4)) == list(b"bbcc")


async def test_a_target_of_the_best_priority_that_fails_leaves_no_backups_alone() -> None:
    """It is still the primary by its old address."""
    net = NamedNet(A_IP)
    net.service(SERVICE, (HOST, 9000, 0, 0), (B_IP, 9000, 1, 0))
    async with named_world(net, [service()], dns=EACH_SECOND) as w:
        serve(w)
        net.fail_names(HOST)
        await until_ms(1001)
        assert await ask(w, 4) == b"aaaa"


async def test_targets_that_all_fail_are_all_kept() -> None:
    """One line for each says so, and one that it is over."""
    net = NamedNet(A_IP)
    net.name(OTHER_HOST, B_IP)
    net.service(SERVICE, (HOST, 9000, 0, 0), (OTHER_HOST, 9000, 0, 0))
    async with named_world(net, [service()], dns=EACH_SECOND) as w:
        serve(w)
        net.fail_names(HOST, OTHER_HOST)
        await until_ms(4500)
        assert await ask(w, 4) == b"abab"
        assert sorted(told_of_dns(w)) == [servfail(HOST), servfail(OTHER_HOST)]
        net.heal_names()
        await until_ms(5500)
        assert sorted(told_of_dns(w)[2:]) == [found_again(HOST), found_again(OTHER_HOST)]


async def test_a_service_whose_look_up_fails_is_kept() -> None:
    """With its ports, weights and priorities."""
    net = NamedNet()
    net.service(SERVICE, (A_IP, 9000, 0, 2), (B_IP, 9000, 0, 1), (C_IP, 9000, 1, 1))
    async with named_world(net, [service()]) as w:
        serve(w)
        net.fail_names(SERVICE)
        await until_ms(65_000)
        order = await ask(w, 9)
        assert (order.count(b"a"), order.count(b"b")) == (6, 3)
        assert told_of_dns(w) == [servfail(SERVICE)]


async def test_a_service_that_is_called_off_is_kept() -> None:
    """A record with the target "." says that there is none; those who serve are still asked."""
    net = NamedNet()
    net.service(SERVICE, (A_IP, 9000, 0, 0))
    async with named_world(net, [service()]) as w:
        serve(w)
        net.service(SERVICE, (".", 0, 0, 0))
        await until_ms(30_001)
        assert await ask(w, 2) == b"aa"
        why = f"{SERVICE}: its domain says there is no such service"
        assert told_of_dns(w) == [fails(SERVICE, why)]


async def test_a_name_without_a_service() -> None:
    """Nobody is behind it: requests are refused at once, with the reason in the log."""
    net = NamedNet()
    net.service(SERVICE, (".", 0, 0, 0))
    async with named_world(net, [service()], retry=Retry()) as w:
        assert await statuses(w, 1) == [503]
        assert now_ms() == 0
        assert "its domain says there is no such service" in told_of_dns(w)[0]
        assert shown(w) == []
    assert ending(w.exchanges[0])[:2] == (503, Reason.NO_UPSTREAM)
    assert w.exchanges[0].tries == []


async def test_each_server_of_a_service_has_its_own_cap_and_health() -> None:
    """As with addresses of a name."""
    net = NamedNet()
    net.service(SERVICE, (A_IP, 9000, 0, 0), (B_IP, 9000, 0, 0))
    async with named_world(net, [service(max_conns=3, max_fails=2)], retry=Retry()) as w:
        serve(w)
        assert [member(w, number).limiter.total_tokens for number in (0, 1)] == [3, 3]
        net.refuse(A)
        assert await statuses(w, 6) == [200] * 6
        assert [is_up(w, name) for name in (A, B)] == [False, True]
        assert metric(w, "proxy_upstream_requests_total", A) == 2


# Targets that are slow


async def test_targets_that_take_long_are_found_by_a_refresh() -> None:
    """900 ms for the service and again for its host: too long for the start, but not for that."""
    net = NamedNet(A_IP, lookup_seconds=0.9)
    net.service(SERVICE, (HOST, 9000, 0, 0))
    async with named_world(net, [service()]) as w:
        started_at = now_ms()
        assert started_at <= 1000
        serve(w)
        await until_ms(started_at + 1000 + 1800 + 1)
        assert shown(w) == [A]
        assert await ask(w, 2) == b"aa"


async def test_a_target_that_hangs_costs_no_more_than_the_second() -> None:
    """Answers of 300 ms each leave time enough for the other, whatever hangs beside it."""
    net = NamedNet(A_IP, lookup_seconds=0.3)
    net.service(SERVICE, (HOST, 9000, 0, 0), (OTHER_HOST, 9000, 0, 0))
    net.stall_names(OTHER_HOST)
    async with named_world(net, [service()]) as w:
        assert now_ms() <= 1000
        serve(w)
        assert await ask(w, 2) == b"aa"


class Patient(NamedNet):
    """Gives a look-up five seconds, as the real network does."""

    async def lookup(self, host: str) -> Sequence[str]:
        with trio.move_on_after(5):
            return await super().lookup(host)
        raise LookupFailed(f"cannot resolve {host}: no answer within 5 s")


async def test_a_target_that_hangs_in_a_refresh_keeps_its_addresses() -> None:
    """The others are known when it is given up, and it joins when it is found again."""
    net = Patient(A_IP)
    net.name(OTHER_HOST, B_IP)
    net.service(SERVICE, (HOST, 9000, 0, 0), (OTHER_HOST, 9000, 0, 0))
    async with named_world(net, [service()], dns=EACH_SECOND) as w:
        serve(w)
        net.stall_names(OTHER_HOST)
        net.name(HOST, C_IP)
        await until_ms(6001)
        assert sorted(await ask(w, 4)) == list(b"bbcc")
        net.name(OTHER_HOST, A_IP)
        net.heal_names()
        await until_ms(7001)
        assert sorted(await ask(w, 4)) == list(b"aacc")
        why = fails(OTHER_HOST, f"{OTHER_HOST}: no answer within 5 s")
        assert told_of_dns(w) == [why, found_again(OTHER_HOST)]


async def test_targets_that_are_no_longer_named_are_forgotten() -> None:
    """Containers have new names at each deployment: what is known must not grow with them."""
    net = NamedNet()
    async with named_world(net, [service()], dns=EACH_SECOND) as w:
        for number in range(100):
            name, gone = f"pod{number}.test", f"gone{number}.test"
            net.name(name, A_IP)
            net.unname(gone)
            net.service(SERVICE, (name, 9000, 0, 0), (gone, 9000, 0, 0))
            await trio.sleep(1)
        directory = w.proxy.pools["default"].directory
        known = [each for each in vars(directory).values() if hasattr(each, "__len__")]
        assert max(map(len, known)) <= 3
