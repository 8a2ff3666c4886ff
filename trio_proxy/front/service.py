"""What all client connections of one listener share."""

from __future__ import annotations

from typing import Protocol

import trio

from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import MAX_PIECE_BYTES
from trio_proxy.exchange.timers import Timers
from trio_proxy.front.plan import Plan


class Observer(Protocol):
    """Is told what happens; it never steers."""

    def connection_opened(self) -> None: ...

    def connection_closed(self) -> None: ...

    def request_started(self) -> None: ...

    def exchange_ended(self, exchange: Exchange) -> None: ...


class Session(Protocol):
    """One client connection."""

    def start_drain(self) -> None:
        """Close if idle; otherwise the exchange under way is the last one."""
        ...

    def cut(self) -> None:
        """End the exchange under way: the drain's time is up."""
        ...


class Service:
    """The current plan, the open connections, and whether new requests are still welcome.

    ``timers`` have to be run as long as there are connections.
    """

    def __init__(self, plan: Plan, observer: Observer) -> None:
        self.plan = plan
        self.observer = observer
        self.timers = Timers()
        self.draining = False
        self.connections: set[Session] = set()
        self.relay_buffer = memoryview(bytearray(MAX_PIECE_BYTES))
        #: Set, and replaced by a new one, when the last connection has closed.
        self.emptied = trio.Event()

    def add(self, connection: Session) -> None:
        self.connections.add(connection)
        self.observer.connection_opened()

    def remove(self, connection: Session) -> None:
        self.connections.discard(connection)
        self.observer.connection_closed()
        if not self.connections:
            self.emptied.set()
            self.emptied = trio.Event()
