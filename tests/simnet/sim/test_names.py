"""SimNet: names, services, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from trio_proxy.net.network import LookupFailed, ServiceRecord
from trio_proxy.testing import SimNet

SERVICE = "_http._tcp.app.test"

# What DNS knows


async def test_a_host_without_a_name_is_its_own_address(autojump_clock: MockClock) -> None:
    """So a test that does not care about DNS need not set it up."""
    assert await SimNet().lookup("app.test") == ["app.test"]


async def test_a_name_has_its_addresses_in_their_order(autojump_clock: MockClock) -> None:
    """They come as they were given."""
    net = SimNet()
    net.name("app.test", "10.1.0.2", "10.1.0.1", "fd00::1")
    assert await net.lookup("app.test") == ["10.1.0.2", "10.1.0.1", "fd00::1"]


async def test_a_name_that_is_given_again_has_the_new_addresses_only(
    autojump_clock: MockClock,
) -> None:
    """What it had before is forgotten."""
    net = SimNet()
    net.name("app.test", "10.1.0.1", "10.1.0.2")
    net.name("app.test", "10.1.0.3")
    assert await net.lookup("app.test") == ["10.1.0.3"]


async def test_a_name_that_is_taken_away_cannot_be_resolved(autojump_clock: MockClock) -> None:
    """Until it is given again."""
    net = SimNet()
    net.name("app.test", "10.1.0.1")
    net.unname("app.test")
    with pytest.raises(LookupFailed, match=r"cannot resolve app\.test: there is no such name"):
        await net.lookup("app.test")
    net.name("app.test", "10.1.0.2")
    assert await net.lookup("app.test") == ["10.1.0.2"]


async def test_a_service_has_its_records(autojump_clock: MockClock) -> None:
    """Host, port, priority and weight."""
    net = SimNet()
    net.service(SERVICE, ("10.1.0.1", 9000, 0, 5), ServiceRecord("b.test", 9001, 1, 0))
    assert await net.lookup_service(SERVICE) == [
        ServiceRecord(host="10.1.0.1", port=9000, priority=0, weight=5),
        ServiceRecord(host="b.test", port=9001, priority=1, weight=0),
    ]


async def test_a_service_that_nobody_set_cannot_be_resolved(autojump_clock: MockClock) -> None:
    """Unlike a host, it cannot stand for itself."""
    with pytest.raises(LookupFailed, match="it has no SRV records"):
        await SimNet().lookup_service(SERVICE)


async def test_a_single_dot_says_that_there_is_no_such_service(autojump_clock: MockClock) -> None:
    """RFC 2782, Target."""
    net = SimNet()
    net.service(SERVICE, (".", 0, 0, 0))
    with pytest.raises(LookupFailed, match="there is no such service"):
        await net.lookup_service(SERVICE)


def test_a_name_for_nothing_is_a_mistake() -> None:
    """The message names the method that was meant."""
    with pytest.raises(ValueError, match="unname"):
        SimNet().name("app.test")
    with pytest.raises(ValueError, match="unname"):
        SimNet().service(SERVICE)


# Look-ups


async def test_every_lookup_is_counted(autojump_clock: MockClock) -> None:
    """In order, those that fail included; an IP literal needs none."""
    net = SimNet()
    net.unname("gone.test")
    net.service(SERVICE, ("10.1.0.1", 80, 0, 0))
    await net.lookup("app.test")
    with pytest.raises(LookupFailed):
        await net.lookup("gone.test")
    await net.lookup_service(SERVICE)
    assert await net.lookup("10.1.0.1") == ["10.1.0.1"]
    assert net.lookups == ["app.test", "gone.test", SERVICE]


async def test_a_lookup_takes_the_time_it_was_given(autojump_clock: MockClock) -> None:
    """The time may be changed."""
    net = SimNet(lookup_seconds=2)
    start = trio.current_time()
    await net.lookup("app.test")
    net.lookup_seconds = 3
    await net.lookup("app.test")
    assert trio.current_time() - start == 5


# Faults


@pytest.mark.parametrize("names", [(), ("app.test", SERVICE)])
async def test_names_that_stall_hang_until_they_are_healed(
    names: tuple[str, ...], autojump_clock: MockClock
) -> None:
    """Then they are answered by what is known at that time."""
    net = SimNet()
    net.service(SERVICE, ("10.1.0.1", 80, 0, 0))
    net.stall_names(*names)
    start = trio.current_time()
    found: list[object] = []

    async def ask(lookup: Callable[[str], Awaitable[object]], name: str) -> None:
        found.append(await lookup(name))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, net.lookup, "app.test")
        nursery.start_soon(ask, net.lookup_service, SERVICE)
        await trio.sleep(100)
        assert not found
        net.name("app.test", "10.1.0.9")
        net.heal_names()
    assert ["10.1.0.9"] in found
    assert len(found) == 2
    assert trio.current_time() - start == 100


@pytest.mark.parametrize("names", [(), ("app.test", SERVICE)])
async def test_names_that_fail_do_so_until_they_are_healed(
    names: tuple[str, ...], autojump_clock: MockClock
) -> None:
    """Nothing that was set is lost."""
    net = SimNet()
    net.name("app.test", "10.1.0.1")
    net.service(SERVICE, ("10.1.0.1", 80, 0, 0))
    net.fail_names(*names)
    with pytest.raises(LookupFailed, match="SERVFAIL"):
        await net.lookup("app.test")
    with pytest.raises(LookupFailed, match="SERVFAIL"):
        await net.lookup_service(SERVICE)
    net.heal_names()
    assert await net.lookup("app.test") == ["10.1.0.1"]
    assert len(await net.lookup_service(SERVICE)) == 1


async def test_a_fault_of_one_name_spares_the_others(autojump_clock: MockClock) -> None:
    """Those were not given to it."""
    net = SimNet()
    net.fail_names("one.test")
    net.stall_names("two.test")
    assert await net.lookup("three.test") == ["three.test"]


# Dials


async def test_a_dial_of_a_name_goes_to_its_first_address_that_is_listened_on(
    autojump_clock: MockClock,
) -> None:
    """It is not counted as a look-up."""
    net = SimNet()
    net.name("app.test", "10.1.0.1", "10.1.0.2", "10.1.0.3")
    second, third = await net.listen("10.1.0.2:80"), await net.listen("10.1.0.3:80")
    near = await net.dial("app.test:80")
    assert (second.waiting, third.waiting) == (1, 0)
    assert near.peer == "10.1.0.2"
    assert net.lookups == []


async def test_a_dial_of_a_name_that_nobody_listens_on_is_refused(
    autojump_clock: MockClock,
) -> None:
    """As a dial of an address is."""
    net = SimNet()
    net.name("app.test", "10.1.0.1", "10.1.0.2")
    with pytest.raises(ConnectionRefusedError, match=r"10\.1\.0\.1:80"):
        await net.dial("app.test:80")


async def test_a_dial_of_a_name_takes_the_time_of_a_lookup(autojump_clock: MockClock) -> None:
    """And then the round trip."""
    net = SimNet(latency=1, lookup_seconds=5)
    net.name("app.test", "10.1.0.1")
    await net.listen("10.1.0.1:80")
    start = trio.current_time()
    await net.dial("app.test:80")
    assert trio.current_time() - start == 7


@pytest.mark.parametrize("fault", ["unname", "fail_names"])
async def test_a_dial_of_a_name_that_cannot_be_resolved_fails(
    fault: str, autojump_clock: MockClock
) -> None:
    """Although the text of the host is listened on."""
    net = SimNet()
    await net.listen("app.test:80")
    getattr(net, fault)("app.test")
    with pytest.raises(LookupFailed, match=r"cannot resolve app\.test"):
        await net.dial("app.test:80")


async def test_a_dial_of_an_address_needs_no_dns(autojump_clock: MockClock) -> None:
    """Nor does it take the time of a look-up."""
    net = SimNet(lookup_seconds=5)
    net.fail_names()
    await net.listen("10.1.0.1:80")
    start = trio.current_time()
    await net.dial("10.1.0.1:80")
    assert trio.current_time() == start
