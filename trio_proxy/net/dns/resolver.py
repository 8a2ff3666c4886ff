"""Host names to addresses, without blocking the loop and without one name blocking another.

``getaddrinfo`` cannot be cancelled: a look-up that nobody waits for any more goes on in its thread
until the resolver gives up, often for many seconds. So there is at most one look-up per name,
shared by all who want it, in a thread that belongs to no task and takes no place in any thread
limiter that others use. What was found is kept for dials, and used again when the resolver fails
or is slow. Who refreshes what is known of a name is told of the failure instead.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import math
import socket
from collections.abc import Callable, Sequence
from typing import TypeAlias

import outcome
import trio
from attrs import define, field

from trio_proxy.net.network import LookupFailed

__all__ = ["Answer", "LookupFailed", "Resolver", "ask_system"]

#: Names being looked up at once; more than this many stuck ones and further names fail at once.
MAX_LOOKUPS = 64

#: Names remembered; a configuration with more loses the oldest.
MAX_NAMES = 4096

#: Addresses of one name that a dial may try.
MAX_ADDRESSES = 8

#: Addresses of one name that a refresh gives out; beyond, those that sort last are left out.
MAX_MEMBERS = 256

#: For how long an answer is taken without asking again: a burst of dials is one question.
FRESH_SECONDS = 1.0

#: How long a dial waits for a new answer when there is an old one.
PATIENCE_SECONDS = 0.25

#: How long a look-up may take in all (the default of dnspython and of a resolv.conf(5) attempt).
LIFETIME_SECONDS = 5.0

Answer: TypeAlias = outcome.Outcome[Sequence[str]]

#: Starts a look-up of a host name, and calls back with its outcome, once, in trio's thread.
StartLookup: TypeAlias = Callable[[str, Callable[[Answer], None]], None]


@define(eq=False)
class _Lookup:
    """One question under way, and later its answer."""

    done: trio.Event = field(factory=trio.Event)
    answer: Answer | None = None

    def finish(self, answer: Answer) -> None:
        self.answer = answer
        self.done.set()


@define(eq=False)
class _Name:
    """What is known of one name, and the look-up under way, if any."""

    addresses: Sequence[str] = ()
    fresh_until: float = -math.inf
    lookup: _Lookup | None = field(default=None, repr=False)


class Resolver:
    """Look-ups of host names; ``start`` decides who is asked."""

    def __init__(self, start: StartLookup | None = None) -> None:
        self._ask = start or ask_system
        self._names: dict[str, _Name] = {}
        self._limiter = trio.CapacityLimiter(MAX_LOOKUPS)

    async def resolve(self, host: str) -> Sequence[str]:
        """IP literals to dial for a host name, in order of preference, at least one.

        An answer of the last second is not asked for again, and an old one is used when a new one
        fails or is slow. Raises LookupFailed.
        """
        name = self._name(host)
        if trio.current_time() < name.fresh_until:
            return name.addresses
        lookup = name.lookup or self._start(host, name)
        with trio.move_on_after(PATIENCE_SECONDS if name.addresses else math.inf):
            await lookup.done.wait()
        return name.addresses or _addresses_in(lookup, host)

    async def refresh(self, host: str) -> Sequence[str]:
        """Every IP literal of a host name, sorted, at least one; never an old answer.

        Shares a look-up that is under way. Raises LookupFailed, after `LIFETIME_SECONDS` at the
        latest.
        """
        name = self._name(host)
        lookup = name.lookup or self._start(host, name)
        with trio.move_on_after(LIFETIME_SECONDS) as scope:
            await lookup.done.wait()
        if scope.cancelled_caught:
            raise LookupFailed(f"cannot resolve {host}: no answer within {LIFETIME_SECONDS:g} s")
        return sorted(_addresses_in(lookup, host), key=_by_number)[:MAX_MEMBERS]

    def _name(self, host: str) -> _Name:
        name = self._names.get(host)
        if name is None:
            if len(self._names) >= MAX_NAMES:
                del self._names[next(iter(self._names))]
            name = self._names[host] = _Name()
        return name

    def _start(self, host: str, name: _Name) -> _Lookup:
        lookup = _Lookup()
        try:
            self._limiter.acquire_on_behalf_of_nowait(name)
        except trio.WouldBlock:
            lookup.finish(outcome.Error(LookupFailed("too many look-ups under way")))
            return lookup
        name.lookup = lookup
        self._ask(host, functools.partial(self._finish, name, lookup))
        return lookup

    def _finish(self, name: _Name, lookup: _Lookup, answer: Answer) -> None:
        self._limiter.release_on_behalf_of(name)
        if isinstance(answer, outcome.Value):
            name.addresses = answer.value[:MAX_ADDRESSES]
            name.fresh_until = trio.current_time() + FRESH_SECONDS
        lookup.finish(answer)
        name.lookup = None


def _addresses_in(lookup: _Lookup, host: str) -> Sequence[str]:
    answer = lookup.answer
    if isinstance(answer, outcome.Error):
        # An exception of its own for each who waits: they share the look-up, not a traceback.
        reason = _reason(answer.error)
        raise LookupFailed(f"cannot resolve {host}: {reason}") from answer.error
    assert isinstance(answer, outcome.Value)
    addresses: Sequence[str] = answer.value  # not unwrap(), which is for one taker
    return addresses


def _reason(error: BaseException) -> str:
    if isinstance(error, UnicodeError):
        return "it is not a host name"
    return str(getattr(error, "strerror", None) or error)


def _by_number(address: str) -> tuple[int, int, str]:
    found = ipaddress.ip_address(address)
    return found.version, int(found), address


def ask_system(host: str, deliver: Callable[[Answer], None]) -> None:
    """Start a look-up with ``getaddrinfo``: ``/etc/hosts`` and the system's settings apply."""
    trio_token = trio.lowlevel.current_trio_token()

    def hand_over(answer: Answer) -> None:
        """In the look-up's thread."""
        with contextlib.suppress(trio.RunFinishedError):  # nobody is left to tell
            trio_token.run_sync_soon(deliver, answer)

    trio.lowlevel.start_thread_soon(functools.partial(_look_up, host), hand_over, f"dns {host}")


def _look_up(host: str) -> Sequence[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
