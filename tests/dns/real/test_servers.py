"""Whom a look-up asks: the servers that are given, the next of them, or the system."""

from __future__ import annotations

import subprocess
import sys

import dns.rcode
import dns.resolver
import pytest

from support.dns_server import DnsServer
from trio_proxy.net.dial import SocketNetwork
from trio_proxy.net.dns import nameservers as net_dns
from trio_proxy.net.dns import resolver


async def test_the_next_server_is_asked_when_one_fails(
    nameserver: DnsServer, other_nameserver: DnsServer, network: SocketNetwork
) -> None:
    """In the order in which they were given."""
    nameserver.rcodes = {("app.test", kind): dns.rcode.REFUSED for kind in ("A", "AAAA")}
    other_nameserver.records["app.test"] = {"A": ["192.0.2.1"]}
    network.use_nameservers([each.where for each in (nameserver, other_nameserver)])
    assert await network.lookup("app.test") == ["192.0.2.1"]
    assert len(nameserver.asked) == 2


async def test_the_next_server_is_asked_when_one_is_silent(
    nameserver: DnsServer,
    other_nameserver: DnsServer,
    network: SocketNetwork,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Long before the whole time is over."""
    monkeypatch.setattr(net_dns, "ATTEMPT_SECONDS", 0.05)
    nameserver.silent = {("app.test", "A"), ("app.test", "AAAA")}
    other_nameserver.records["app.test"] = {"A": ["192.0.2.1"]}
    network.use_nameservers([each.where for each in (nameserver, other_nameserver)])
    assert await network.lookup("app.test") == ["192.0.2.1"]


async def test_servers_can_be_changed_while_the_network_is_in_use(
    nameserver: DnsServer, other_nameserver: DnsServer, network: SocketNetwork
) -> None:
    """What the old ones said is forgotten, also by dials."""
    nameserver.records["app.test"] = {"A": ["192.0.2.1"]}
    other_nameserver.records["app.test"] = {"A": ["192.0.2.2"]}
    assert await network.lookup("app.test") == ["192.0.2.1"]
    network.use_nameservers([other_nameserver.where])
    assert await network.lookup("app.test") == ["192.0.2.2"]
    assert network.nameservers == (other_nameserver.where,)


async def test_the_system_is_asked_again_when_the_servers_are_taken_away(
    nameserver: DnsServer, network: SocketNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if there had never been any."""
    monkeypatch.setattr(resolver, "_look_up", lambda host: ["192.0.2.3"])
    network.use_nameservers([])
    assert await network.lookup("app.test") == ["192.0.2.3"]
    assert nameserver.asked == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST"])
async def test_localhost_is_asked_of_the_system(
    nameserver: DnsServer, network: SocketNetwork, host: str
) -> None:
    """No DNS server has a say in it (RFC 6761 §6.3)."""
    assert "127.0.0.1" in await network.lookup(host)
    assert nameserver.asked == []


@pytest.mark.usefixtures("patient_dns")
async def test_without_servers_services_are_asked_of_those_in_resolv_conf(
    nameserver: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which gives no port, so the test puts its own server in its place."""
    read: list[object] = []

    def read_resolv_conf(self: dns.resolver.BaseResolver, path: object) -> None:
        read.append(path)
        self.port = nameserver.port
        self.nameservers = ["127.0.0.1"]

    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", read_resolv_conf)
    nameserver.records["app.test"] = {"SRV": ["0 0 80 a.test."]}
    network = SocketNetwork()
    assert len(await network.lookup_service("app.test")) == 1
    network.close()
    assert read == ["/etc/resolv.conf"]


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
    program = "import sys, trio_proxy.server.proxy; sys.exit('dns.resolver' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
