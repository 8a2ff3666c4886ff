"""What a simulated network is like, under the test's control."""

from __future__ import annotations

import errno
from typing import Any

import attrs
import trio
from attrs import define

from trio_proxy.http.addresses import Address, parse_address
from trio_proxy.testing.pipe import Link


@define(eq=False)
class Faults:
    """What is wrong with an address at the moment."""

    refuse_errno: int = 0
    is_blackhole: bool = False
    accept_errno: int = 0
    accept_failures: int = 0


class SimConditions:
    """The links and the faults of a `SimNet`, by address."""

    def __init__(self, default_link: Link) -> None:
        self.default_link = default_link
        self._links: dict[Address, Link] = {}
        self._faults: dict[Address, Faults] = {}
        self._healed = trio.lowlevel.ParkingLot()

    def link(
        self,
        address: Address | str,
        *,
        latency: float | None = None,
        bandwidth: float | None = None,
        buffer: int | None = None,
        jitter: float | None = None,
        fragment: bool | None = None,
    ) -> Link:
        """Set what connections dialled to an address from now on are like; None keeps a value."""
        address = as_address(address)
        changes: dict[str, Any] = {
            "latency": latency,
            "bandwidth": bandwidth,
            "buffer": buffer,
            "jitter": jitter,
            "fragment": fragment,
        }
        link = attrs.evolve(
            self._link_of(address),
            **{name: value for name, value in changes.items() if value is not None},
        )
        self._links[address] = link
        return link

    def refuse(self, address: Address | str, code: int = errno.ECONNREFUSED) -> None:
        """Let dials fail with this errno after a round trip, although somebody listens."""
        self._faults_of(address).refuse_errno = code

    def blackhole(self, address: Address | str) -> None:
        """Let dials hang until `heal`. Connections that are open already are not touched."""
        self._faults_of(address).is_blackhole = True

    def fail_accept(self, address: Address | str, code: int = errno.EMFILE, times: int = 1) -> None:
        """Let the next ``times`` accepts on a listener's own address raise OSError(``code``)."""
        faults = self._faults_of(address)
        faults.accept_errno, faults.accept_failures = code, times

    def heal(self, address: Address | str) -> None:
        """Undo `refuse`, `blackhole` and `fail_accept`; dials that hang go on."""
        self._faults.pop(as_address(address), None)
        self._healed.unpark_all()

    def _link_of(self, address: Address) -> Link:
        return self._links.get(address, self.default_link)

    def _faults_of(self, address: Address | str) -> Faults:
        return self._faults.setdefault(as_address(address), Faults())


def as_address(address: Address | str) -> Address:
    """The address that a test may have given as text."""
    return parse_address(address) if isinstance(address, str) else address
