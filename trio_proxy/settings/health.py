"""``[health]``: active checks, and what counts for the passive ones."""

from __future__ import annotations

from attrs import field, frozen

import trio_proxy.settings.checks as check
from trio_proxy.settings.checks import milliseconds, number
from trio_proxy.settings.messages import host_field, request_path, status_pattern, statuses
from trio_proxy.settings.table import Table


@frozen(kw_only=True)
class Health(Table):
    """Active checks, which are off without a path, and what counts for the passive ones."""

    path: str = field(default="", validator=request_path)
    interval_ms: int = milliseconds(5000, 10)
    timeout_ms: int = milliseconds(1000, 1)
    #: Passed checks in a row that bring an upstream back, and failed ones that take it out.
    rise: int = number(2, 1, 1000)
    fall: int = number(3, 1, 1000)
    expect: tuple[str, ...] = field(
        default=("2xx", "3xx"), validator=check.tuple_of(status_pattern, at_least_one="status")
    )
    #: Text that must be in the first 64 KiB of the body; "" for any body.
    expect_body: str = field(default="", validator=check.text(1024))
    #: What Host says in a check; "" is the upstream's name or address.
    host: str = field(default="", validator=host_field)
    #: Statuses that count as failures of a request for ``max_fails``.
    fail_statuses: tuple[str, ...] = statuses()
    #: With less than this share of a pool's upstreams available, not counting the backups, health
    #: is ignored; 0: only with none.
    panic_percent: int = number(0, 0, 100)
