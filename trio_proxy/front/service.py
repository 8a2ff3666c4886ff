"""What all client connections of one listener share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import trio
from attrs import Factory, define, field, frozen

from trio_proxy.contract import Handler
from trio_proxy.forwarding import HeaderRules
from trio_proxy.lifecycle import Exchange
from trio_proxy.net.timers import Timers
from trio_proxy.wire.requests import HeadLimits

if TYPE_CHECKING:
    from trio_proxy.front.connection import Connection

#: Bytes that move from socket to socket in one go; where the cost of a system call stops to matter.
RELAY_BUFFER_SIZE = 256 * 1024


@frozen(kw_only=True)
class Plan:
    """What a connection needs of the configuration. A reload swaps the whole object.

    ``seconds`` maps the name of each wait to its budget; ``max_body_bytes`` 0 stands for no limit.
    """

    handler: Handler
    seconds: Mapping[str, float]
    rules: HeaderRules = field(factory=HeaderRules)
    head_limits: HeadLimits = field(factory=HeadLimits)
    max_body_bytes: int = 0


class Observer(Protocol):
    """Is told what happens; it never steers."""

    def connection_opened(self) -> None: ...

    def connection_closed(self) -> None: ...

    def request_started(self) -> None: ...

    def exchange_ended(self, exchange: Exchange) -> None: ...


@define(eq=False)
class Service:
    """The current plan, the open connections, and whether new requests are still welcome.

    ``timers`` have to be run as long as there are connections.
    """

    plan: Plan
    observer: Observer
    timers: Timers = Factory(Timers)
    draining: bool = False
    connections: set[Connection] = Factory(set)
    relay_buffer: memoryview = Factory(lambda: memoryview(bytearray(RELAY_BUFFER_SIZE)))
    #: Set, and replaced by a new one, when the last connection has closed.
    emptied: trio.Event = Factory(trio.Event)

    def add(self, connection: Connection) -> None:
        self.connections.add(connection)
        self.observer.connection_opened()

    def remove(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.observer.connection_closed()
        if not self.connections:
            self.emptied.set()
            self.emptied = trio.Event()
