"""The ways to come by streams, and what they raise."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Protocol

from attrs import frozen

from trio_proxy.exchange.streams import Stream
from trio_proxy.http.addresses import Address


class Listener(Protocol):
    """A bound address that connections can be taken from."""

    #: What was bound, with the real port when port 0 was asked for.
    address: Address

    async def wait_readable(self) -> None:
        """Wait until a connection is ready to be accepted."""
        ...

    def accept_nowait(self) -> Stream | None:
        """Take one connection; None if another taker was faster.

        Raises OSError (EMFILE, …), `trio.ClosedResourceError` after `close`.
        """
        ...

    def close(self) -> None: ...


#: What the system says when it is short of descriptors or memory: whom we wanted to reach is not to
#: blame. EADDRNOTAVAIL is not among them: it is said of every IPv6 address where IPv6 is off, and
#: a lack of ports concerns one destination, so that others can still be reached.
OUT_OF_RESOURCES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class LookupFailed(OSError):
    """A name that DNS has no answer for, or none that could be had in time."""


@frozen
class ServiceRecord:
    """One server of a service (RFC 2782).

    ``host`` is a name without its final dot. The lowest ``priority`` is tried first; ``weight``
    shares the load among records of one priority, and 0 asks for next to none.
    """

    host: str
    port: int
    priority: int
    weight: int


class Network(Protocol):
    """The ways to come by streams, and names: sockets in life, a simulated network in tests.

    `run` reports hang-ups to the streams' ``on_hangup`` until it is cancelled.
    """

    async def run(self) -> None: ...

    async def listen(self, address: Address) -> Listener: ...

    async def dial(self, address: Address) -> Stream: ...

    async def lookup(self, host: str) -> Sequence[str]:
        """The IP literals of a host name, A and AAAA, at least one; an IP literal is its own.

        Asks anew each time. Raises LookupFailed.
        """
        ...

    async def lookup_service(self, name: str) -> Sequence[ServiceRecord]:
        """The SRV records of a name, at least one; the most preferred come first.

        Asks anew each time. Raises LookupFailed, also for a single record with the target ``.``,
        by which a domain says that it has no such service (RFC 2782).
        """
        ...
