"""Look-ups by DNS, of a server that the test has in its hands."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import dns.rcode
import dns.resolver
import pytest
import trio
from dns_server import DnsServer, running_dns
from processes import DEADLINE

from trio_proxy.addresses import TcpAddress
from trio_proxy.net import dns as net_dns
from trio_proxy.net import resolver
from trio_proxy.net.network import SocketNetwork
from trio_proxy.net.streams import LookupFailed, ServiceRecord


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with running_dns() as server:
        yield server


@pytest.fixture
def other_server() -> Iterator[DnsServer]:
    with running_dns() as server:
        yield server


@pytest.fixture
def network(server: DnsServer) -> Iterator[SocketNetwork]:
    """Asks the server, and nobody else."""
    network = SocketNetwork(nameservers=[f"127.0.0.1:{server.port}"])
    yield network
    network.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no reason to ask again or to go without an answer."""
    monkeypatch.setattr(net_dns, "ATTEMPT_SECONDS", DEADLINE)
    monkeypatch.setattr(net_dns, "GRACE_SECONDS", DEADLINE)
    monkeypatch.setattr(net_dns, "LIFETIME_SECONDS", 2 * DEADLINE)
    monkeypatch.setattr(resolver, "LIFETIME_SECONDS", 2 * DEADLINE)


@pytest.fixture
def impatient(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up may take a fraction of a second."""
    monkeypatch.setattr(net_dns, "LIFETIME_SECONDS", 0.2)
    monkeypatch.setattr(resolver, "LIFETIME_SECONDS", 0.2)


# Hosts


async def test_a_host_has_the_addresses_of_both_families(
    server: DnsServer, network: SocketNetwork
) -> None:
    """In an order that does not depend on that of the answer."""
    server.records["app.test"] = {
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
    server: DnsServer,
    network: SocketNetwork,
    broken: str,
    found: list[str],
    rcode: dns.rcode.Rcode,
) -> None:
    """Some servers answer questions for AAAA with an error (RFC 4074 §4)."""
    server.records["app.test"] = {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]}
    server.records["app.test"].pop(broken)
    server.rcodes["app.test", broken] = rcode
    assert await network.lookup("app.test") == found


async def test_one_family_does_not_wait_long_for_the_other(
    server: DnsServer, network: SocketNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never answers for AAAA costs the grace, not the whole lifetime."""
    monkeypatch.setattr(net_dns, "GRACE_SECONDS", 0.05)
    server.records["app.test"] = {"A": ["192.0.2.1"]}
    server.silent = {("app.test", "AAAA")}
    with trio.fail_after(DEADLINE / 2):
        assert await network.lookup("app.test") == ["192.0.2.1"]


async def test_a_host_that_does_not_exist_fails(network: SocketNetwork) -> None:
    """NXDOMAIN, in words."""
    with pytest.raises(LookupFailed) as caught:
        await network.lookup("gone.test")
    assert str(caught.value) == "cannot resolve gone.test: there is no such name"


async def test_a_host_without_addresses_fails(server: DnsServer, network: SocketNetwork) -> None:
    """It exists, but has records of other types only."""
    server.records["mail.test"] = {"TXT": ["hello"]}
    with pytest.raises(LookupFailed) as caught:
        await network.lookup("mail.test")
    assert str(caught.value) == "cannot resolve mail.test: it has no address"


async def test_a_failing_server_is_named(server: DnsServer, network: SocketNetwork) -> None:
    """With what it said."""
    server.rcodes = {("app.test", kind): dns.rcode.SERVFAIL for kind in ("A", "AAAA")}
    with pytest.raises(LookupFailed) as caught:
        await network.lookup("app.test")
    assert str(caught.value) == f"cannot resolve app.test: 127.0.0.1@{server.port}: SERVFAIL"


async def test_a_silent_server_is_not_waited_for_for_ever(
    server: DnsServer, network: SocketNetwork, impatient: None
) -> None:
    """The whole look-up is bounded, repeats included."""
    server.silent = {("app.test", "A"), ("app.test", "AAAA")}
    with trio.fail_after(DEADLINE), pytest.raises(LookupFailed, match=r"no answer within 0\.2 s"):
        await network.lookup("app.test")


async def test_the_next_server_is_asked_when_one_fails(
    server: DnsServer, other_server: DnsServer, network: SocketNetwork
) -> None:
    """In the order in which they were given."""
    server.rcodes = {("app.test", kind): dns.rcode.REFUSED for kind in ("A", "AAAA")}
    other_server.records["app.test"] = {"A": ["192.0.2.1"]}
    network.use_nameservers([f"127.0.0.1:{each.port}" for each in (server, other_server)])
    assert await network.lookup("app.test") == ["192.0.2.1"]
    assert len(server.asked) == 2


async def test_the_next_server_is_asked_when_one_is_silent(
    server: DnsServer,
    other_server: DnsServer,
    network: SocketNetwork,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Long before the whole time is over."""
    monkeypatch.setattr(net_dns, "ATTEMPT_SECONDS", 0.05)
    server.silent = {("app.test", "A"), ("app.test", "AAAA")}
    other_server.records["app.test"] = {"A": ["192.0.2.1"]}
    network.use_nameservers([f"127.0.0.1:{each.port}" for each in (server, other_server)])
    assert await network.lookup("app.test") == ["192.0.2.1"]


async def test_an_answer_too_long_for_udp_is_had_by_tcp_and_is_bounded(
    server: DnsServer, network: SocketNetwork
) -> None:
    """The addresses that sort last are left out."""
    server.records["app.test"] = {"A": [f"10.0.{n // 100}.{n % 100}" for n in range(300)]}
    found = await network.lookup("app.test")
    assert found == [f"10.0.{n // 100}.{n % 100}" for n in range(resolver.MAX_MEMBERS)]


async def test_all_who_look_up_a_host_share_the_questions(
    server: DnsServer, network: SocketNetwork
) -> None:
    """One for each family."""
    server.records["app.test"] = {"A": ["192.0.2.1"]}
    server.may_answer.clear()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(network.lookup, "app.test")
        await trio.to_thread.run_sync(server.was_asked.wait, DEADLINE)
        server.may_answer.set()
    assert sorted(server.asked) == [("app.test", "A"), ("app.test", "AAAA")]


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
async def test_an_address_is_its_own(server: DnsServer, network: SocketNetwork, host: str) -> None:
    """Nobody is asked."""
    assert await network.lookup(host) == [host]
    assert server.asked == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST"])
async def test_localhost_is_asked_of_the_system(
    server: DnsServer, network: SocketNetwork, host: str
) -> None:
    """No DNS server has a say in it (RFC 6761 §6.3)."""
    assert "127.0.0.1" in await network.lookup(host)
    assert server.asked == []


async def test_a_dial_asks_the_servers_too(server: DnsServer, network: SocketNetwork) -> None:
    """So a name means the same to the pool and to a dial."""
    server.records["app.test"] = {"A": ["127.0.0.1"]}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = await network.dial(TcpAddress("app.test", listener.getsockname()[1]))
        stream.close()
    assert ("app.test", "A") in server.asked


# Services


async def test_a_service_has_its_records_the_most_preferred_first(
    server: DnsServer, network: SocketNetwork
) -> None:
    """By priority, then by weight."""
    server.records["_http._tcp.app.test"] = {
        "SRV": ["1 0 81 spare.test.", "0 5 80 small.test.", "0 9 80 big.test."]
    }
    assert await network.lookup_service("_http._tcp.app.test") == [
        ServiceRecord(host="big.test", port=80, priority=0, weight=9),
        ServiceRecord(host="small.test", port=80, priority=0, weight=5),
        ServiceRecord(host="spare.test", port=81, priority=1, weight=0),
    ]


async def test_the_records_of_a_service_are_bounded(
    server: DnsServer, network: SocketNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least preferred are left out."""
    monkeypatch.setattr(net_dns, "MAX_RECORDS", 2)
    server.records["app.test"] = {"SRV": [f"{n} 0 80 host{n}.test." for n in (3, 1, 2)]}
    found = await network.lookup_service("app.test")
    assert [record.host for record in found] == ["host1.test", "host2.test"]


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ({"SRV": ["0 0 0 ."]}, "its domain says there is no such service"),
        ({"A": ["192.0.2.1"]}, "it has no SRV records"),
        (None, "there is no such name"),
    ],
)
async def test_a_service_without_servers_fails(
    server: DnsServer, network: SocketNetwork, records: dict[str, list[str]] | None, reason: str
) -> None:
    """In words; a single dot is how a domain says no (RFC 2782)."""
    if records is not None:
        server.records["app.test"] = records
    with pytest.raises(LookupFailed) as caught:
        await network.lookup_service("app.test")
    assert str(caught.value) == f"cannot resolve app.test: {reason}"


async def test_a_service_of_a_silent_server_is_not_waited_for_for_ever(
    server: DnsServer, network: SocketNetwork, impatient: None
) -> None:
    """The look-up is bounded, repeats included."""
    server.silent = {("app.test", "SRV")}
    with trio.fail_after(DEADLINE), pytest.raises(LookupFailed, match="no answer within"):
        await network.lookup_service("app.test")


async def test_a_lookup_that_is_cancelled_leaves_nothing_behind(
    server: DnsServer, network: SocketNetwork
) -> None:
    """No socket is left open; the fixture that watches over that would tell."""
    server.silent = {("app.test", "SRV")}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.lookup_service, "app.test")
        await trio.to_thread.run_sync(server.was_asked.wait, DEADLINE)
        nursery.cancel_scope.cancel()


# Whom to ask


async def test_without_servers_services_are_asked_of_those_in_resolv_conf(
    server: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which gives no port, so the test puts its own server in its place."""
    read: list[object] = []

    def read_resolv_conf(self: dns.resolver.BaseResolver, path: object) -> None:
        read.append(path)
        self.port = server.port
        self.nameservers = ["127.0.0.1"]

    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", read_resolv_conf)
    server.records["app.test"] = {"SRV": ["0 0 80 a.test."]}
    network = SocketNetwork()
    assert len(await network.lookup_service("app.test")) == 1
    network.close()
    assert read == ["/etc/resolv.conf"]


async def test_servers_can_be_changed_while_the_network_is_in_use(
    server: DnsServer, other_server: DnsServer, network: SocketNetwork
) -> None:
    """What the old ones said is forgotten, also by dials."""
    server.records["app.test"] = {"A": ["192.0.2.1"]}
    other_server.records["app.test"] = {"A": ["192.0.2.2"]}
    assert await network.lookup("app.test") == ["192.0.2.1"]
    network.use_nameservers([f"127.0.0.1:{other_server.port}"])
    assert await network.lookup("app.test") == ["192.0.2.2"]
    assert network.nameservers == (f"127.0.0.1:{other_server.port}",)


async def test_the_system_is_asked_again_when_the_servers_are_taken_away(
    server: DnsServer, network: SocketNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if there had never been any."""
    monkeypatch.setattr(resolver, "_look_up", lambda host: ["192.0.2.3"])
    network.use_nameservers([])
    assert await network.lookup("app.test") == ["192.0.2.3"]
    assert server.asked == []


@pytest.mark.parametrize(
    "text", ["dns.test", "dns.test:53", "10.0.0.2:0", "10.0.0.2:x", "fd00::1:zz", "unix:/x", ""]
)
def test_a_server_is_given_by_its_ip_address(text: str) -> None:
    """A name would have to be looked up first."""
    with pytest.raises(ValueError, match="expected the IP address of a DNS server, got "):
        SocketNetwork(nameservers=[text])


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("10.0.0.2", ("10.0.0.2", 53)),
        ("10.0.0.2:5353", ("10.0.0.2", 5353)),
        ("fd00::2", ("fd00::2", 53)),
        ("[fd00::2]:5353", ("fd00::2", 5353)),
    ],
)
def test_a_server_listens_on_port_53_unless_told_otherwise(
    text: str, server: tuple[str, int]
) -> None:
    """IPv6 addresses have brackets before a port."""
    assert net_dns.read_server(text) == server


def test_a_start_does_not_pay_for_dnspython() -> None:
    """It is imported when the first question is asked."""
    program = "import sys, trio_proxy.server.serving; sys.exit('dns.resolver' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
