"""A start without DNS, or with a slow one: the proxy serves what it can and keeps asking."""

from __future__ import annotations

import pytest
import trio

from support.naming import (
    A_IP,
    APP,
    B_IP,
    HOST,
    OTHER,
    OTHER_HOST,
    SERVICE,
    NamedNet,
    found,
    hangs,
    named_settings,
    named_world,
    service,
    shown,
    told_of_dns,
    unknown,
)
from support.pools import A, B, ask, serve, statuses
from support.scenario import GET, ending, now_ms, only, refusal, until_ms
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.server.serving import open_proxy
from trio_proxy.settings import Dns, Retry

# A name that is not known


async def test_requests_say_that_dns_is_to_blame() -> None:
    """The proxy starts at once, and answers 502 with the error that RFC 9209 has for it."""
    async with named_world(NamedNet()) as w:
        assert now_ms() == 0
        client = await w.client()
        assert refusal(await client.ask(GET)) == (
            502,
            b"trio-proxy; error=dns_error",
            b"502 Bad Gateway: upstream name cannot be resolved (phase: connect)\n",
        )
        assert now_ms() == 0
    assert ending(w.exchanges[0]) == (502, Reason.DNS_ERROR, Source.UPSTREAM, Phase.CONNECT)
    assert [(one.upstream, one.outcome) for one in w.exchanges[0].tries] == [(APP, "dns_error")]


async def test_it_is_asked_for_each_second_until_it_is_found() -> None:
    """Then every refresh_ms; from then on the members are its addresses."""
    net = NamedNet()
    async with named_world(net) as w:
        serve(w)
        await until_ms(3500)
        assert shown(w) == [APP]
        assert await statuses(w, 2) == [502, 502]
        net.name(HOST, A_IP, B_IP)
        await until_ms(3999)
        assert shown(w) == [APP]
        await until_ms(4001)
        assert await ask(w, 4) == b"abab"
        assert shown(w) == [A, B]
        await until_ms(70_000)
        assert net.asked_at() == [0, 1000, 2000, 3000, 4000, 34_000, 64_000]


async def test_it_is_logged_once_and_once_when_found() -> None:
    """However often it was asked in vain."""
    net = NamedNet()
    async with named_world(net) as w:
        await until_ms(5500)
        assert told_of_dns(w) == [unknown(HOST)]
        net.name(HOST, A_IP)
        await until_ms(6001)
        assert told_of_dns(w)[1:] == [found(APP)]


async def test_found_at_the_first_repeat() -> None:
    """That is logged too, or the line that said otherwise would have the last word."""
    net = NamedNet()
    async with named_world(net) as w:
        net.name(HOST, A_IP)
        await until_ms(1001)
        assert told_of_dns(w)[1:] == [found(APP)]


async def test_a_short_period_is_kept() -> None:
    """refresh_ms of less than a second is for names that are not known as well."""
    net = NamedNet()
    async with named_world(net, dns=Dns(refresh_ms=300)):
        await until_ms(1000)
        assert net.asked_at() == [0, 300, 600, 900]


async def test_without_refreshes_it_is_asked_for_until_it_is_found() -> None:
    """refresh_ms = 0 is about names that were found."""
    net = NamedNet()
    async with named_world(net, dns=Dns(refresh_ms=0)) as w:
        serve(w)
        await until_ms(1500)
        net.name(HOST, A_IP)
        await until_ms(2001)
        assert await ask(w, 2) == b"aa"
        await until_ms(1_000_000)
        assert net.asked_at() == [0, 1000, 2000]


async def test_the_others_serve_meanwhile() -> None:
    """With retries no client sees that one of two names is unknown."""
    net = NamedNet()
    net.name(OTHER_HOST, B_IP)
    async with named_world(net, [APP, OTHER], retry=Retry()) as w:
        serve(w)
        assert await statuses(w, 5) == [200] * 5
        net.name(HOST, A_IP)
        await until_ms(1001)
        assert sorted(await ask(w, 4)) == list(b"aabb")
        assert shown(w) == [A, B]
    assert [one.outcome for one in w.exchanges[0].tries] == ["dns_error", "200"]


async def test_a_service_that_is_not_known_is_found_later() -> None:
    """Without any member requests are refused at once, and served as soon as there is one."""
    net = NamedNet(A_IP)
    async with named_world(net, [service()]) as w:
        serve(w)
        assert now_ms() == 0
        (answer,) = await statuses(w, 1)
        assert answer in (502, 503)
        assert now_ms() == 0
        net.service(SERVICE, (HOST, 9000, 0, 0))
        await until_ms(999)
        assert await statuses(w, 1) == [answer]
        await until_ms(1001)
        assert await ask(w, 2) == b"aa"
        assert shown(w) == [A]


# DNS that is slow


async def test_a_start_waits_for_the_first_answer() -> None:
    """So the first request finds all addresses there."""
    async with named_world(NamedNet(A_IP, B_IP, lookup_seconds=0.9)) as w:
        assert now_ms() == 900
        serve(w)
        assert await ask(w, 2) == b"ab"
        assert told_of_dns(w) == []


async def test_all_names_are_asked_for_at_the_same_time() -> None:
    """Ten names of 900 ms each take 900 ms."""
    net = NamedNet(lookup_seconds=0.9)
    names = [f"app{number}.test" for number in range(10)]
    for name in names:
        net.name(name, A_IP)
    async with named_world(net, [f"{name}:9000" for name in names]) as w:
        assert now_ms() == 900
        assert shown(w) == [A]


async def test_a_start_waits_for_a_second_at_most() -> None:
    """A name whose look-up hangs is a member by its name until it is found."""
    net = NamedNet(A_IP)
    net.stall_names()
    async with named_world(net, timeouts=only(connect_ms=300)) as w:
        assert now_ms() == 1000
        assert told_of_dns(w) == [hangs(APP)]
        assert shown(w) == [APP]
        serve(w)
        assert await statuses(w, 1) == [504]
        assert now_ms() == 1300
        await until_ms(5000)
        net.heal_names()
        await until_ms(5001)
        assert await ask(w, 2) == b"aa"
        assert shown(w) == [A]


async def test_a_name_that_hangs_does_not_hold_up_the_others() -> None:
    """What was found within the second is used from the start."""
    net = NamedNet(A_IP)
    net.name(OTHER_HOST, B_IP)
    net.stall_names(HOST)
    async with named_world(net, [APP, OTHER], timeouts=only(connect_ms=300), retry=Retry()) as w:
        assert now_ms() == 1000
        assert told_of_dns(w) == [hangs(APP)]
        assert shown(w) == [B, APP]
        serve(w)
        assert await ask(w, 2) == b"bb"


async def test_a_target_that_hangs_does_not_hold_up_those_of_its_service() -> None:
    """Of three servers two are found within the second, and are used."""
    net = NamedNet()
    for number, address in enumerate((A_IP, "10.1.0.9", B_IP)):
        net.name(f"host{number}.test", address)
    net.service(SERVICE, *[(f"host{number}.test", 9000, 0, 0) for number in range(3)])
    net.stall_names("host1.test")
    async with named_world(net, [service()]) as w:
        serve(w)
        assert sorted(await ask(w, 4)) == list(b"aabb")


async def test_a_request_that_waits_for_a_name_is_answered_when_it_is_found() -> None:
    """It was sent to the name, whose place the addresses take; that does not end it."""
    net = NamedNet(A_IP)
    net.stall_names()
    async with named_world(net) as w:
        serve(w)
        client = await w.client()
        await client.send(GET)
        await until_ms(3000)
        net.heal_names()
        assert (await client.read_response()).body == b"a"
        assert now_ms() == 3000
        await until_ms(3001)
        assert shown(w) == [A]


# A stop in the middle of it


@pytest.mark.parametrize("at_ms", [0, 1, 999, 1000])
async def test_a_start_that_is_cancelled_while_names_are_looked_up(at_ms: int) -> None:
    """Nothing was bound yet and nothing is left."""
    net = NamedNet(A_IP)
    net.stall_names()
    async with net:
        tasks = trio.lowlevel.current_statistics().tasks_living
        with trio.CancelScope(deadline=at_ms / 1000) as scope:
            async with open_proxy(named_settings(), network=net):
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert now_ms() == at_ms
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert net.open_listeners == net.open_streams == []


async def test_a_stop_while_a_name_is_looked_up() -> None:
    """A look-up that hangs delays no stop; `world` sees that nothing is left."""
    net = NamedNet(A_IP)
    async with named_world(net) as w:
        serve(w)
        assert await ask(w, 1) == b"a"
        net.stall_names()
        await until_ms(30_500)
    assert net.asked_at() == [0, 30_000]
    assert now_ms() == 30_500
