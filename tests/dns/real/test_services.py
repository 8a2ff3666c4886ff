"""Services looked up by DNS, of a server that the test has in its hands."""

from __future__ import annotations

import pytest
import trio

from support.dns_server import DnsServer
from support.processes import DEADLINE
from trio_proxy.net.dial import SocketNetwork
from trio_proxy.net.dns import nameservers as net_dns
from trio_proxy.net.network import LookupFailed, ServiceRecord


async def test_a_service_has_its_records_the_most_preferred_first(
    nameserver: DnsServer, network: SocketNetwork
) -> None:
    """By priority, then by weight."""
    nameserver.records["_http._tcp.app.test"] = {
        "SRV": ["1 0 81 spare.test.", "0 5 80 small.test.", "0 9 80 big.test."]
    }
    assert await network.lookup_service("_http._tcp.app.test") == [
        ServiceRecord(host="big.test", port=80, priority=0, weight=9),
        ServiceRecord(host="small.test", port=80, priority=0, weight=5),
        ServiceRecord(host="spare.test", port=81, priority=1, weight=0),
    ]


async def test_the_records_of_a_service_are_bounded(
    nameserver: DnsServer, network: SocketNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least preferred are left out."""
    monkeypatch.setattr(net_dns, "MAX_RECORDS", 2)
    nameserver.records["app.test"] = {"SRV": [f"{n} 0 80 host{n}.test." for n in (3, 1, 2)]}
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
    nameserver: DnsServer, network: SocketNetwork, records: dict[str, list[str]] | None, reason: str
) -> None:
    """In words; a single dot is how a domain says no (RFC 2782)."""
    if records is not None:
        nameserver.records["app.test"] = records
    with pytest.raises(LookupFailed) as caught:
        await network.lookup_service("app.test")
    assert str(caught.value) == f"cannot resolve app.test: {reason}"


async def test_a_service_of_a_silent_server_is_not_waited_for_for_ever(
    nameserver: DnsServer, network: SocketNetwork, impatient_dns: None
) -> None:
    """The look-up is bounded, repeats included."""
    nameserver.silent = {("app.test", "SRV")}
    with trio.fail_after(DEADLINE), pytest.raises(LookupFailed, match="no answer within"):
        await network.lookup_service("app.test")


async def test_a_lookup_that_is_cancelled_leaves_nothing_behind(
    nameserver: DnsServer, network: SocketNetwork
) -> None:
    """No socket is left open; the fixture that watches over that would tell."""
    nameserver.silent = {("app.test", "SRV")}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.lookup_service, "app.test")
        await trio.to_thread.run_sync(nameserver.was_asked.wait, DEADLINE)
        nursery.cancel_scope.cancel()
