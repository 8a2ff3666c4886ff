"""Hosts looked up by DNS, of a server that the test has in its hands."""

from __future__ import annotations

import socket

import dns.rcode
import dns.resolver
import pytest
import trio

from support.dns_server import DnsServer
from support.processes import DEADLINE
from trio_proxy.http.addresses import TcpAddress
from trio_proxy.net.dial import SocketNetwork
from trio_proxy.net.dns import nameservers as net_dns
from trio_proxy.net.dns import resolver
from trio_proxy.net.network import LookupFailed


async def test_a_host_has_the_addresses_of_both_families(
    nameserver: DnsServer, network: SocketNetwork
) -> None:
    """In an order that does not depend on that of the answer."""
    nameserver.records["app.test"] = {
        "A": ["192.0.2.10", "192.0.2.9"],
        "AAAA": ["2001:db8::2", "2001:db8::1"],
    }
    found = await network.lookup("app.test")
    assert found == ["192.0.2.9", "192.0.2.10", "2001:db8::1", "2001:db8::2"]


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.NXDOMAIN, dns.rcode.REFUSED])
@pytest.mark.parametrize(
    ("broken", "found"), [("AAAA", ["192.0.2.1"]), ("A", ["2001:db8::1"])], ids=["AAAA", "A"]
)
async def test_one_family_is_enough(
    nameserver: DnsServer,
    network: SocketNetwork,
    broken: str,
    found: list[str],
    rcode: dns.rcode.Rcode,
) -> None:
    """Some servers answer questions for AAAA with an error (RFC 4074 §4)."""
    nameserver.records["app.test"] = {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]}
    nameserver.records["app.test"].pop(broken)
    nameserver.rcodes["app.test", broken] = rcode
    assert await network.lookup("app.test") == found


async def test_one_family_does_not_wait_long_for_the_other(
    nameserver: DnsServer, network: SocketNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never answers for AAAA costs the grace, not the whole lifetime."""
    monkeypatch.setattr(net_dns, "GRACE_SECONDS", 0.05)
    nameserver.records["app.test"] = {"A": ["192.0.2.1"]}
    nameserver.silent = {("app.test", "AAAA")}
    with trio.fail_after(DEADLINE / 2):
        assert await network.lookup("app.test") == ["192.0.2.1"]


async def test_an_answer_too_long_for_udp_is_had_by_tcp_and_is_bounded(
    nameserver: DnsServer, network: SocketNetwork
) -> None:
    """The addresses that sort last are left out."""
    nameserver.records["app.test"] = {"A": [f"10.0.{n // 100}.{n % 100}" for n in range(300)]}
    found = await network.lookup("app.test")
    assert found == [f"10.0.{n // 100}.{n % 100}" for n in range(resolver.MAX_MEMBERS)]


async def test_all_who_look_up_a_host_share_the_questions(
    nameserver: DnsServer, network: SocketNetwork
) -> None:
    """One for each family."""
    nameserver.records["app.test"] = {"A": ["192.0.2.1"]}
    nameserver.may_answer.clear()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(network.lookup, "app.test")
        await trio.to_thread.run_sync(nameserver.was_asked.wait, DEADLINE)
        nameserver.may_answer.set()
    assert sorted(nameserver.asked) == [("app.test", "A"), ("app.test", "AAAA")]


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
async def test_an_address_is_its_own(
    nameserver: DnsServer, network: SocketNetwork, host: str
) -> None:
    """Nobody is asked."""
    assert await network.lookup(host) == [host]
    assert nameserver.asked == []


async def test_a_dial_asks_the_servers_too(nameserver: DnsServer, network: SocketNetwork) -> None:
    """So a name means the same to the pool and to a dial."""
    nameserver.records["app.test"] = {"A": ["127.0.0.1"]}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = await network.dial(TcpAddress("app.test", listener.getsockname()[1]))
        stream.close()
    assert ("app.test", "A") in nameserver.asked


async def test_a_host_that_does_not_exist_fails(network: SocketNetwork) -> None:
    """NXDOMAIN, in words."""
    with pytest.raises(LookupFailed) as caught:
        await network.lookup("gone.test")
    assert str(caught.value) == "cannot resolve gone.test: there is no such name"


async def test_a_host_without_addresses_fails(
    nameserver: DnsServer, network: SocketNetwork
) -> None:
    """It exists, but has records of other types only."""
    nameserver.records["mail.test"] = {"TXT": ["hello"]}
    with pytest.raises(LookupFailed) as caught:
        await network.lookup("mail.test")
    assert str(caught.value) == "cannot resolve mail.test: it has no address"


async def test_a_failing_server_is_named(nameserver: DnsServer, network: SocketNetwork) -> None:
    """With what it said."""
    nameserver.rcodes = {("app.test", kind): dns.rcode.SERVFAIL for kind in ("A", "AAAA")}
    with pytest.raises(LookupFailed) as caught:
        await network.lookup("app.test")
    assert str(caught.value) == f"cannot resolve app.test: 127.0.0.1@{nameserver.port}: SERVFAIL"


async def test_a_silent_server_is_not_waited_for_for_ever(
    nameserver: DnsServer, network: SocketNetwork, impatient_dns: None
) -> None:
    """The whole look-up is bounded, repeats included."""
    nameserver.silent = {("app.test", "A"), ("app.test", "AAAA")}
    with trio.fail_after(DEADLINE), pytest.raises(LookupFailed, match=r"no answer within 0\.2 s"):
        await network.lookup("app.test")
