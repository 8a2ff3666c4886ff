"""Where something listens or is dialled: a TCP host and port, or a unix socket path."""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

from attrs import frozen


@frozen
class TcpAddress:
    """``host`` is a name or an IP literal without brackets; ``port`` 0 stands for any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@frozen
class UnixAddress:
    """A unix-domain stream socket in the file system."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


#: Where somebody listens.
Address: TypeAlias = TcpAddress | UnixAddress


def parse_address(text: str, *, lowest_port: int = 0) -> Address:
    """Read ``host:port``, ``[v6]:port`` or ``unix:/path``.

    Raises ValueError with a message that says what was expected.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path or len(path.encode()) > MAX_UNIX_PATH:
            raise ValueError(f"expected unix:/path of at most {MAX_UNIX_PATH} bytes, got {text!r}")
        return UnixAddress(path)
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()):
        raise ValueError(f"expected host:port or unix:/path, got {text!r}")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif ":" in host:
        raise ValueError(f"expected an IPv6 address in brackets, got {text!r}")
    if not lowest_port <= int(port) <= 65535:
        raise ValueError(f"expected a port from {lowest_port} to 65535, got {port}")
    return TcpAddress(host, int(port))


#: ``sun_path`` holds 108 bytes on Linux, the closing NUL included (unix(7)).
MAX_UNIX_PATH = 107
