"""Connections to Redis, as coredis makes them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from coredis.connection import BaseConnection

#: The longest time for connecting, TLS and authentication, in seconds: no request waits for it.
CONNECT_SECONDS = 1.0

# Coredis logs each attempt that fails, with a traceback. Without any handler that would go to
# stderr; whoever has given the root logger one still gets it.
_NOWHERE = logging.NullHandler()


def connection_maker(url: str) -> partial[BaseConnection]:
    """What makes unconnected connections to a ``redis://`` or ``rediss://`` URL.

    User name and password may be percent-encoded. With TLS the server's certificate has to be for
    the host, unless the URL says otherwise: coredis by itself checks only who signed it. Raises
    ValueError.
    """
    from coredis.pool import ConnectionPool

    logging.getLogger("coredis").addHandler(_NOWHERE)
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    checks_host = "ssl_check_hostname" in query or query.get("ssl_cert_reqs") == ["none"]
    if parts.scheme == "rediss" and not checks_host:
        more = "&" if parts.query else ""
        url = parts._replace(query=f"{parts.query}{more}ssl_check_hostname=true").geturl()
    try:
        pool = ConnectionPool.from_url(url, decode_components=True, stream_timeout=CONNECT_SECONDS)
    except Exception as exc:
        raise ValueError(f"{url_for_log(url)} cannot be used: {type(exc).__name__}") from exc
    if pool.location is None:
        raise ValueError(f"{url_for_log(url)} names no host")
    make: Callable[..., BaseConnection] = pool.connection_class
    return partial(make, pool.location, **pool.connection_kwargs)


def close_streams(connection: BaseConnection) -> None:
    """Close what coredis leaves open of a connection that was never made, and Python warns of."""
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    for each in vars(connection).values():
        if isinstance(each, MemoryObjectReceiveStream | MemoryObjectSendStream):
            each.close()


def url_for_log(url: str) -> str:
    """The URL without user name, password and options."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
