"""``[dns]``: how the host names of upstreams are looked up."""

from __future__ import annotations

from attrs import field, frozen

import trio_proxy.settings.checks as check
import trio_proxy.settings.places as places
from trio_proxy.settings.checks import milliseconds
from trio_proxy.settings.table import Table


@frozen(kw_only=True)
class Dns(Table):
    """How the host names of upstreams are looked up (nginx: ``resolver``)."""

    #: How often names are asked for again; 0 is never.
    refresh_ms: int = milliseconds(30_000)
    #: Servers to ask; none asks as the system does, by its hosts file and resolver.
    nameservers: tuple[str, ...] = field(default=(), validator=check.tuple_of(places.nameserver))
