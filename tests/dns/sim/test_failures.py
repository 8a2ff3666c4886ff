"""DNS that fails while the proxy runs: nobody but the log notices."""

from __future__ import annotations

from support.naming import (
    A_IP,
    APP,
    B_IP,
    C_IP,
    HOST,
    OTHER,
    OTHER_HOST,
    NamedNet,
    fails,
    found_again,
    named_settings,
    named_world,
    servfail,
    told_of_dns,
)
from support.pools import A, B, ask, is_up, serve, statuses
from support.scenario import now_ms, only, until_ms
from trio_proxy.settings import Dns, Limits, Retry


async def test_a_failure_keeps_what_was_known() -> None:
    """Requests go on as if nothing had happened; it is logged once, and once when it is over."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net, dns=Dns(refresh_ms=1000)) as w:
        serve(w)
        net.fail_names()
        await until_ms(5500)
        assert told_of_dns(w) == [servfail(APP)]
        assert await ask(w, 4) == b"abab"
        net.name(HOST, B_IP, C_IP)
        net.heal_names()
        await until_ms(8500)
        assert told_of_dns(w) == [servfail(APP), found_again(APP)]
        assert sorted(await ask(w, 4)) == list(b"bbcc")
        assert net.asked_at() == [second * 1000 for second in range(9)]


async def test_a_name_that_is_deleted_is_kept_too() -> None:
    """NXDOMAIN is no reason to have nobody, as it may be a mistake of a minute."""
    net = NamedNet(A_IP)
    async with named_world(net) as w:
        serve(w)
        net.unname(HOST)
        await until_ms(95_000)
        assert await ask(w, 2) == b"aa"
        assert told_of_dns(w) == [fails(APP, "app.test: there is no such name")]


async def test_another_failure_is_logged_again() -> None:
    """Once for each time that it begins."""
    net = NamedNet(A_IP)
    async with named_world(net, dns=Dns(refresh_ms=1000)) as w:
        for second in (1, 3):
            await until_ms(second * 1000 - 500)
            net.fail_names()
            await until_ms(second * 1000 + 500)
            net.heal_names()
        await until_ms(5500)
        assert told_of_dns(w) == [servfail(APP), found_again(APP)] * 2


async def test_a_failure_is_logged_for_each_name() -> None:
    """Which one it is stands in the line."""
    net = NamedNet(A_IP)
    net.name(OTHER_HOST, B_IP)
    async with named_world(net, [APP, OTHER]) as w:
        net.fail_names()
        await until_ms(30_001)
        assert sorted(told_of_dns(w)) == [servfail(APP), servfail(OTHER)]


async def test_a_failure_is_not_in_the_way_of_health() -> None:
    """What DNS cannot tell is no fault of an upstream, and an upstream's no fault of DNS."""
    net = NamedNet(A_IP, B_IP)
    async with named_world(net, dns=Dns(refresh_ms=1000), retry=Retry()) as w:
        serve(w)
        net.fail_names()
        await until_ms(1500)
        net.refuse(A)
        assert await statuses(w, 4) == [200] * 4
        assert [is_up(w, A), is_up(w, B)] == [False, True]
        net.heal(A)
        await until_ms(11_501)
        assert await statuses(w, 4) == [200] * 4
        assert is_up(w, A)


async def test_a_refresh_that_hangs_holds_up_nobody() -> None:
    """Requests are answered at once meanwhile; the answer counts when it comes."""
    net = NamedNet(A_IP)
    async with named_world(net) as w:
        serve(w)
        net.stall_names()
        await until_ms(70_000)
        assert await ask(w, 4) == b"aaaa"
        assert now_ms() == 70_000
        net.name(HOST, B_IP)
        net.heal_names()
        await until_ms(70_001)
        assert await ask(w, 4) == b"bbbb"
        await until_ms(100_001)
        assert net.asked_at() == [0, 30_000, 100_000]


async def test_a_reload_in_a_failure_says_no_more() -> None:
    """What it does not change goes on: one line when DNS fails, one when it is found again."""
    net = NamedNet(A_IP)
    async with named_world(net) as w:
        net.fail_names()
        await until_ms(31_000)
        await w.reload(named_settings(limits=Limits(max_queue=7)))
        await until_ms(61_000)
        net.heal_names()
        await until_ms(91_000)
        assert told_of_dns(w) == [servfail(APP), found_again(APP)]


async def test_an_internal_error_ends_neither_the_proxy_nor_the_refresh() -> None:
    """It is logged, and a second later the refresh begins anew."""

    class Broken(NamedNet):
        broken = False

        async def lookup(self, host: str) -> list[str]:
            if self.broken:
                self.broken = False
                raise RuntimeError("a fault of ours")
            return list(await super().lookup(host))

    net = Broken(A_IP)
    async with named_world(net, timeouts=only(), errors_in_log=True) as w:
        serve(w)
        net.broken = True
        net.name(HOST, B_IP)
        await until_ms(30_001)
        assert await ask(w, 2) == b"aa"
        await until_ms(61_001)
        assert await ask(w, 2) == b"bb"
        assert w.messages(40) == ["internal error in the background"]
