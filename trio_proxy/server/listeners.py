"""The addresses a proxy listens on, and how they change without refusing a connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeAlias, TypeVar

from attrs import frozen

from trio_proxy.http.addresses import Address, TcpAddress

#: An address as it is configured, and which of several equal ones: port 0 can be asked for twice.
ListenKey: TypeAlias = tuple[Address, int]


class Bound(Protocol):
    """What listens on an address."""

    #: What was bound, with the real port when port 0 was asked for.
    address: Address

    def close(self) -> None: ...


L = TypeVar("L", bound=Bound)
L_co = TypeVar("L_co", bound=Bound, covariant=True)


class Binder(Protocol[L_co]):
    """Makes them; a `trio_proxy.net.network.Network` does."""

    async def listen(self, address: Address) -> L_co:
        """Raises OSError."""
        ...


@frozen
class Change(Generic[L]):
    """A set of listeners, in the order of the settings, ready to take the place of another."""

    bound: dict[ListenKey, L]
    fresh: list[L]

    def abandon(self) -> None:
        """Close what was bound for it."""
        for listener in self.fresh:
            listener.close()


class Listeners(Generic[L]):
    """Bound listeners in the order of the settings."""

    def __init__(self, binder: Binder[L]) -> None:
        self._binder = binder
        self._bound: dict[ListenKey, L] = {}

    @property
    def addresses(self) -> list[Address]:
        """What is bound, with real port numbers."""
        return [listener.address for listener in self._bound.values()]

    @property
    def bound(self) -> list[L]:
        """The listeners themselves."""
        return list(self._bound.values())

    async def prepare(self, wanted: Sequence[Address]) -> Change[L]:
        """Bind what is new among ``wanted``. Raises OSError, and then leaves nothing new bound."""
        kept = self._keep(wanted)
        change: Change[L] = Change({}, [])
        try:
            for key in _keys(wanted):
                if key in kept:
                    change.bound[key] = kept[key]
                else:
                    change.fresh.append(listener := await self._binder.listen(key[0]))
                    change.bound[key] = listener
        except BaseException:
            change.abandon()
            raise
        return change

    def _keep(self, wanted: Sequence[Address]) -> dict[ListenKey, L]:
        """Those whose address stays; a port that the system chose can be named by its number.

        Numbers choose first: only what they leave over may stand for a port 0.
        """
        left = dict(self._bound)
        kept: dict[ListenKey, L] = {}
        for key in sorted(_keys(wanted), key=_is_any_port):
            same = [old for old in left if key[0] in (old[0], left[old].address)]
            if same:
                kept[key] = left.pop(key if key in same else same[0])
        return kept

    def swap(self, change: Change[L]) -> list[Address]:
        """Put a change in force; the addresses that are given up."""
        gone = [old for old in self._bound.values() if old not in change.bound.values()]
        for listener in gone:
            listener.close()
        self._bound = change.bound
        return [listener.address for listener in gone]

    def close(self) -> None:
        """Close them all."""
        for listener in self._bound.values():
            listener.close()


def shown(address: Address) -> str:
    """A place as the log has it."""
    return f"http://{address}" if isinstance(address, TcpAddress) else str(address)


def _is_any_port(key: ListenKey) -> bool:
    return isinstance(key[0], TcpAddress) and key[0].port == 0


def _keys(addresses: Sequence[Address]) -> list[ListenKey]:
    return [(address, addresses[:at].count(address)) for at, address in enumerate(addresses)]
