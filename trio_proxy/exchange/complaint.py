"""Warnings that would flood the log: a busy proxy at a limit would log of nothing else."""

from __future__ import annotations

import logging
import math
import time

#: The same complaint is logged at most this often, in seconds.
COMPLAINT_SECONDS = 1.0


class Complaint:
    """One kind of warning, logged at most once in `COMPLAINT_SECONDS`."""

    __slots__ = ("_log", "_silent_until")

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._silent_until = -math.inf

    def warn(self, message: str, *args: object) -> None:
        if self._is_due():
            self._log.warning(message, *args)

    def fault(self, message: str, *args: object) -> None:
        """Log the exception that is being handled, with its traceback, as an error."""
        if self._is_due():
            self._log.exception(message, *args)

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now < self._silent_until:
            return False
        self._silent_until = now + COMPLAINT_SECONDS
        return True
