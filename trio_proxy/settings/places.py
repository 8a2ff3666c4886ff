"""Validators of where things are: hosts, addresses, sockets, DNS names, and URLs of a Redis."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import attrs

from trio_proxy.http.addresses import MAX_UNIX_PATH, Address, TcpAddress, UnixAddress, parse_address
from trio_proxy.settings.table import SettingError, quote, show

#: One label after another without a choice, so that matching takes linear time.
_LABEL = "[A-Za-z0-9_][A-Za-z0-9_-]*"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\.?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


def unix_path(_: object, key: attrs.Attribute[Any], value: object) -> None:
    """The path of a unix-domain socket, without the ``unix:`` of an address."""
    try:
        if isinstance(value, str) and not value.startswith("unix:"):
            parse_address(f"unix:{value}")
            return
    except ValueError:
        pass  # too long, or no path at all
    expected = f"expected the path of a unix socket, of at most {MAX_UNIX_PATH} bytes"
    raise SettingError(key.name, f"is {show(value)}", expected)


def host(_: object, key: attrs.Attribute[Any], value: object) -> None:
    """A host name (RFC 1123, and the underscore that container names use) or an IP literal."""
    if not isinstance(value, str) or not _is_host(value):
        expected = "expected a host name or an IP address, without brackets or port"
        raise SettingError(key.name, f"is {show(value)}", expected)


def service(_: object, key: attrs.Attribute[Any], value: object) -> None:
    """The name that SRV records are asked of (RFC 2782)."""
    if not isinstance(value, str) or not _is_name(value):
        expected = 'expected a name as "_http._tcp.app.example", without a port'
        raise SettingError(key.name, f"is {show(value)}", expected)


def nameserver(_: object, key: attrs.Attribute[Any], value: object) -> None:
    """The IP address of a DNS server, with or without a port."""
    expected = 'expected an IP address, with or without a port, as "10.0.0.2:53"'
    if not isinstance(value, str) or not _is_nameserver(value):
        raise SettingError(key.name, f"is {show(value)}", expected)


def _is_nameserver(text: str) -> bool:
    if _is_ip(text):
        return True
    try:
        found = parse_address(text, lowest_port=1)
    except ValueError:
        return False
    return isinstance(found, TcpAddress) and _is_ip(found.host)


def address(_: object, key: attrs.Attribute[Any], value: object) -> None:
    """An address to listen on; port 0 asks the system for a free one."""
    check_address(value, key=key.name, lowest_port=0)


def check_address(value: object, *, key: str, lowest_port: int) -> None:
    """Raise SettingError unless the value is an `Address` that can be listened on or dialled."""
    if not isinstance(value, TcpAddress | UnixAddress):
        raise SettingError(key, f"is {show(value)}", "expected TcpAddress or UnixAddress")
    if isinstance(value, TcpAddress) and not (_is_host(value.host) and type(value.port) is int):
        expected = "expected a host name or an IP address, and a port"
        raise SettingError(key, f"is {quote(str(value))}", expected)
    read_address(str(value), key=key, lowest_port=lowest_port)


def read_address(text: str, *, key: str = "", lowest_port: int = 0) -> Address:
    """Like `parse_address`, with a checked host name; raises SettingError."""
    try:
        found = parse_address(text, lowest_port=lowest_port)
    except ValueError as exc:
        reason, comma, _ = str(exc).partition(", got")
        expected = reason if comma else "expected host:port, [IPv6]:port or unix:/path"
        raise SettingError(key, f"is {quote(text)}", expected) from exc
    if isinstance(found, TcpAddress) and not _is_host(found.host):
        expected = "expected a host name or an IP address before the port"
        raise SettingError(key, f"is {quote(text)}", expected)
    return found


def canonical(value: Address) -> Address:
    """One spelling for each address, so that equal ones are found equal."""
    if isinstance(value, UnixAddress):
        return value
    try:
        return TcpAddress(str(ipaddress.ip_address(value.host)), value.port)
    except ValueError:
        return TcpAddress(value.host.lower(), value.port)


def clash(one: Address, other: Address) -> bool:
    """Both are the same place. Port 0 is a new port every time."""
    return canonical(one) == canonical(other) and not is_any_port(one)


def is_any_port(value: Address) -> bool:
    return isinstance(value, TcpAddress) and value.port == 0


def repeated(key: str, places: Iterable[Address | str | None]) -> Iterator[SettingError]:
    """One error for each place that was there before; None stands for a faulty one.

    A place is an address, or a name that is told apart by its spelling.
    """
    seen: dict[Address | str, int] = {}
    for index, each in enumerate(places):
        if each is None or (not isinstance(each, str) and is_any_port(each)):
            continue
        first = seen.setdefault(each if isinstance(each, str) else canonical(each), index)
        if first != index:
            wrong = f"{each} is there already, at index {first}"
            yield SettingError(f"{key}[{index}]", wrong, "expected each address once")


def is_redis_url(value: object) -> bool:
    """Whether `trio_proxy.middleware.ratelimit.redis_connection` can make something of it.

    coredis takes more, but silently ignores what it does not understand: a database that is no
    number, an option that it does not know.
    """
    found = _REDIS_URL.fullmatch(value) if isinstance(value, str) else None
    if found is None or not _is_host(found["host"].strip("[]")):
        return False
    if found["port"] is not None and not 1 <= int(found["port"]) <= 65535:
        return False
    if not found["query"]:
        return True
    return found["scheme"] == "rediss" and _are_tls_options(found["query"])


def _are_tls_options(query: str) -> bool:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        return False
    options = dict(pairs)
    if options.get("ssl_cert_reqs") == "none" and options.get("ssl_check_hostname") == "true":
        return False  # the name in a certificate that nobody looks at
    return len(options) == len(pairs) and all(
        name in _TLS_OPTIONS and _TLS_OPTIONS[name].fullmatch(text) for name, text in pairs
    )


#: What of RFC 3986 is used: user name and password are percent-encoded where they must be.
_REDIS_URL = re.compile(
    r"""(?P<scheme>rediss?)://([!"$-.0->@-Z\\^-~]*@)?"""
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?"
    r"(/[0-9]{0,5})?(\?(?P<query>[!-~]*))?"
)

#: How the server of a rediss:// URL is authenticated, as coredis names it.
_TLS_OPTIONS = {
    "ssl_ca_certs": re.compile(r".+"),
    "ssl_certfile": re.compile(r".+"),
    "ssl_keyfile": re.compile(r".+"),
    "ssl_cert_reqs": re.compile(r"none|optional|required"),
    "ssl_check_hostname": re.compile(r"true|false"),
}


def _is_host(text: object) -> bool:
    return isinstance(text, str) and (_is_ip(text) or _is_name(text))


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_name(text: str) -> bool:
    # The resolver would read 1.2.3 or 0x7f.1 as an IPv4 address of another spelling.
    last = text.rstrip(".").rpartition(".")[2]
    return bool(_HOST_NAME.fullmatch(text)) and not _NUMBER.fullmatch(last)
