"""``[limits]``: how much of everything, and what of that each pool has for itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from attrs import field, frozen

import trio_proxy.settings.checks as check
from trio_proxy.settings.checks import MAX_CONNECTIONS, milliseconds, number, to_seconds
from trio_proxy.settings.table import SettingError, Table

#: What nginx's client_max_body_size can hold (a signed 64-bit ``off_t``).
MAX_BODY_BYTES = 2**63 - 1


@frozen(kw_only=True)
class PoolLimits(Table):
    """How much of everything a pool has: connections, waiting requests."""

    max_conns_per_upstream: int = number(100, 1, MAX_CONNECTIONS)
    #: Requests that wait for an upstream connection; with 0 none waits.
    max_queue: int = number(1000, 0, MAX_CONNECTIONS)
    queue_ms: int = milliseconds(5000)
    #: Who of those that wait comes first: always the oldest, or under overload the newest.
    queue: Literal["fifo", "lifo"] = field(default="fifo", validator=check.one_of("fifo", "lifo"))
    #: The wait beyond which a queue that stands counts as overload, for ``lifo``.
    queue_target_ms: int = milliseconds(100, 1)

    @property
    def queue_seconds(self) -> float:
        """The longest wait for an upstream connection in seconds; infinity for 0."""
        return to_seconds(self.queue_ms)


@frozen(kw_only=True)
class Limits(PoolLimits):
    """How much of everything: connections, waiting requests, bytes."""

    max_client_conns: int = number(1000, 1, MAX_CONNECTIONS)
    max_head_bytes: int = number(32_768, 1024, 1_048_576)
    max_header_fields: int = number(100, 1, 10_000)
    max_target_bytes: int = number(8192, 16, 1_048_576)
    #: 0 means no limit.
    max_body_bytes: int = number(0, 0, MAX_BODY_BYTES)

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[SettingError]:
        target, head = values.get("max_target_bytes", 0), values.get("max_head_bytes", math.inf)
        if target > head:
            wrong = f"is {target}, but the whole head may have only {head} bytes"
            yield SettingError(
                "max_target_bytes", wrong, f"expected at most max_head_bytes, {head}"
            )
