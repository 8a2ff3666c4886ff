"""Host names to addresses, without blocking the loop and without one name blocking another.

``getaddrinfo`` cannot be cancelled: a look-up that nobody waits for any more goes on in its thread
until the resolver gives up, often for many seconds. So there is at most one look-up per name,
shared by all who want it, in a thread that belongs to no task and takes no place in any thread
limiter that others use. What was found is kept, and used again when the resolver fails or is slow.
"""

from __future__ import annotations

import contextlib
import functools
import math
import socket
from collections.abc import Sequence

import outcome
import trio
from attrs import define, field

#: Names being looked up at once; more than this many stuck ones and further names fail at once.
MAX_LOOKUPS = 64

#: Names remembered; a configuration with more loses the oldest.
MAX_NAMES = 4096

#: Addresses kept of one name.
MAX_ADDRESSES = 8

#: For how long an answer is taken without asking again: a burst of dials is one question.
FRESH_SECONDS = 1.0

#: How long a dial waits for a new answer when there is an old one.
PATIENCE_SECONDS = 0.25


class LookupFailed(OSError):
    """A host name that has no address, or none that could be found out."""


@define(eq=False)
class _Name:
    """What is known of one name, and the look-up under way, if any."""

    addresses: Sequence[str] = ()
    fresh_until: float = -math.inf
    failure: Exception | None = None
    lookup: trio.Event | None = field(default=None, repr=False)


class Resolver:
    """Look-ups with ``getaddrinfo``, so ``/etc/hosts`` and the system's settings apply."""

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}
        self._limiter = trio.CapacityLimiter(MAX_LOOKUPS)

    async def resolve(self, host: str) -> Sequence[str]:
        """IP literals for a host name, at least one. Raises LookupFailed."""
        name = self._name(host)
        if trio.current_time() < name.fresh_until:
            return name.addresses
        lookup = name.lookup if name.lookup is not None else self._start(host, name)
        with trio.move_on_after(PATIENCE_SECONDS if name.addresses else math.inf):
            await lookup.wait()
        if not name.addresses:
            raise LookupFailed(f"cannot resolve {host}: {name.failure}") from name.failure
        return name.addresses

    def _name(self, host: str) -> _Name:
        name = self._names.get(host)
        if name is None:
            if len(self._names) >= MAX_NAMES:
                del self._names[next(iter(self._names))]
            name = self._names[host] = _Name()
        return name

    def _start(self, host: str, name: _Name) -> trio.Event:
        try:
            self._limiter.acquire_on_behalf_of_nowait(name)
        except trio.WouldBlock as exc:
            raise LookupFailed(f"cannot resolve {host}: too many look-ups under way") from exc
        name.lookup = trio.Event()
        trio_token = trio.lowlevel.current_trio_token()

        def deliver(result: outcome.Outcome[Sequence[str]]) -> None:
            """In the look-up's thread."""
            with contextlib.suppress(trio.RunFinishedError):  # nobody is left to tell
                trio_token.run_sync_soon(self._finish, name, result)

        trio.lowlevel.start_thread_soon(functools.partial(_look_up, host), deliver, f"dns {host}")
        return name.lookup

    def _finish(self, name: _Name, result: outcome.Outcome[Sequence[str]]) -> None:
        self._limiter.release_on_behalf_of(name)
        try:
            name.addresses = result.unwrap()
            name.fresh_until = trio.current_time() + FRESH_SECONDS
        except (OSError, UnicodeError) as exc:
            name.failure = exc
        assert name.lookup is not None
        name.lookup.set()
        name.lookup = None


def _look_up(host: str) -> Sequence[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))[:MAX_ADDRESSES]
