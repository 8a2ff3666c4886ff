"""When a process that died is started again: at once, then after ever longer pauses."""

from __future__ import annotations

#: Seconds before the second restart in a row; doubled for each further one.
FIRST_PAUSE_SECONDS = 0.5

#: The longest pause, in seconds.
MAX_PAUSE_SECONDS = 30.0

#: A process that has lived so long is a sound one: its death begins a new row.
SOUND_AFTER_SECONDS = 60.0


class Restarts:
    """The deaths in a row of one process and its successors."""

    def __init__(self) -> None:
        self._pause = 0.0

    def __repr__(self) -> str:
        return f"<Restarts next after {self._pause} s>"

    def pause_after(self, lived_seconds: float) -> float:
        """Seconds to wait before the successor of one that has just died is started."""
        if lived_seconds >= SOUND_AFTER_SECONDS:
            self._pause = 0.0
        pause = self._pause
        self._pause = min(MAX_PAUSE_SECONDS, pause * 2 or FIRST_PAUSE_SECONDS)
        return pause
