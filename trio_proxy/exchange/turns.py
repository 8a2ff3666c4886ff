"""Fairness: nobody keeps the others from having their turn, however much is there for it to do.

An operation that finds its bytes ready never goes through the scheduler, so a client that sends
without a pause would have the event loop to itself. One counter for each client connection counts
whatever is done for it: requests, refusals, pieces, interim responses, chunks, dials that fail.
"""

from __future__ import annotations

import trio

#: Operations in a row that found their bytes ready before a connection lets the others run.
TURNS_WITHOUT_CHECKPOINT = 16


class Turns:
    """The turns of one client connection."""

    __slots__ = ("_taken",)

    def __init__(self) -> None:
        self._taken = 0

    def take(self, turns: int = 1) -> bool:
        """Count an operation; whether it is time to `pass_on`.

        A large operation counts for as many ``turns`` as it takes the time of.
        """
        self._taken += turns
        return self._taken >= TURNS_WITHOUT_CHECKPOINT

    def rest(self) -> None:
        """The connection waits for its client, so the others have their turn anyway."""
        self._taken = 0

    async def pass_on(self) -> None:
        """Let the others run."""
        self._taken = 0
        await trio.lowlevel.checkpoint()
