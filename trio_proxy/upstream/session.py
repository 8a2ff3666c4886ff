"""What a pool knows of a connection to an upstream: it answers questions, and it has slots.

A session of HTTP/1.1 has one slot, so it is idle or leased. A session with many slots (HTTP/2)
answers the same questions, and needs no change in the pool.
"""

from __future__ import annotations

from typing import Protocol

from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.addresses import Address
from trio_proxy.upstream.pool.condition import Condition, Ticket


class Session(Protocol):
    """One connection to an upstream, open or still to be dialled."""

    #: When it has been idle for too long; for its pool to set, and to ask.
    idle_until: float

    @property
    def is_closed(self) -> bool:
        """Whether it is known not to be open: not dialled yet, or given up by the other side."""
        ...

    @property
    def is_available(self) -> bool:
        """Whether it lives, as far as can be seen, and has a slot free for one more request."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether none of its slots is taken."""
        ...

    def has_expired(self, now: float) -> bool:
        """Whether it has been idle for too long."""
        ...

    def take_slot(self) -> None:
        """Lease one of its slots, as it is available."""
        ...

    def free_slot(self) -> None:
        """Have it back."""
        ...

    def close(self) -> None:
        """Close the connection, if it is open. Idempotent."""
        ...


class Owner(Protocol):
    """The member of a pool that a session belongs to."""

    name: str
    address: Address
    host_field: bytes
    cookie: str
    condition: Condition

    def give_back(self, slot: Slot, now: float | None = None) -> None:
        """End a lease whose session can serve another request."""
        ...

    def give_back_unused(self, slot: Slot) -> None:
        """End a lease that came too late for whoever waited for it."""
        ...

    def discard(self, slot: Slot) -> None:
        """End a lease and close its session."""
        ...

    def drop_if_idle(self, session: Session) -> None:
        """Close a session whose peer has hung up, unless an exchange is reading from it."""
        ...


class Slot:
    """Room for one request at one upstream, held for one try.

    ``holder`` is the exchange that has it, and ``ticket`` what its request was let in as;
    ``leased_at`` is on the event loop's clock, in seconds.
    """

    __slots__ = ("holder", "leased_at", "session", "ticket", "upstream")

    def __init__(
        self, upstream: Owner, session: Session, holder: Exchange, ticket: Ticket, leased_at: float
    ) -> None:
        self.upstream = upstream
        self.session = session
        self.holder = holder
        self.ticket = ticket
        self.leased_at = leased_at

    def __repr__(self) -> str:
        return f"<Slot {self.upstream.name} {self.session!r}>"
