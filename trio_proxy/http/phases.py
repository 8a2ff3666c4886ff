"""The steps that every exchange walks through.

The same names appear in errors, log lines, metrics and tests.
"""

from __future__ import annotations

import enum


class Phase(enum.StrEnum):
    """Where an exchange is, and so where it failed."""

    READ_HEAD = "read_head"
    ROUTE = "route"
    REQUEST_FILTER = "request_filter"
    PICK = "pick"
    CONNECT = "connect"
    SEND = "send"
    AWAIT_HEAD = "await_head"
    STREAM = "stream"
    LOG = "log"
