"""The rate limit: a middleware that has a request take a token before anybody acts upon it.

nginx: ``limit_req_zone`` and ``limit_req … nodelay``. Whose token a request takes is a pure
function of it, a `KeyOf`; where the tokens are is a `Buckets`.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from ipaddress import IPv6Address
from logging import getLogger
from typing import Protocol, TypeAlias

import trio

from trio_proxy.exchange.complaint import Complaint
from trio_proxy.exchange.contract import Next, Sink, SinkFilter
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import Stream
from trio_proxy.http.client import Client
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.messages import Fields, Request, ResponseHead
from trio_proxy.http.phases import Phase
from trio_proxy.policy.token_bucket import Grant, Rate, TokenBuckets, rate_limit_fields

log = getLogger("trio_proxy.handlers")

#: Whose token a request takes: at most `MAX_KEY_BYTES`, printable ASCII.
KeyOf: TypeAlias = Callable[[Request, Client], bytes]

#: The longest key: ``header:``, a field name of 64 characters, and a digest in hexadecimal.
MAX_KEY_BYTES = 7 + 64 + 1 + 32

#: Of a field's value only so many bytes of BLAKE2b are kept. To meet somebody else's bucket by
#: chance or by work takes 2**128 tries.
_DIGEST_BYTES = 16


class Buckets(Protocol):
    """Where the tokens are."""

    async def take(self, key: bytes) -> Grant:
        """Take a token if there is one. Raises nothing of its own: a store that is away grants."""
        ...


class LocalBuckets:
    """Buckets in this process's memory, on Trio's clock."""

    def __init__(self, rate: Rate, max_keys: int) -> None:
        self._buckets = TokenBuckets(rate, max_keys)

    def __repr__(self) -> str:
        return f"<LocalBuckets {self._buckets}>"

    def apply(self, rate: Rate, max_keys: int) -> None:
        """Go on with other settings; the buckets stay."""
        self._buckets.apply(rate, max_keys, trio.current_time())

    async def take(self, key: bytes) -> Grant:
        """Take a token if there is one. No checkpoint: it costs no trip through the scheduler."""
        return self._buckets.take(key, trio.current_time())


class RateLimited:
    """Hands a request on if there is a token for it.

    ``key`` is whose token: ``client_ip``, ``global`` or ``header:NAME``. The answer to either kind
    of request says how the bucket stands.
    """

    def __init__(self, buckets: Buckets, rate: Rate, key: str) -> None:
        self._buckets = buckets
        self._rate = rate
        self._key_of = key_maker(key)
        self._shown_key = key
        self._complaint = Complaint(log)

    def __repr__(self) -> str:
        return f"<RateLimited {self._shown_key} {self._rate} {self._buckets}>"

    async def handle(self, exchange: Exchange, request: Request, sink: Sink, next: Next) -> None:
        """Raises `ProxyError` with `Reason.RATE_LIMITED` for a request too many."""
        exchange.phase = Phase.REQUEST_FILTER
        grant = await self._buckets.take(self._key_of(request, exchange.client))
        fields = rate_limit_fields(self._rate, grant)
        exchange.refusal_fields = [*(exchange.refusal_fields or ()), *fields]
        if not grant.allowed:
            # The client's address, but never the value of a field: it may be a credential.
            self._complaint.warn(
                "rate limit by %s reached, of %s: request refused",
                self._shown_key,
                exchange.client.address,
            )
            raise ProxyError(
                Source.CLIENT,
                Phase.REQUEST_FILTER,
                Reason.RATE_LIMITED,
                retry_after=grant.retry_after,
            )
        await next(exchange, request, RateLimitSink(sink, fields))


class RateLimitSink(SinkFilter):
    """Says in the answer how the bucket stands, unless an upstream says something of its own.

    What it says is one statement, which must not be mixed with another.
    """

    def __init__(self, sink: Sink, fields: Fields) -> None:
        super().__init__(sink)
        self._fields = fields

    def start(self, head: ResponseHead) -> None:
        self.sink.start(self._with_fields(head))

    async def switch(self, head: ResponseHead) -> tuple[Stream, bytes]:
        return await self.sink.switch(self._with_fields(head))

    def _with_fields(self, head: ResponseHead) -> ResponseHead:
        if not any(name.lower().startswith(b"ratelimit") for name, _ in head.fields):
            head.fields.extend(self._fields)
        return head


def key_maker(key: str) -> KeyOf:
    """The function for a ``key`` of the settings. Raises ValueError for one that is unknown."""
    kind, _, name = key.partition(":")
    if key == "client_ip":
        return lambda _, client: client_key(client.address)
    if key == "global":
        return lambda _, __: b"global"
    if kind == "header" and name:
        lower_name = name.lower().encode("ascii")
        return lambda request, _: header_key(request, lower_name)
    raise ValueError(f"{key!r} is no key of a rate limit")


def client_key(client_ip: str) -> bytes:
    """One bucket for an IPv4 address, and one for a whole IPv6 /64.

    The host part of an IPv6 address is its client's to choose (RFC 4291 §2.5.1, RFC 8981): one
    host has 2**64 addresses, and would have as many buckets. Clients on unix sockets share one.
    """
    if client_ip.count(":") < 2:
        return b"client_ip:" + client_ip.encode("ascii")
    address = IPv6Address(client_ip)
    if address.ipv4_mapped is not None:
        return b"client_ip:" + str(address.ipv4_mapped).encode("ascii")
    return b"client_ip:%s/64" % address.packed[:8].hex().encode("ascii")


def header_key(request: Request, lower_name: bytes) -> bytes:
    """One bucket for each value of a field, and one for all requests without it.

    A request that has the field twice counts as one without: which of them an upstream would take
    is anybody's guess, so the other could be made up to get a new bucket each time. The value is
    hashed, which bounds the key and keeps credentials out of the store.
    """
    values = request.fields.get_all(lower_name)
    prefix = b"header:%s:" % lower_name
    if len(values) != 1:
        return prefix
    return prefix + blake2b(values[0], digest_size=_DIGEST_BYTES).hexdigest().encode("ascii")
