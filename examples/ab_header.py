"""Assigns each client to variant A or B, for good, and tells the upstream by a header.

    [middlewares.checkout]
    kind = "ab_header:AbHeader"
    cookie = "checkout"
    share_of_b = 0.1

    [[routes]]
    path = "/checkout"
    pool = "default"
    middlewares = ["checkout"]

    [[upstreams]]
    host = "127.0.0.1"
    port = 9001

The upstream gets ``X-Variant: A`` or ``X-Variant: B``, whatever the client has sent by that name; a
client that had no variant yet gets it as a cookie with the answer.
"""

from __future__ import annotations

import random
import re
from typing import Any

import attrs
from attrs import field, frozen

from trio_proxy import Exchange, Next, Request, ResponseHead, Sink, SinkFilter

VARIANTS = (b"A", b"B")


def _share(_: object, key: attrs.Attribute[Any], value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError("expected a number from 0 to 1", key)


def _token(_: object, key: attrs.Attribute[Any], value: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", value):
        raise ValueError("expected letters, digits, '-' and '_'", key)


@frozen(kw_only=True)
class AbHeader:
    """A middleware. The cookie is kept for ``max_age`` seconds."""

    cookie: str = field(default="ab", validator=_token)
    header: str = field(default="X-Variant", validator=_token)
    share_of_b: float = field(default=0.5, validator=_share)
    max_age: int = 30 * 24 * 60 * 60

    async def handle(self, exchange: Exchange, request: Request, sink: Sink, next: Next) -> None:
        known = [each for each in request.fields.cookies(self.cookie.encode()) if each in VARIANTS]
        variant = known[0] if known else self._choose()
        request.fields.set(self.header, variant)
        cookie = "" if known else self._set_cookie(variant, exchange.client.scheme)
        await next(exchange, request, _Varying(sink, cookie))

    def _choose(self) -> bytes:
        return VARIANTS[random.random() < self.share_of_b]

    def _set_cookie(self, variant: bytes, scheme: bytes) -> str:
        secure = "; Secure" if scheme == b"https" else ""
        pair = f"{self.cookie}={variant.decode()}"
        return f"{pair}; Max-Age={self.max_age}; Path=/; HttpOnly; SameSite=Lax{secure}"


class _Varying(SinkFilter):
    """Adds the cookie, unless it is empty, to the head of the answer, whichever that is at last."""

    def __init__(self, sink: Sink, cookie: str) -> None:
        super().__init__(sink)
        self._cookie = cookie

    def start(self, head: ResponseHead) -> None:
        # What is told to one client must not be given to another by a cache on the way.
        head.fields.add("Vary", "Cookie")
        if self._cookie:
            head.fields.add("Set-Cookie", self._cookie)
        self.sink.start(head)
