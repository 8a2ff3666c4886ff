"""The handler and the middleware of ARCHITECTURE.md, served by the proxy's own session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from support.conversation import Speaker
from support.documents import Document, blocks
from trio_proxy.exchange.chain import chain
from trio_proxy.exchange.contract import Handler
from trio_proxy.exchange.deadlines import Budgets
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.front.acceptor import Acceptor
from trio_proxy.front.plan import Plan
from trio_proxy.front.service import Service
from trio_proxy.http.addresses import parse_address
from trio_proxy.http.errors import Reason
from trio_proxy.testing import SimNet

PAGE = Document("ARCHITECTURE.md")


def defined_in(recipe: str) -> dict[str, Any]:
    """What the code of a recipe defines."""
    (code,) = blocks("python", PAGE.section(recipe))
    names: dict[str, Any] = {"__name__": recipe}
    exec(compile(code, f"ARCHITECTURE.md, {recipe}", "exec"), names)
    return names


HELLO = defined_in("A handler")["Hello"]()
STAMP = defined_in("A middleware")["Stamp"](b"X-Served-By", b"us")


class Seen:
    """Notes the exchanges that have ended."""

    def __init__(self) -> None:
        self.ended: list[Exchange] = []

    def connection_opened(self) -> None: ...

    def connection_closed(self) -> None: ...

    def request_started(self) -> None: ...

    def exchange_ended(self, exchange: Exchange) -> None:
        self.ended.append(exchange)


@asynccontextmanager
async def client_of(handler: Handler, seen: Seen) -> AsyncIterator[Speaker]:
    """A client of a server that has this handler and nothing else."""
    plan = Plan(handler=handler, budgets=Budgets({"total": 10.0}))
    service = Service(plan, seen)
    async with SimNet() as net, trio.open_nursery() as nursery:
        listener = await net.listen(parse_address("10.0.0.1:80"))
        acceptor = Acceptor(service, trio.CapacityLimiter(10), nursery)
        nursery.start_soon(service.timers.run)
        nursery.start_soon(acceptor.run, listener)
        async with Speaker(await net.dial(listener.address)) as client:
            yield client
        nursery.cancel_scope.cancel()


def get(target: bytes, method: bytes = b"GET") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: a\r\n\r\n" % (method, target)


async def test_the_handler_answers() -> None:
    """With a whole answer, without its body to HEAD, and piece by piece; one connection for all."""
    seen = Seen()
    async with client_of(HELLO, seen) as client:
        answer = await client.ask(get(b"/you"))
        assert (answer.status, answer.body) == (200, b"Hello, you!\n")
        answer = await client.ask(get(b"/you", b"HEAD"))
        assert (answer.status, answer.body, answer[b"Content-Length"]) == (200, b"", b"12")
        answer = await client.ask(get(b"/"))
        assert (answer.body, answer[b"Transfer-Encoding"]) == (b"0\n1\n2\n", b"chunked")
        assert answer[b"X-Counts"] == b"yes"
    assert [exchange.error for exchange in seen.ended] == [None] * 3


async def test_the_middleware_stamps_what_the_handler_answers() -> None:
    """Every kind of answer, and none twice."""
    async with client_of(chain([STAMP, STAMP], HELLO), Seen()) as client:
        for target in (b"/", b"/you"):
            answer = await client.ask(get(target))
            assert (answer.status, answer[b"X-Served-By"]) == (200, b"us")


async def test_the_middleware_refuses_in_place_of_the_handler() -> None:
    """The refusal is the proxy's own answer, with the stamp, as is that to a handler's fault."""
    seen = Seen()
    async with client_of(chain([STAMP], Failing()), seen) as client:
        answer = await client.ask(get(b"/", b"DELETE"))
        assert (answer.status, answer[b"X-Served-By"]) == (501, b"us")
    async with client_of(chain([STAMP], Failing()), seen) as client:
        answer = await client.ask(get(b"/"))
        assert (answer.status, answer[b"X-Served-By"]) == (500, b"us")
    reasons = [exchange.error and exchange.error.reason for exchange in seen.ended]
    assert reasons == [Reason.METHOD_NOT_SUPPORTED, Reason.INTERNAL]


class Failing:
    """A handler with a fault."""

    async def handle(self, exchange: object, request: object, sink: object) -> None:
        raise ZeroDivisionError


async def test_a_handler_that_never_ends_is_ended() -> None:
    """By the total deadline, which no handler can forget."""
    seen = Seen()
    async with client_of(chain([STAMP], Sleeping()), seen) as client:
        began = trio.current_time()
        answer = await client.ask(get(b"/"))
        assert (answer.status, answer[b"X-Served-By"]) == (504, b"us")
        assert trio.current_time() - began == pytest.approx(10.0)
    assert [exchange.error and exchange.error.reason for exchange in seen.ended] == [
        Reason.TOTAL_TIMEOUT
    ]


class Sleeping:
    """A handler that has forgotten what it is for."""

    async def handle(self, exchange: object, request: object, sink: object) -> None:
        await trio.sleep_forever()
