"""The accept loop: a client takes a token before it is accepted, so a crowd waits in the kernel.

trio's `serve_listeners` has no cap on connections and lets one handler's exception end the server;
this loop has the cap in front and catches at the boundary of each connection.
"""

from __future__ import annotations

import logging

import trio

from trio_proxy.exchange.complaint import Complaint
from trio_proxy.exchange.streams import Stream
from trio_proxy.front.h1_session import ServerSession
from trio_proxy.front.service import Service
from trio_proxy.net.network import Listener

log = logging.getLogger("trio_proxy.server")

#: Pause when the system refuses another connection (EMFILE, ENFILE, ENOBUFS, ENOMEM).
BACKOFF_SECONDS = 0.1

#: Connections taken before the others have a turn: so many, or a share of those that are open if
#: that is more. A turn takes the longer the more of them are at work, and with a fixed number the
#: newcomers of a burst would wait in the backlog for a second each time.
ACCEPTS_PER_TURN = 64
SHARE_PER_TURN = 1 / 4


class Acceptor:
    """Accepts from one or several listeners into one nursery, under one limiter."""

    def __init__(
        self,
        service: Service,
        limiter: trio.CapacityLimiter,
        nursery: trio.Nursery,
        *,
        limit_name: str = "limits.max_client_conns",
    ) -> None:
        self._service = service
        self._limiter = limiter
        self._nursery = nursery
        self._limit_name = limit_name
        self._full = Complaint(log)
        self._refused = Complaint(log)

    async def run(self, listener: Listener) -> None:
        """Accept until cancelled or the listener is closed."""
        while True:
            try:
                await listener.wait_readable()
                share = int(len(self._service.connections) * SHARE_PER_TURN)
                for _ in range(max(ACCEPTS_PER_TURN, share)):
                    taken = await self._accept_one(listener)
                    if not taken or self._limiter.available_tokens <= 0:
                        break
            except trio.ClosedResourceError:
                return

    async def _accept_one(self, listener: Listener) -> bool:
        """Take a token and a connection; False if there was none to take."""
        token = object()
        try:
            self._limiter.acquire_on_behalf_of_nowait(token)
        except trio.WouldBlock:
            self._full.warn("%s (%d) reached", self._limit_name, self._limiter.total_tokens)
            await self._limiter.acquire_on_behalf_of(token)
        stream = None
        try:
            stream = listener.accept_nowait()
        except OSError as exc:
            self._refused.warn("cannot accept on %s: %s", listener.address, exc)
            await trio.sleep(BACKOFF_SECONDS)
        finally:
            if stream is None:
                self._limiter.release_on_behalf_of(token)
        if stream is None:
            return False
        self._nursery.start_soon(self._serve, stream, token)
        return True

    async def _serve(self, stream: Stream, token: object) -> None:
        """The boundary of one connection: whatever fails in it stays in it."""
        try:
            await ServerSession(stream, self._service).run()
        except* Exception as group:
            for exc in _leaves(group):
                log.exception("error in a client connection", exc_info=exc)
        finally:
            stream.close()
            self._limiter.release_on_behalf_of(token)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for exc in group.exceptions:
        found += _leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc]
    return found
