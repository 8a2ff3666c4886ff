"""The names of a simulated network, under the test's control."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import trio

from trio_proxy.net.network import LookupFailed, ServiceRecord


class SimNames:
    """The DNS of a `SimNet`.

    A host that was given no name is its own address, so nothing has to be set up where DNS does not
    matter. A dial of a name asks DNS too, but is not counted in `lookups`.
    """

    def __init__(self, lookup_seconds: float) -> None:
        #: How long every look-up takes from now on.
        self.lookup_seconds = lookup_seconds
        #: Every name that was looked up, in that order.
        self.lookups: list[str] = []
        self._hosts: dict[str, list[str]] = {}
        self._services: dict[str, list[ServiceRecord]] = {}
        self._unnamed: set[str] = set()
        self._stalled = _Names()
        self._failing = _Names()
        self._names_healed = trio.lowlevel.ParkingLot()

    # What DNS knows

    def name(self, host: str, *addresses: str) -> None:
        """Let a host have these A and AAAA records, and no others. Raises ValueError for none."""
        if not addresses:
            raise ValueError(f"expected an address of {host}; to take the name away, use unname")
        self._hosts[host] = list(addresses)
        self._unnamed.discard(host)

    def service(self, name: str, *records: ServiceRecord | tuple[str, int, int, int]) -> None:
        """Let a name have these SRV records, and no others: host, port, priority and weight.

        A single record with the host ``.`` says that there is no such service. Raises ValueError
        for none.
        """
        if not records:
            raise ValueError(f"expected a record of {name}; to take the name away, use unname")
        self._services[name] = [
            record if isinstance(record, ServiceRecord) else ServiceRecord(*record)
            for record in records
        ]
        self._unnamed.discard(name)

    def unname(self, name: str) -> None:
        """Let there be no such host or service (NXDOMAIN)."""
        self._hosts.pop(name, None)
        self._services.pop(name, None)
        self._unnamed.add(name)

    # What is wrong with DNS

    def stall_names(self, *names: str) -> None:
        """Let look-ups hang until `heal_names`: those of these names, or all."""
        self._stalled.add(names)

    def fail_names(self, *names: str) -> None:
        """Let look-ups fail until `heal_names`, as with SERVFAIL: those of these names, or all."""
        self._failing.add(names)

    def heal_names(self) -> None:
        """Undo `stall_names` and `fail_names`; look-ups that hang go on."""
        self._stalled, self._failing = _Names(), _Names()
        self._names_healed.unpark_all()

    # The Network protocol

    async def lookup(self, host: str) -> Sequence[str]:
        """The addresses that `name` was given, in that order. Raises LookupFailed."""
        if _is_ip_literal(host):
            await trio.lowlevel.checkpoint()
            return [host]
        self.lookups.append(host)
        return await self._addresses(host)

    async def lookup_service(self, name: str) -> Sequence[ServiceRecord]:
        """The records that `service` was given, in that order. Raises LookupFailed."""
        self.lookups.append(name)
        await self._ask(name)
        records = self._services.get(name)
        if records is None:
            raise LookupFailed(f"cannot resolve {name}: it has no SRV records")
        if [record.host for record in records] == ["."]:
            raise LookupFailed(f"cannot resolve {name}: its domain says there is no such service")
        return list(records)

    def _is_name(self, host: str) -> bool:
        """Whether a dial has to ask for it."""
        if host in self._hosts or host in self._unnamed:
            return True
        return (host in self._stalled or host in self._failing) and not _is_ip_literal(host)

    async def _addresses(self, host: str) -> Sequence[str]:
        await self._ask(host)
        return list(self._hosts.get(host, [host]))

    async def _ask(self, name: str) -> None:
        """Take the time of a look-up. Raises LookupFailed."""
        await trio.sleep(self.lookup_seconds)
        while name in self._stalled:
            await self._names_healed.park()
        if name in self._failing:
            raise LookupFailed(f"cannot resolve {name}: SERVFAIL")
        if name in self._unnamed:
            raise LookupFailed(f"cannot resolve {name}: there is no such name")


class _Names:
    """Some names, or all."""

    def __init__(self) -> None:
        self._all = False
        self._some: set[str] = set()

    def add(self, names: Sequence[str]) -> None:
        """These; none given means all."""
        self._all = self._all or not names
        self._some.update(names)

    def __contains__(self, name: str) -> bool:
        return self._all or name in self._some


def _is_ip_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
