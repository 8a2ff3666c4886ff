"""Handlers and middlewares with faults: each costs its own request, and nobody else anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked as settle

from support.plugins import OWN, Does
from support.scenario import ending, now_ms, only
from support.world import GET, World, world
from trio_proxy import (
    Exchange,
    Next,
    Phase,
    ProxyError,
    Reason,
    Request,
    ResponseHead,
    Sink,
    SinkFilter,
    Source,
    respond,
)
from trio_proxy.settings import RouteSettings

OTHER = b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n"


def errors(w: World) -> list[tuple[str, str]]:
    """What was logged as an error: the message's beginning, and the exception."""
    found = [each for each in w.log if each.levelname == "ERROR"]
    return [(each.getMessage().partition(" trace_id")[0], repr(each.exc_info[1])) for each in found]  # type: ignore[index]


async def only_for_own(handle: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Have requests for anything but ``/`` pass."""
    exchange, request, sink, next = args
    if exchange.target == "/":
        await handle(exchange, request, sink, next)
    else:
        await next(exchange, request, sink)


async def raise_it(*_: object) -> None:
    raise ZeroDivisionError("a bug")


async def raise_in_nurseries(*_: object) -> None:
    async with trio.open_nursery() as outer:
        outer.start_soon(trio.sleep_forever)
        async with trio.open_nursery() as inner:
            inner.start_soon(raise_it)


async def raise_beside_a_failure(*_: object) -> None:
    failure = ProxyError(Source.CLIENT, Phase.ROUTE, Reason.LOOP)
    raise ExceptionGroup("both", [failure, ZeroDivisionError("a bug")])


async def do_nothing(*_: object) -> None:
    pass


async def start_only(exchange: Exchange, request: Request, sink: Sink, *_: object) -> None:
    sink.start(ResponseHead(200, []))
    sink.write(b"half")


async def say_too_little(exchange: Exchange, request: Request, sink: Sink, *_: object) -> None:
    sink.start(ResponseHead(200, [], declared_length=10))
    sink.write(b"half")
    await sink.end()


async def write_before_the_start(
    exchange: Exchange, request: Request, sink: Sink, *_: object
) -> None:
    sink.write(b"body")


async def end_before_the_start(
    exchange: Exchange, request: Request, sink: Sink, *_: object
) -> None:
    await sink.end()


async def frame_by_hand(exchange: Exchange, request: Request, sink: Sink, *_: object) -> None:
    sink.start(ResponseHead(200, [("Content-Length", "5")], declared_length=4))
    sink.write(b"four")
    await sink.end()


@pytest.mark.parametrize(
    "fault",
    [
        *(raise_it, raise_in_nurseries, raise_beside_a_failure, do_nothing),
        *(start_only, say_too_little, write_before_the_start, end_before_the_start),
        frame_by_hand,
    ],
)
async def test_a_fault_costs_its_request_a_500_and_nobody_else_anything(
    fault: Callable[..., Awaitable[None]],
) -> None:
    """It is logged once, with its traceback; the same connection and others are served."""

    async def faulty(*args: Any) -> None:
        await only_for_own(fault, *args)

    async with world(middlewares=[Does(faulty)], errors_in_log=True) as w:
        w.upstreams[0].serve(delay=1)
        async with await w.client() as client, await w.client() as other:
            await other.send(OTHER)
            answer = await client.ask(GET)
            assert (answer.status, now_ms()) == (500, 0)
            assert b"error=proxy_internal_error" in answer[b"proxy-status"]
            assert b"bug" not in answer.body
            assert (await client.ask(OTHER)).status == 200
            assert (await other.read_response()).status == 200
        ((message, _),) = errors(w)
        assert message == "internal error in phase request_filter"
        expected = (500, Reason.INTERNAL, Source.PROXY, Phase.REQUEST_FILTER)
        assert ending(w.exchanges[0]) == expected


async def test_a_failure_raised_in_a_nursery_is_answered_as_what_it_is() -> None:
    async def refuse(*_: object) -> None:
        raise ProxyError(Source.CLIENT, Phase.ROUTE, Reason.LOOP)

    async def in_nursery(*_: object) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(refuse)

    async with world(middlewares=[Does(in_nursery)]) as w, await w.client() as client:
        assert (await client.ask(GET)).status == 508


async def test_a_fault_after_the_head_cuts_the_answer_visibly() -> None:
    """A client sees that its chunked body has no end; the log has the fault."""

    async def half(exchange: Exchange, request: Request, sink: Sink) -> None:
        sink.start(ResponseHead(200, []))
        sink.write(b"half")
        await sink.flush()
        raise ZeroDivisionError("a bug")

    own = {"own": Does(half)}
    async with world(upstreams=0, routes=OWN, handlers=own, errors_in_log=True) as w:
        async with await w.client() as client:
            await client.send(GET)
            assert (await client.read_head()).status == 200
            assert await client.receive_all() == b"4\r\nhalf\r\n"
        assert len(errors(w)) == 1


async def test_a_fault_after_a_whole_answer_is_logged_and_the_connection_goes_on() -> None:
    async def late(exchange: Exchange, request: Request, sink: Sink) -> None:
        await respond(exchange, sink, 200, "whole")
        raise ZeroDivisionError("a bug")

    own = {"own": Does(late)}
    async with world(upstreams=0, routes=OWN, handlers=own, errors_in_log=True) as w:
        async with await w.client() as client:
            assert [(await client.ask(GET)).body for _ in range(2)] == [b"whole"] * 2
        assert len(errors(w)) == 2


async def test_who_answers_twice_puts_nothing_on_the_wire_that_nobody_has_asked_for() -> None:
    """The first answer stands, the fault is logged, and the next request gets its own answer."""

    async def twice(exchange: Exchange, request: Request, sink: Sink, next: Next) -> None:
        await next(exchange, request, sink)
        await next(exchange, request, sink)

    async with world(middlewares=[Does(twice)], errors_in_log=True) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            for _ in range(2):
                answer = await client.ask(GET)
                assert (answer.status, answer.body) == (200, b"ok")
            await settle()
        assert [each for _, each in errors(w)] == [
            "RuntimeError('a response has begun to leave, and cannot be started anew')"
        ] * 2


@pytest.mark.parametrize("method", ["start", "write", "end"])
async def test_a_fault_in_a_filter_frees_the_upstream_and_is_not_its_fault(method: str) -> None:
    """500 while nothing has left; the upstream's connection is given up, and it stays up."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    async def wrap(exchange: Exchange, request: Request, sink: Sink, next: Next) -> None:
        broken = SinkFilter(sink)
        setattr(broken, method, fail)
        await only_for_own(
            lambda *_: next(exchange, request, broken), exchange, request, sink, next
        )

    async with world(middlewares=[Does(wrap)], errors_in_log=True) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            assert (await client.ask(GET)).status == 500
            assert (await client.ask(OTHER)).status == 200
        stats = w.proxy.stats.upstream("default", w.upstreams[0].name)
        assert (stats.up, sum(stats.errors.values())) == (True, 0)


async def test_a_middleware_that_sleeps_for_ever_is_ended_with_504() -> None:
    async def sleep(exchange: Exchange, request: Request, sink: Sink, next: Next) -> None:
        if exchange.target == "/":
            await trio.sleep_forever()
        await next(exchange, request, sink)

    async with world(middlewares=[Does(sleep)], timeouts=only(total_ms=3000)) as w:
        w.upstreams[0].serve()
        async with await w.client() as client, await w.client() as other:
            await client.send(GET)
            assert ((await other.ask(OTHER)).status, now_ms()) == (200, 0)
            assert ((await client.read_response()).status, now_ms()) == (504, 3000)
        expected = (504, Reason.TOTAL_TIMEOUT, Source.PROXY, Phase.REQUEST_FILTER)
        assert ending(w.exchanges[1]) == expected


async def test_a_fault_in_cleaning_up_after_a_deadline_is_told_as_a_fault() -> None:
    async def clumsy(*_: object) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError("a bug")

    routes = (RouteSettings(handler="own"),)
    own = {"own": Does(clumsy)}
    async with world(
        upstreams=0, routes=routes, handlers=own, timeouts=only(total_ms=3000), errors_in_log=True
    ) as w:
        async with await w.client() as client:
            assert ((await client.ask(GET)).status, now_ms()) == (500, 3000)
        assert len(errors(w)) == 1
