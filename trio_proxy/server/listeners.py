"""The addresses a proxy listens on, and how they change without refusing a connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from attrs import frozen

from trio_proxy.addresses import Address, TcpAddress
from trio_proxy.net.streams import Listener, Network

#: An address as it is configured, and which of several equal ones: port 0 can be asked for twice.
ListenKey: TypeAlias = tuple[Address, int]


@frozen
class Change:
    """A set of listeners that is ready to take the place of another."""

    kept: dict[ListenKey, Listener]
    fresh: dict[ListenKey, Listener]

    def abandon(self) -> None:
        """Close what was bound for it."""
        for listener in self.fresh.values():
            listener.close()


class Listeners:
    """Bound listeners in the order of the settings."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._bound: dict[ListenKey, Listener] = {}

    @property
    def addresses(self) -> list[Address]:
        """What is bound, with real port numbers."""
        return [listener.address for listener in self._bound.values()]

    async def prepare(self, wanted: Sequence[Address]) -> Change:
        """Bind what is new among ``wanted``. Raises OSError, and then leaves nothing new bound."""
        kept = self._keep(wanted)
        change = Change(kept, {})
        try:
            for key in _keys(wanted):
                if key not in kept:
                    change.fresh[key] = await self._network.listen(key[0])
        except BaseException:
            change.abandon()
            raise
        return change

    def _keep(self, wanted: Sequence[Address]) -> dict[ListenKey, Listener]:
        """Those whose address stays; a port that the system chose can be named by its number.

        Numbers choose first: only what they leave over may stand for a port 0.
        """
        left = dict(self._bound)
        kept: dict[ListenKey, Listener] = {}
        for key in sorted(_keys(wanted), key=_is_any_port):
            same = [old for old in left if key[0] in (old[0], left[old].address)]
            if same:
                kept[key] = left.pop(key if key in same else same[0])
        return kept

    def swap(
        self, wanted: Sequence[Address], change: Change
    ) -> tuple[list[Listener], list[Address]]:
        """Put a change in force; the listeners to be served now, and the addresses given up."""
        gone = [old for old in self._bound.values() if old not in change.kept.values()]
        for listener in gone:
            listener.close()
        both = {**change.kept, **change.fresh}
        self._bound = {key: both[key] for key in _keys(wanted)}
        return list(change.fresh.values()), [listener.address for listener in gone]

    def close(self) -> None:
        """Close them all."""
        for listener in self._bound.values():
            listener.close()


def _is_any_port(key: ListenKey) -> bool:
    return isinstance(key[0], TcpAddress) and key[0].port == 0


def _keys(addresses: Sequence[Address]) -> list[ListenKey]:
    return [(address, addresses[:at].count(address)) for at, address in enumerate(addresses)]
