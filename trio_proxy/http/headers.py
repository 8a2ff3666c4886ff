"""The fields of a head that was read, and of one that is made of it, with what is known of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from trio_proxy.http.messages import Field


class SortedFields(list[Field]):
    """The fields of a head as they were read.

    ``plain`` are those that simply go on to the other side, in order, ``lines`` the lines to write
    for them; ``kinds`` is the OR of what `trio_proxy.http.names` says about all of them. Who wants
    other fields puts another list in its place: a change of this one would not be noticed.
    """

    __slots__ = ("kinds", "lines", "plain")

    kinds: int
    plain: list[Field]
    lines: list[bytes]


class RelayedFields(Sequence[Field]):
    """The fields of a head to be written, most of which go on from one that was read.

    ``own`` are those that the proxy says itself; behind the first ``begin`` of them come the plain
    ones of ``read``, whose lines were checked when they were read.
    """

    __slots__ = ("begin", "own", "read")

    def __init__(self, read: SortedFields, own: list[Field], begin: int) -> None:
        self.read = read
        self.own = own
        self.begin = begin

    def all(self) -> list[Field]:
        """Every field in order."""
        return [*self.own[: self.begin], *self.read.plain, *self.own[self.begin :]]

    def __len__(self) -> int:
        return len(self.own) + len(self.read.plain)

    def __iter__(self) -> Iterator[Field]:
        return iter(self.all())

    @overload
    def __getitem__(self, index: int) -> Field: ...

    @overload
    def __getitem__(self, index: slice) -> list[Field]: ...

    def __getitem__(self, index: int | slice) -> Field | list[Field]:
        return self.all()[index]
