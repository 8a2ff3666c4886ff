"""What all client connections of one listener share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from trio_proxy.front.plan import Plan
from trio_proxy.lifecycle import Exchange
from trio_proxy.net.streams import MAX_PIECE_BYTES
from trio_proxy.net.timers import Timers

if TYPE_CHECKING:
    from trio_proxy.front.connection import Connection


class Observer(Protocol):
    """Is told what happens; it never steers."""

    def connection_opened(self) -> None: ...

    def connection_closed(self) -> None: ...

    def request_started(self) -> None: ...

    def exchange_ended(self, exchange: Exchange) -> None: ...


class Service:
    """The current plan, the open connections, and whether new requests are still welcome.

    ``timers`` have to be run as long as there are connections.
    """

    def __init__(self, plan: Plan, observer: Observer) -> None:
        self.plan = plan
        self.observer = observer
        self.timers = Timers()
        self.draining = False
        self.connections: set[Connection] = set()
        self.relay_buffer = memoryview(bytearray(MAX_PIECE_BYTES))
        #: Set, and replaced by a new one, when the last connection has closed.
        self.emptied = trio.Event()

    def add(self, connection: Connection) -> None:
        self.connections.add(connection)
        self.observer.connection_opened()

    def remove(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.observer.connection_closed()
        if not self.connections:
            self.emptied.set()
            self.emptied = trio.Event()
