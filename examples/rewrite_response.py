"""Replaces a text in the bodies of HTML pages, piece by piece as they come.

    [middlewares.names]
    kind = "rewrite_response:RewriteResponse"
    find = "http://internal.example"
    replace = "https://www.example.com"

    [[routes]]
    pool = "default"
    middlewares = ["names"]

    [[upstreams]]
    host = "127.0.0.1"
    port = 9001

Nothing is held back but the few bytes that could be the beginning of the text. So that there is
something to be found, whole pages are asked of the upstream, without a content coding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from attrs import field, frozen

from trio_proxy import Exchange, Next, Request, ResponseHead, Sink, SinkFilter

#: What tells of the body that was, and is not true of the new one.
_OF_THE_OLD_BODY = (
    *("ETag", "Last-Modified", "Accept-Ranges"),
    *("Content-MD5", "Digest", "Content-Digest", "Repr-Digest"),
)


def _not_empty(_: object, key: attrs.Attribute[Any], value: str) -> None:
    if not value:
        raise ValueError("expected a text to look for", key)


@frozen(kw_only=True)
class RewriteResponse:
    """A middleware. ``find`` and ``replace`` are looked for and written as UTF-8."""

    find: str = field(validator=_not_empty)
    replace: str
    content_type: str = "text/html"

    async def handle(self, exchange: Exchange, request: Request, sink: Sink, next: Next) -> None:
        request.fields.set("Accept-Encoding", "identity")
        request.fields.remove("Range")
        await next(exchange, request, _Rewriting(sink, self, request.method))


class _Rewriting(SinkFilter):
    """The way of one response."""

    def __init__(self, sink: Sink, rules: RewriteResponse, method: bytes) -> None:
        super().__init__(sink)
        self._find = rules.find.encode()
        self._replace = rules.replace.encode()
        self._content_type = rules.content_type.lower().encode()
        self._has_no_body = method == b"HEAD"
        self._is_on = False
        #: The end of what has come, as far as it is a beginning of what is looked for.
        self._held = b""

    def start(self, head: ResponseHead) -> None:
        # May come again, as long as nothing of the first one has left.
        self._held = b""
        is_for_us = self._is_for_us(head)
        if is_for_us:
            head.forget_length()
            for name in _OF_THE_OLD_BODY:
                head.fields.remove(name)
        self._is_on = is_for_us and not self._has_no_body
        self.sink.start(head)

    def _is_for_us(self, head: ResponseHead) -> bool:
        """Whether it is a whole body of that type; to HEAD, whether one to GET would be."""
        if head.status in (204, 206, 304) or "Content-Encoding" in head.fields:
            return False
        media = head.fields.get("Content-Type", b"").partition(b";")[0]
        return media.strip().lower() == self._content_type

    def write(self, data: bytes) -> None:
        if self._is_on:
            data = self._rewritten(data)
        if data:
            self.sink.write(data)

    async def send_through(self, view: memoryview) -> None:
        if self._is_on:
            self.write(bytes(view))  # it is borrowed, so what is kept of it has to be a copy
            await self.sink.flush()
        else:
            await self.sink.send_through(view)

    async def end(self, trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        if self._held:
            self.sink.write(self._held)
        await self.sink.end(trailers)

    def _rewritten(self, data: bytes) -> bytes:
        *before, rest = (self._held + data).split(self._find)
        kept = self._size_of_beginning(rest)
        self._held = rest[len(rest) - kept :]
        return self._replace.join([*before, rest[: len(rest) - kept]])

    def _size_of_beginning(self, data: bytes) -> int:
        """How many bytes at the end could be the beginning of what is looked for."""
        longest = min(len(data), len(self._find) - 1)
        return next((n for n in range(longest, 0, -1) if data.endswith(self._find[:n])), 0)
