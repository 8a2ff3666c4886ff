"""``[[routes]]``: which requests go to which pool."""

from __future__ import annotations

from attrs import field, frozen

import trio_proxy.settings.checks as check
from trio_proxy.settings.messages import route_path
from trio_proxy.settings.table import Table


@frozen(kw_only=True)
class RouteSettings(Table):
    """Requests whose path begins with ``path`` go to the pool of that name.

    Whole segments count: ``/v1`` stands for itself and for what begins with ``/v1/``, and ``/v1/``
    for the latter alone. The longest path wins, whatever their order.
    """

    path: str = field(default="/", validator=route_path)
    pool: str = field(
        validator=check.token("a pool"), metadata={"expected": "expected the name of a pool"}
    )
