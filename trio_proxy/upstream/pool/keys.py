"""What of a request a hashing policy goes by (nginx: ``hash KEY``, ``ip_hash``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from trio_proxy.http.client import Client
from trio_proxy.http.messages import Request
from trio_proxy.policy.hashing import hash_of

KeyOf: TypeAlias = Callable[[Request, Client], int]


def key_reader(policy: str, key: str) -> KeyOf:
    """The function that gives a request's 64-bit key; 0 for policies that need none.

    ``key`` is that of the ``[balance]`` table. ``ip_hash`` goes by the whole client address (nginx
    takes three octets of an IPv4 one, which sends a whole office to one upstream).
    """
    if policy == "ip_hash":
        return _READERS["client_ip"]
    if policy != "hash":
        return _no_key
    kind, _, name = key.partition(":")
    if kind == "header":
        return _header(name.lower().encode())
    if kind == "cookie":
        return _cookie(name.encode())
    return _READERS[key]


def _no_key(request: Request, client: Client) -> int:
    return 0


def _client_ip(request: Request, client: Client) -> int:
    return hash_of(client.address.encode())


def _path(request: Request, client: Client) -> int:
    return hash_of(request.target.partition(b"?")[0])


def _uri(request: Request, client: Client) -> int:
    return hash_of(request.target)


def _host(request: Request, client: Client) -> int:
    return hash_of(request.host.lower())


_READERS: dict[str, KeyOf] = {
    "client_ip": _client_ip,
    "path": _path,
    "uri": _uri,
    "host": _host,
}


def _header(name: bytes) -> KeyOf:
    def read(request: Request, client: Client) -> int:
        value = request.fields.get(name)
        return _client_ip(request, client) if value is None else hash_of(value)

    return read


def _cookie(name: bytes) -> KeyOf:
    def read(request: Request, client: Client) -> int:
        values = request.fields.cookies(name)
        return hash_of(values[0]) if values else _client_ip(request, client)

    return read
