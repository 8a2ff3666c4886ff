"""The addresses that are listened on, and how they change without refusing a connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeAlias, TypeVar

from trio_proxy.http.addresses import Address, TcpAddress
from trio_proxy.settings import Settings

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


class Listeners(Generic[L]):
    """Bound listeners in the order of the settings, on the addresses that ``wanted`` finds there.

    ``opened`` is told of each one that is new and in force, ``closed`` of each that is given up.
    """

    def __init__(
        self,
        binder: Binder[L],
        wanted: Callable[[Settings], Sequence[Address]],
        opened: Callable[[L], None],
        closed: Callable[[L], None],
    ) -> None:
        self._binder = binder
        self._wanted = wanted
        self._opened = opened
        self._closed = closed
        self._bound: dict[ListenKey, L] = {}
        self._prepared: dict[ListenKey, L] = {}
        self._fresh: list[L] = []

    @property
    def addresses(self) -> list[Address]:
        """What is bound, with real port numbers."""
        return [listener.address for listener in self._bound.values()]

    @property
    def bound(self) -> list[L]:
        """The listeners themselves."""
        return list(self._bound.values())

    @property
    def prepared(self) -> list[L]:
        """Those that there will be after a `commit`."""
        return list(self._prepared.values())

    async def prepare(self, settings: Settings) -> None:
        """Bind what is new. Raises OSError, and then leaves nothing new bound."""
        wanted = self._wanted(settings)
        kept = self._keep(wanted)
        self._prepared, self._fresh = {}, []
        try:
            for key in _keys(wanted):
                if key in kept:
                    self._prepared[key] = kept[key]
                else:
                    self._fresh.append(listener := await self._binder.listen(key[0]))
                    self._prepared[key] = listener
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Close what was bound for it."""
        for listener in self._fresh:
            listener.close()
        self._prepared, self._fresh = {}, []

    def commit(self) -> None:
        """Give up what is wanted no longer; serve what is new."""
        gone = [old for old in self._bound.values() if old not in self._prepared.values()]
        self._bound, fresh = self._prepared, self._fresh
        self._prepared, self._fresh = {}, []
        for listener in gone:
            listener.close()
            self._closed(listener)
        for listener in fresh:
            self._opened(listener)

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
