"""``[[upstreams]]``: where requests go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import field, frozen
from attrs.validators import optional

import trio_proxy.settings.checks as check
import trio_proxy.settings.places as places
from trio_proxy.http.addresses import Address, TcpAddress, UnixAddress
from trio_proxy.settings.checks import MAX_CONNECTIONS, milliseconds, number
from trio_proxy.settings.table import SettingError, Table

MAX_WEIGHT = 65_535


@frozen(kw_only=True)
class UpstreamSettings(Table):
    """Where requests go: ``host`` and ``port``, or ``srv``, or ``unix``, the path of a socket.

    A host name stands for each address that it has, and ``srv`` (RFC 2782, as
    ``_http._tcp.app.example``) for each server that is named there: all of them become members of
    the pool with the settings given here.
    """

    host: str | None = field(default=None, validator=optional(places.host))
    port: int | None = field(default=None, validator=optional(check.whole(1, 65535)))
    srv: str | None = field(default=None, validator=optional(places.service))
    unix: str | None = field(default=None, validator=optional(places.unix_path))
    weight: int = number(1, 1, MAX_WEIGHT)
    #: Connections, idle ones included; None takes `Limits.max_conns_per_upstream`.
    max_conns: int | None = field(default=None, validator=optional(check.whole(1, MAX_CONNECTIONS)))
    #: So many failures within ``fail_timeout_ms`` take it out for as long; 0 is never.
    max_fails: int = number(1, 0, 1000)
    fail_timeout_ms: int = milliseconds(10_000, 1)
    #: Used only when no other is available.
    backup: bool = field(default=False, validator=check.boolean)
    slow_start_ms: int = milliseconds(0)
    #: Gets no new requests but those of clients that are stuck to it.
    drain: bool = field(default=False, validator=check.boolean)

    @property
    def address(self) -> Address:
        """Where it is; of ``srv`` the name that is asked, with port 0."""
        if self.unix is not None:
            return UnixAddress(self.unix)
        if self.srv is not None:
            return TcpAddress(_same_name(self.srv), 0)
        assert self.host is not None
        assert self.port is not None
        return places.canonical(TcpAddress(self.host, self.port))

    @property
    def place(self) -> Address | str:
        """What no other upstream may have: the address, or the name of ``srv``."""
        return self.address if self.srv is None else _same_name(self.srv)

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[SettingError]:
        # A faulty key is absent from the values, and was given all the same.
        keys = ("host", "port", "srv", "unix")
        given = {key for key in keys if values.get(key, "faulty") is not None}
        alone = next((key for key in ("unix", "srv") if key in given), None)
        expected = "expected host and port, or srv, or unix"
        if not given:
            yield SettingError("", "has no address", expected)
        elif alone is not None and len(given) > 1:
            wrong = "is given beside " + " and ".join(sorted(given - {alone}))
            yield SettingError(alone, wrong, expected)
        elif given == {"host"}:
            yield SettingError("port", "is missing", "expected an integer from 1 to 65535")
        elif given == {"port"}:
            yield SettingError("host", "is missing", "expected a host name or an IP address")


def _same_name(srv: str) -> str:
    return srv.lower().rstrip(".")
