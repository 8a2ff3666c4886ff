"""The fields of a head that was read, with what was seen of them in the same pass."""

from __future__ import annotations

from trio_proxy.messages import Field


class SortedFields(list[Field]):
    """The fields of a head as they were read.

    ``plain`` are those that simply go on to the other side, in order; ``kinds`` is the OR of what
    `trio_proxy.names` says about all of them. Who wants other fields puts another list in its
    place: a change of this one would not be noticed.
    """

    __slots__ = ("kinds", "plain")

    kinds: int
    plain: list[Field]
