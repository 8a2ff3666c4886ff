"""``[[routes]]``: which requests go to which pool, or to a handler, and what they pass before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import field, frozen
from attrs.validators import optional

import trio_proxy.settings.checks as check
from trio_proxy.settings.messages import route_path
from trio_proxy.settings.table import SettingError, Table


@frozen(kw_only=True)
class RouteSettings(Table):
    """Requests whose path begins with ``path`` go to the pool of that name, or to a handler.

    Whole segments count: ``/v1`` stands for itself and for what begins with ``/v1/``, and ``/v1/``
    for the latter alone. The longest path wins, whatever their order.
    """

    path: str = field(default="/", validator=route_path)
    #: The name of a pool; in its place there can be a ``handler``.
    pool: str | None = field(default=None, validator=optional(check.token("a pool")))
    #: The name of a handler that `trio_proxy.open_proxy` is given.
    handler: str | None = field(default=None, validator=optional(check.token("a handler")))
    #: The names of what requests pass before, in this order.
    middlewares: tuple[str, ...] = field(
        default=(), validator=check.tuple_of(check.token("a middleware"))
    )

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[SettingError]:
        if "pool" not in values or "handler" not in values:
            return
        if values["pool"] is None and values["handler"] is None:
            yield SettingError("pool", "is missing", "expected the name of a pool")
        elif values["pool"] is not None and values["handler"] is not None:
            wrong = "is given beside pool"
            yield SettingError("handler", wrong, "expected one of the two")
