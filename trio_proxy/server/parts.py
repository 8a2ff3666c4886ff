"""How new settings come into force: prepare everything, then commit everything.

Whatever a start or a reload changes is a `Part`. All that can fail, or takes time, happens while
the parts are prepared, and the settings in force serve on; then all of them are swapped between two
task steps. If one cannot be prepared, those before it are told to forget it, and nothing has
changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from trio_proxy.settings import Settings


class Part(Protocol):
    """One thing that follows the settings."""

    async def prepare(self, settings: Settings) -> None:
        """Get ready for settings; changes nothing that anybody can see.

        Raises OSError if that cannot be done, ConfigError if it never can, and has undone by then
        what it did. What is prepared is committed or abandoned before anything else is prepared.
        """
        ...

    def commit(self) -> None:
        """Put what was prepared in force; it cannot fail."""
        ...

    def abandon(self) -> None:
        """Undo what was prepared."""
        ...


async def put_in_force(parts: Sequence[Part], settings: Settings) -> None:
    """Prepare and commit all parts, in this order.

    Raises OSError or ConfigError; then nothing has changed.
    """
    prepared: list[Part] = []
    try:
        for part in parts:
            await part.prepare(settings)
            prepared.append(part)
    except BaseException:
        for part in reversed(prepared):
            part.abandon()
        raise
    for part in parts:
        part.commit()
