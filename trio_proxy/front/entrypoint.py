"""An entrypoint: where is listened, how many may connect, and what they are served by.

The proxy's clients come by one and the scrapers of metrics by another. It follows the settings as
every part of a reload does: what it listens on, its cap and its plan change between two task steps,
and whoever is connected stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import trio
from attrs import frozen

from trio_proxy.front.acceptor import Acceptor
from trio_proxy.front.listeners import Listeners
from trio_proxy.front.plan import Plan
from trio_proxy.front.service import Observer, Service
from trio_proxy.http.addresses import Address
from trio_proxy.net.network import Listener, Network
from trio_proxy.settings import Settings

log = logging.getLogger("trio_proxy.server")

#: What exchanges that a drain cuts off have to say so, in seconds.
CUT_SECONDS = 1.0


@frozen(kw_only=True)
class EntrypointRules:
    """What an entrypoint takes of the settings, each by a function.

    ``plan`` is asked when everything else that it is made of is in force. ``limit_name`` is what
    the log calls ``max_conns``; ``opened`` and ``closed`` are told of addresses.
    """

    addresses: Callable[[Settings], Sequence[Address]]
    max_conns: Callable[[Settings], int]
    plan: Callable[[Settings], Plan]
    limit_name: str
    opened: Callable[[Address], None]
    closed: Callable[[Address], None]


class Entrypoint:
    """Listeners, a cap on connections, and the service that they have in common."""

    service: Service
    limiter: trio.CapacityLimiter

    def __init__(self, network: Network, rules: EntrypointRules, observer: Observer) -> None:
        self._rules = rules
        self._observer = observer
        self._listeners: Listeners[Listener] = Listeners(
            network, rules.addresses, self._opened, lambda listener: rules.closed(listener.address)
        )
        self._prepared: Settings
        self._is_in_force = False
        self._background: trio.Nursery | None = None
        self._acceptor: Acceptor

    def __repr__(self) -> str:
        return f"<Entrypoint on {', '.join(map(str, self.addresses))}>"

    @property
    def addresses(self) -> list[Address]:
        """Where it listens, with real port numbers, in the order of the settings."""
        return self._listeners.addresses

    # Settings

    async def prepare(self, settings: Settings) -> None:
        """Bind what is new. Raises OSError, and then leaves nothing new bound."""
        await self._listeners.prepare(settings)
        self._prepared = settings

    def abandon(self) -> None:
        """Close what was bound for it."""
        self._listeners.abandon()

    def commit(self) -> None:
        """Connections that are open take the new plan with their next request."""
        plan, most = self._rules.plan(self._prepared), self._rules.max_conns(self._prepared)
        if self._is_in_force:
            self.service.plan = plan
            self.limiter.total_tokens = most
        else:
            self.service = Service(plan, self._observer)
            self.limiter = trio.CapacityLimiter(most)
            self._is_in_force = True
        self._listeners.commit()

    # Service

    def start(self, background: trio.Nursery, connections: trio.Nursery) -> None:
        """Serve what is bound, and what is bound later.

        Connections are tasks of the one nursery, everything that serves them of the other.
        """
        self._background = background
        self._acceptor = Acceptor(
            self.service, self.limiter, connections, limit_name=self._rules.limit_name
        )
        background.start_soon(self.service.timers.run)
        for listener in self._listeners.bound:
            self._opened(listener)

    def _opened(self, listener: Listener) -> None:
        if self._background is not None:
            self.serve(listener)
            self._rules.opened(listener.address)

    def serve(self, listener: Listener) -> None:
        """Serve a listener; whoever made it closes it."""
        assert self._background is not None
        self._background.start_soon(self._acceptor.run, listener)

    # Stop

    def close(self) -> None:
        """Accept no more."""
        self._listeners.close()

    async def drain(self, seconds: float) -> None:
        """Accept no more, let exchanges end for at most so long, then cut them off."""
        service = self.service
        if service.draining:
            return
        service.draining = True
        self.close()
        for connection in list(service.connections):
            _call(connection.start_drain)
        with trio.move_on_after(seconds):
            await self._wait_until_empty()
        left = list(service.connections)
        if left:
            log.warning("drain_ms is over: cutting %d connections", len(left))
        for connection in left:
            _call(connection.cut)
        with trio.move_on_after(CUT_SECONDS):
            await self._wait_until_empty()

    async def _wait_until_empty(self) -> None:
        while self.service.connections:
            await self.service.emptied.wait()


def _call(step: Callable[[], None]) -> None:
    """One connection that cannot be drained must not keep the others from it."""
    try:
        step()
    except Exception:
        log.exception("internal error in draining a client connection")
