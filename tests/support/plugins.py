"""Handlers and middlewares for the tests, some of them as bad as they can be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
from attrs import define, field

from trio_proxy import Exchange, Next, Request, Sink, respond
from trio_proxy.settings import RouteSettings

#: Where the handler of most tests is.
OWN = (RouteSettings(handler="own"),)


class Does:
    """A handler, or a middleware, that does what the test says."""

    def __init__(self, handle: Callable[..., Awaitable[None]]) -> None:
        self._handle = handle

    async def handle(self, *args: Any) -> None:
        await self._handle(*args)


async def hello(exchange: Exchange, request: Request, sink: Sink) -> None:
    """Answers with the path of its route."""
    await respond(exchange, sink, 200, f"hello from {exchange.route}\n")


class Marks:
    """A middleware that writes down, in a field of the request, that it has come by."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def handle(self, exchange: Exchange, request: Request, sink: Sink, next: Next) -> None:
        request.fields.add("X-Passed", self._name)
        await next(exchange, request, sink)


@define
class Counts:
    """A middleware that a configuration can name; it counts what passes."""

    name: str = "counts"
    seen: int = field(default=0, init=False)

    async def handle(self, exchange: Exchange, request: Request, sink: Sink, next: Next) -> None:
        self.seen += 1
        request.fields.add("X-Counted", f"{self.name} {self.seen}")
        await next(exchange, request, sink)


class NoAttrs:
    """A middleware by its method alone."""

    async def handle(self, exchange: Exchange, request: Request, sink: Sink, next: Next) -> None:
        await next(exchange, request, sink)


@define
class NotAsync:
    """Would be a middleware if its method were async."""

    def handle(self, exchange: Exchange, request: Request, sink: Sink, next: Next) -> None: ...


@define
class HandlerOnly:
    """A handler, which knows of nothing that comes next."""

    async def handle(self, exchange: Exchange, request: Request, sink: Sink) -> None: ...


@attrs.frozen
class Place:
    """A table within the table of a middleware."""

    host: str
    port: int = 80


def _above_zero(_: object, __: object, value: int) -> None:
    if value <= 0:
        raise ValueError("n has to be above 0")


@attrs.frozen(kw_only=True)
class Picky(NoAttrs):
    """A middleware with a field of each sort."""

    text: str
    number: int = field(default=1, validator=attrs.validators.instance_of(int))
    positive: int = field(default=1, validator=_above_zero)
    ratio: float = 0.5
    flag: bool = False
    texts: tuple[str, ...] = ()
    numbers: list[int] = field(factory=list)
    table: dict[str, int] = field(factory=dict)
    place: Place | None = None
    places: list[Place] = field(factory=list)
    either: int | str = 0
    choice: str = field(default="a", validator=attrs.validators.in_(["a", "b"]))
    secret: str = field(default="", repr=False)

    def __attrs_post_init__(self) -> None:
        if self.text == "explode":
            raise RuntimeError("exploded")
