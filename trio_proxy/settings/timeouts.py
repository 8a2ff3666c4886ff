"""``[timeouts]``: how long each kind of wait may take."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType

import attrs
from attrs import frozen

from trio_proxy.settings.checks import milliseconds, to_seconds
from trio_proxy.settings.table import Table


@frozen(kw_only=True)
class Timeouts(Table):
    """Deadlines in milliseconds, each for one kind of wait; 0 means none."""

    connect_ms: int = milliseconds(1000)
    read_ms: int = milliseconds(15_000)
    write_ms: int = milliseconds(15_000)
    total_ms: int = milliseconds(30_000)
    head_ms: int = milliseconds(10_000)
    body_ms: int = milliseconds(15_000)
    idle_ms: int = milliseconds(75_000)
    upstream_idle_ms: int = milliseconds(60_000)
    tunnel_idle_ms: int = milliseconds(300_000)
    drain_ms: int = milliseconds(30_000)

    @cached_property
    def seconds(self) -> Mapping[str, float]:
        """Each budget by its short name ("connect", …) in seconds; infinity where there is none."""
        names = [each.name for each in attrs.fields(Timeouts)]
        return MappingProxyType(
            {name.removesuffix("_ms"): to_seconds(getattr(self, name)) for name in names}
        )
