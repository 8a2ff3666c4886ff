"""``[logging]``: what is logged and how."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import field, frozen

import trio_proxy.settings.checks as check
from trio_proxy.settings.table import Table

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]


@frozen(kw_only=True)
class LoggingSettings(Table):
    """What is logged and how."""

    level: LogLevel = field(
        default="info", validator=check.one_of("debug", "info", "warning", "error")
    )
    format: Literal["text", "json"] = field(default="text", validator=check.one_of("text", "json"))
    access: bool = field(default=True, validator=check.boolean)
