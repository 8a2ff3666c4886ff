"""Lets only those in who know a key: anybody else is answered with 401.

    [middlewares.keys]
    kind = "api_key:ApiKey"
    keys = ["correct-horse-battery", "the-second-one"]

    [[routes]]
    path = "/v1"
    pool = "default"
    middlewares = ["keys"]

    [[upstreams]]
    host = "127.0.0.1"
    port = 9001

The key comes in a field of the request, and goes no further:

    trio-proxy run --app-dir examples proxy.toml
    curl -H 'X-API-Key: correct-horse-battery' http://127.0.0.1:8080/v1
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import attrs
from attrs import field, frozen

from trio_proxy import Exchange, Next, ProxyError, Request, Sink, Source, Verdict

#: A row of the status table: what the client, Proxy-Status and the log are told.
UNAUTHORIZED = Verdict(401, "http_request_denied", "no valid API key", slug="unauthorized")

#: RFC 9110 §11.6.1: a 401 says how to do better.
CHALLENGE = ("WWW-Authenticate", 'ApiKey realm="proxy"')


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _at_least_one(_: object, key: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    if not value or not all(value):
        raise ValueError("expected at least one key, and no empty one", key)


@frozen(kw_only=True)
class ApiKey:
    """A middleware. The upstream does not get to see the key unless ``pass_on``."""

    keys: tuple[str, ...] = field(validator=_at_least_one, repr=False)
    header: str = "X-API-Key"
    pass_on: bool = False

    async def handle(self, exchange: Exchange, request: Request, sink: Sink, next: Next) -> None:
        given = request.fields.get_all(self.header)
        # With two of them it is anybody's guess which one the upstream would take.
        if len(given) != 1 or not self._is_known(given[0]):
            raise ProxyError(Source.CLIENT, exchange.phase, UNAUTHORIZED, fields=[CHALLENGE])
        if not self.pass_on:
            request.fields.remove(self.header)
        await next(exchange, request, sink)

    def _is_known(self, given: bytes) -> bool:
        """In a time that tells nothing of the keys: digests have one length, and all are asked."""
        digest = _digest(given)
        matches = [hmac.compare_digest(digest, _digest(key.encode())) for key in self.keys]
        return any(matches)
