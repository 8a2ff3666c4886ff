"""``[balance]``: how an upstream is chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias, get_args

from attrs import field, frozen

import trio_proxy.settings.checks as check
from trio_proxy.settings.messages import cookie_name, request_key
from trio_proxy.settings.table import SettingError, Table

#: ``weighted`` is another word for ``round_robin``, which always heeds weights.
Policy: TypeAlias = Literal[
    "round_robin", "weighted", "least_conn", "random_two", "ip_hash", "hash"
]


@frozen(kw_only=True)
class Balance(Table):
    """How an upstream is chosen."""

    policy: Policy = field(
        default="round_robin",
        validator=check.one_of(*get_args(Policy)),
    )
    #: What ``hash`` looks at; no other policy does.
    key: str = field(
        default="client_ip",
        validator=request_key("client_ip", "path", "uri", "host", prefixes=("header", "cookie")),
    )
    #: Name of a cookie that pins a client to an upstream; "" for none.
    sticky_cookie: str = field(default="", validator=cookie_name)
    #: Makes the cookie's values; "" draws a new one at each start.
    sticky_secret: str = field(default="", validator=check.text(1024, is_secret=True), repr=False)

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[SettingError]:
        if values.get("sticky_secret") and values.get("sticky_cookie") == "":
            expected = "expected a sticky_cookie beside it"
            yield SettingError("sticky_secret", "is of no use alone", expected)
