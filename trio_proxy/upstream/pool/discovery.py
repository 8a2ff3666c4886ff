"""Names in the configuration, and the servers that DNS says they stand for.

Each name is looked up at the start and then every ``refresh_ms``. Every address becomes a member of
its own. A look-up that fails changes nothing: yesterday's addresses are better than none.
"""

from __future__ import annotations

import ipaddress
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from typing import TypeAlias

import trio
from attrs import frozen

from trio_proxy.http.addresses import Address, TcpAddress
from trio_proxy.net.network import LookupFailed, Network

log = logging.getLogger("trio_proxy.upstream")

#: How long a start or a reload waits for names that were never looked up before, in seconds.
FIRST_LOOKUP_SECONDS = 1.0

#: The part of that in which the servers that SRV records name have to be found.
TARGETS_SECONDS = 0.8

#: Servers that are looked up at the same time; one service can name hundreds.
MAX_TARGETS_AT_ONCE = 16

#: The most servers that one service can stand for.
MAX_ENDPOINTS = 256

#: A name whose first look-up failed is asked for again after so many seconds.
UNKNOWN_RETRY_SECONDS = 1.0


@frozen
class ServiceName:
    """What SRV records are asked of (RFC 2782), as ``_http._tcp.app.example``."""

    name: str

    def __str__(self) -> str:
        return self.name


#: What a configuration names: a server, or a name that stands for several.
Spec: TypeAlias = Address | ServiceName


@frozen
class Endpoint:
    """One server behind a name; ``weight`` multiplies the configured one.

    ``authority`` is the name it was found by, with its port; empty if it was not found by any.
    """

    address: Address
    authority: str = ""
    weight: int = 1
    backup: bool = False


def is_name(spec: Spec) -> bool:
    """Whether DNS has to be asked who that is."""
    if isinstance(spec, ServiceName):
        return True
    if not isinstance(spec, TcpAddress):
        return False
    try:
        ipaddress.ip_address(spec.host.partition("%")[0])
    except ValueError:
        return True
    return False


Found = Callable[[Spec, Sequence[Endpoint]], None]


class Directory:
    """Looks names up, and remembers what failed, so that each trouble is told once.

    Addresses of the targets of SRV records are remembered as well: one that cannot be looked up for
    a while keeps those it had.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._places = trio.CapacityLimiter(MAX_TARGETS_AT_ONCE)
        self._names: set[str] = set()
        self._failing: set[str] = set()
        #: The targets that each service names.
        self._targets: dict[str, set[str]] = {}
        self._addresses: dict[str, Sequence[str]] = {}

    def asking(self, network: Network) -> Directory:
        """One that knows what this one knows, and asks another network from now on."""
        other = Directory(network)
        other._names, other._failing = set(self._names), set(self._failing)
        other._targets, other._addresses = dict(self._targets), dict(self._addresses)
        return other

    def take_over(self, other: Directory) -> None:
        """Ask whom the other one asks, and know what it knows."""
        self.network = other.network
        self._names, self._failing = other._names, other._failing
        self._targets, self._addresses = other._targets, other._addresses

    def keep(self, specs: Collection[Spec]) -> None:
        """Forget all but the names of the configuration in force."""
        self._names = {str(spec) for spec in specs}
        self._targets = {name: self._targets[name] for name in self._targets.keys() & self._names}
        self._forget_targets()

    def _forget_targets(self) -> None:
        """Forget what no service names any more: servers come and go for ever."""
        named = set().union(*self._targets.values())
        self._addresses = {name: self._addresses[name] for name in self._addresses.keys() & named}
        self._failing &= self._names | named

    async def look_up(self, spec: Spec, targets_until: float = math.inf) -> Sequence[Endpoint]:
        """The servers behind a name, at least one, in a stable order. Raises OSError.

        The servers that SRV records name have to be found until then, by the event loop's clock.
        """
        if isinstance(spec, ServiceName):
            return await self._look_up_service(spec.name, targets_until)
        assert isinstance(spec, TcpAddress)
        hosts = await self.network.lookup(spec.host)
        return [Endpoint(TcpAddress(host, spec.port), str(spec)) for host in hosts]

    async def _look_up_service(self, name: str, until: float) -> Sequence[Endpoint]:
        """The most preferred records are primaries, the others backups (as nginx has it)."""
        records = await self.network.lookup_service(name)
        best = min(record.priority for record in records)
        self._names.add(name)
        self._targets[name] = {record.host for record in records}
        hosts = await self._look_up_targets(self._targets[name], until)
        self._forget_targets()
        found = []
        for record in records:
            weight, is_backup = max(1, record.weight), record.priority > best
            authority = str(TcpAddress(record.host, record.port))
            for host in hosts.get(record.host, ()):
                address = TcpAddress(host, record.port)
                found.append(Endpoint(address, authority, weight, is_backup))
        if not found:
            raise LookupFailed(f"cannot resolve any server that {name} names")
        return found[:MAX_ENDPOINTS]

    async def _look_up_targets(
        self, targets: Set[str], until: float
    ) -> Mapping[str, Sequence[str]]:
        """The addresses of each, all asked at once; of one that fails those it had before."""
        found: dict[str, Sequence[str]] = {}

        async def one(target: str) -> None:
            try:
                async with self._places:
                    found[target] = await self.network.lookup(target)
            except OSError as exc:
                self.failed(target, exc, is_known=target in self._addresses)
            else:
                self.succeeded(target, is_known=target in self._addresses)

        with trio.move_on_at(until):
            async with trio.open_nursery() as nursery:
                for target in targets:
                    nursery.start_soon(one, target)
        for target in sorted(targets - found.keys() - self._failing):
            self.failed(target, f"no answer yet for {target}", is_known=target in self._addresses)
        before, self._addresses = self._addresses, {**self._addresses, **found}
        return {target: found.get(target) or before.get(target, ()) for target in targets}

    def failed(self, name: Spec | str, why: object, *, is_known: bool) -> None:
        """Log that a name cannot be looked up, unless that is known already."""
        if str(name) not in self._failing:
            self._failing.add(str(name))
            kept = f"; what was known of {name} before is kept" if is_known else ""
            log.warning("dns: %s%s", why, kept)

    def succeeded(self, name: Spec | str, *, is_known: bool) -> None:
        """Log that a name can be looked up again, if it could not."""
        if str(name) in self._failing:
            self._failing.remove(str(name))
            log.info("dns: %s is found%s", name, " again" if is_known else "")

    async def refresh_for_ever(
        self, spec: Spec, seconds: float, found: Found, *, is_known: bool
    ) -> None:
        """Look a name up every so many seconds until cancelled; report what was found."""
        while True:
            await trio.sleep(seconds if is_known else min(seconds, UNKNOWN_RETRY_SECONDS))
            try:
                endpoints = await self.look_up(spec)
            except OSError as exc:
                self.failed(spec, exc, is_known=is_known)
                continue
            self.succeeded(spec, is_known=is_known)
            is_known = True
            found(spec, endpoints)

    async def look_up_all(self, specs: Collection[Spec]) -> Mapping[Spec, Sequence[Endpoint]]:
        """What is found of all those names within `FIRST_LOOKUP_SECONDS`; a failure is logged."""
        found: dict[Spec, Sequence[Endpoint]] = {}

        async def one(spec: Spec) -> None:
            try:
                found[spec] = await self.look_up(spec, targets_until)
            except OSError as exc:
                self.failed(spec, exc, is_known=False)
            else:
                self.succeeded(spec, is_known=False)

        targets_until = trio.current_time() + TARGETS_SECONDS
        with trio.move_on_after(FIRST_LOOKUP_SECONDS) as scope:
            async with trio.open_nursery() as nursery:
                for spec in specs:
                    nursery.start_soon(one, spec)
        if scope.cancelled_caught:
            for spec in specs:
                if spec not in found:
                    why = f"no answer within {FIRST_LOOKUP_SECONDS:g} s for {spec}"
                    self.failed(spec, why, is_known=False)
        return found
