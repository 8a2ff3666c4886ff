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
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + COMPLAINT_SECONDS
            self._log.warning(message, *args)
