"""``[retry]``: when a failed try is followed by another."""

from __future__ import annotations

from attrs import field, frozen

import trio_proxy.settings.checks as check
from trio_proxy.settings.checks import milliseconds, number
from trio_proxy.settings.table import Table

#: What can befall a try before its response head, and the statuses that can be retried.
RETRY_CONDITIONS = ("connect", "reset", "timeout", "429", "500", "502", "503", "504")


@frozen(kw_only=True)
class Retry(Table):
    """When a failed try is followed by another (nginx: ``proxy_next_upstream``)."""

    #: Tries in all; 1 is no retry.
    attempts: int = number(2, 1, 100)
    try_timeout_ms: int = milliseconds(0)
    on: tuple[str, ...] = field(
        default=("connect", "reset", "timeout"),
        validator=check.tuple_of(check.one_of(*RETRY_CONDITIONS)),
    )
    unsafe_methods: bool = field(default=False, validator=check.boolean)
    #: How much of a request's body is kept for another try.
    replay_bytes: int = number(65_536, 0, 1_073_741_824)
    budget_percent: int = number(20, 0, 1000)
