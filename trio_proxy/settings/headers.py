"""``[headers]``: what is believed, added and passed on in message heads."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal, TypeAlias

import attrs
from attrs import field, frozen

import trio_proxy.settings.checks as check
from trio_proxy.settings.messages import free_field_name
from trio_proxy.settings.table import SettingError, Table, show

#: A network whose forwarding fields are believed; "unix" is every client of a unix-socket listener.
TrustedPeer: TypeAlias = IPv4Network | IPv6Network | Literal["unix"]


def _trusted_peer(_: object, key: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, IPv4Network | IPv6Network) and value != "unix":
        raise SettingError(key.name, f"is {show(value)}", 'expected a network or "unix"')


@frozen(kw_only=True)
class HeaderSettings(Table):
    """What is believed, added and passed on in message heads."""

    trusted_proxies: tuple[TrustedPeer, ...] = field(
        default=(), validator=check.tuple_of(_trusted_peer)
    )
    forwarded: bool = field(default=False, validator=check.boolean)
    host: Literal["preserve", "upstream"] = field(
        default="preserve", validator=check.one_of("preserve", "upstream")
    )
    #: The field that carries the rest of the total budget in milliseconds; "" for none.
    deadline_header: str = field(default="", validator=free_field_name)
    expose_upstream: bool = field(default=False, validator=check.boolean)
