"""A request body that can be sent again, as far as it fits into memory."""

from __future__ import annotations

from typing import TypeVar

from trio_proxy.http.messages import CONTENT_PIECE_BYTES, Chunk, Content, Fields

C = TypeVar("C", bound=Chunk)


class ReplayContent:
    """`Content` that keeps the first ``limit`` bytes of another one to give them out again.

    A body that turns out longer is passed on all the same, and its copy is let go at once.
    """

    def __init__(self, content: Content, limit: int) -> None:
        self._content = content
        self._room = limit
        self._kept: bytearray | None = bytearray()
        #: What is to be given out again.
        self._again = b""

    @property
    def complete(self) -> bool:
        return self._content.complete and not self._again

    @property
    def trailers(self) -> Fields:
        return self._content.trailers

    @property
    def awaits_continue(self) -> bool:
        return self._content.awaits_continue

    @property
    def can_rewind(self) -> bool:
        """Whether everything that was taken can be taken again."""
        return self._kept is not None

    def rewind(self) -> None:
        """Begin again with the first byte."""
        assert self._kept is not None
        self._again = bytes(self._kept)

    def let_go(self) -> None:
        """There will be no further try: keep nothing."""
        self._kept = None

    def take_nowait(self) -> bytes:
        return self._take_again() or self._keep(self._content.take_nowait())

    def receive_nowait(self, most: int) -> Chunk | None:
        if self._again:
            return self._take_again()
        piece = self._content.receive_nowait(most)
        return None if piece is None else self._keep(piece)

    async def receive(self, most: int = CONTENT_PIECE_BYTES) -> Chunk:
        if self._again:
            return self._take_again()
        return self._keep(await self._content.receive(most))

    def _take_again(self) -> bytes:
        again, self._again = self._again, b""
        return again

    def _keep(self, data: C) -> C:
        if self._kept is not None:
            self._room -= len(data)
            if self._room < 0:
                self._kept = None
            else:
                self._kept += data
        return data
