"""Handlers of a program's own: whom they answer, with what, and for how long."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from support.plugins import OWN, Does, Marks, hello
from support.scenario import ending, now_ms, only, until_ms
from support.two_pools import to
from support.world import GET, settings_for, world
from trio_proxy import Exchange, Phase, Reason, Request, ResponseHead, Sink, Source, respond
from trio_proxy.settings import LoggingSettings, RateLimitSettings, RouteSettings

POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"


def routed(*routes: RouteSettings) -> dict[str, Any]:
    return {"routes": routes, "handlers": {"own": Does(hello)}}


async def test_a_route_can_lead_to_a_handler_and_others_to_pools() -> None:
    routes = (RouteSettings(path="/own", handler="own"), RouteSettings(pool="default"))
    async with world(**routed(*routes)) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            assert (await client.ask(to("/own/x"))).body == b"hello from /own\n"
            assert (await client.ask(to("/other"))).body == b"ok"
        assert [(each.route, each.pool) for each in w.exchanges] == [("/own", ""), ("/", "default")]


async def test_without_an_upstream_the_handlers_are_all_there_is() -> None:
    """What none of them takes is answered with 404."""
    routes = (RouteSettings(path="/own", handler="own"),)
    async with world(upstreams=0, **routed(*routes)) as w, await w.client() as client:
        assert (await client.ask(to("/own"))).status == 200
        assert (await client.ask(to("/"))).status == 404


async def test_a_handler_is_behind_the_rate_limit() -> None:
    limit = RateLimitSettings(rate=0.001, burst=1)
    async with world(upstreams=0, rate_limit=limit, **routed(*OWN)) as w:
        async with await w.client() as client:
            answers = [await client.ask(GET) for _ in range(2)]
        assert [each.status for each in answers] == [200, 429]
        assert answers[0][b"ratelimit-remaining"] == b"0"


async def test_a_handler_reads_the_body_and_streams_its_own() -> None:
    """Piece by piece; without a length it is sent in chunks."""

    async def echo(exchange: Exchange, request: Request, sink: Sink) -> None:
        sink.start(ResponseHead(200, [("Content-Type", "text/plain")]))
        while not request.content.complete:
            sink.write(bytes(await request.content.receive()).upper())
            await sink.flush()
        sink.write(b"!")
        await sink.end()

    async with world(upstreams=0, routes=OWN, handlers={"own": Does(echo)}) as w:
        async with await w.client() as client:
            answer = await client.ask(POST)
            assert (answer[b"transfer-encoding"], answer.body) == (b"chunked", b"HELLO!")
        assert ending(w.exchanges[0]) == (200, None, None, Phase.ROUTE)


@pytest.mark.parametrize(
    ("method", "status", "body", "expected"),
    [
        (b"GET", 200, "héllo", (b"6", "héllo".encode())),
        (b"GET", 418, b"tea", (b"3", b"tea")),
        (b"GET", 499, bytearray(b"odd"), (b"3", b"odd")),
        (b"HEAD", 200, "hello", (b"5", b"")),
        (b"GET", 303, "", (b"0", b"")),
        (b"GET", 204, "", (None, b"")),
        (b"GET", 304, "", (None, b"")),
    ],
)
async def test_respond_sends_texts_and_bytes_with_the_right_framing(
    method: bytes, status: int, body: Any, expected: tuple[bytes | None, bytes]
) -> None:
    """Fields that are given take the place of its own; the connection goes on in any case."""

    async def handle(exchange: Exchange, request: Request, sink: Sink) -> None:
        fields = [("content-type", "text/x-own"), (b"X-Also", b"1")]
        await respond(exchange, sink, status, body, fields=fields)

    own = {"own": Does(handle)}
    async with world(upstreams=0, routes=OWN, handlers=own) as w, await w.client() as client:
        for _ in range(2):
            answer = await client.ask(GET.replace(b"GET", method))
            assert answer.status == status
            assert (next(iter(answer.all(b"content-length")), None), answer.body) == expected
            assert answer[b"content-type"] == b"text/x-own"
            assert (answer[b"x-also"], len(answer.all(b"date"))) == (b"1", 1)


@pytest.mark.parametrize(
    ("args", "fields", "why"),
    [
        ((101, ""), (), "from 200 to 599"),
        ((204, "x"), (), "no body"),
        ((200, "x"), [("Content-Length", "1")], "frames a message"),
        ((200, "x"), [("a b", "1")], "Illegal header name"),
    ],
)
async def test_respond_refuses_what_would_break_the_answer(
    args: tuple[int, str], fields: list[tuple[str, str]], why: str
) -> None:
    """The client is told 500, and the log what is wrong."""

    async def handle(exchange: Exchange, request: Request, sink: Sink) -> None:
        await respond(exchange, sink, *args, fields=fields)

    own = {"own": Does(handle)}
    async with world(upstreams=0, routes=OWN, handlers=own, errors_in_log=True) as w:
        async with await w.client() as client:
            assert (await client.ask(GET)).status == 500
        (record,) = [each for each in w.log if each.levelname == "ERROR"]
        assert record.exc_info is not None
        assert why in str(record.exc_info[1])


# Deadlines


async def test_a_handler_that_never_arms_anything_is_still_ended_with_504() -> None:
    """At the end of the total budget; and the total budget is what trio says of it."""
    left: list[float] = []

    async def sleep(exchange: Exchange, request: Request, sink: Sink) -> None:
        left.append(trio.current_effective_deadline() - trio.current_time())
        await trio.sleep_forever()

    own = {"own": Does(sleep)}
    async with world(upstreams=0, routes=OWN, handlers=own, timeouts=only(total_ms=3000)) as w:
        async with await w.client() as client:
            answer = await client.ask(GET)
            assert (answer.status, now_ms(), left) == (504, 3000, [3.0])
        expected = (504, Reason.TOTAL_TIMEOUT, Source.PROXY, Phase.ROUTE)
        assert ending(w.exchanges[0]) == expected


async def test_a_handler_that_swallows_every_exception_is_ended_with_504_all_the_same() -> None:
    """And nothing is logged: it is no fault of anybody's that time is up."""

    async def stubborn(exchange: Exchange, request: Request, sink: Sink) -> None:
        try:
            await trio.sleep_forever()
        except BaseException:  # noqa: BLE001 - that is the point
            return

    given = {"handlers": {"own": Does(stubborn)}, "timeouts": only(total_ms=3000)}
    async with world(upstreams=0, routes=OWN, **given) as w, await w.client() as client:
        assert ((await client.ask(GET)).status, now_ms()) == (504, 3000)


async def test_without_a_total_budget_a_handler_may_take_as_long_as_it_likes() -> None:
    async def slow(exchange: Exchange, request: Request, sink: Sink) -> None:
        await trio.sleep(1_000)
        await respond(exchange, sink, 200, "at last")

    given = {"handlers": {"own": Does(slow)}, "timeouts": only()}
    async with world(upstreams=0, routes=OWN, **given) as w, await w.client() as client:
        assert (await client.ask(GET)).body == b"at last"


async def test_the_deadline_of_a_head_does_not_end_a_handler() -> None:
    """The head takes most of its budget, and the handler longer than what is left of that."""

    async def slow(exchange: Exchange, request: Request, sink: Sink) -> None:
        await trio.sleep(5)
        await respond(exchange, sink, 200, "at last")

    given = {"handlers": {"own": Does(slow)}, "timeouts": only(head_ms=2000, total_ms=10_000)}
    async with world(upstreams=0, routes=OWN, **given) as w, await w.client() as client:
        await client.send(GET[:10])
        await until_ms(1900)
        await client.send(GET[10:])
        answer = await client.read_response()
        assert (answer.status, answer.body, now_ms()) == (200, b"at last", 6900)


async def test_a_client_that_leaves_ends_its_handler() -> None:
    ended_at: list[float] = []

    async def sleep(exchange: Exchange, request: Request, sink: Sink) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended_at.append(now_ms())

    own = {"own": Does(sleep)}
    async with world(upstreams=0, routes=OWN, handlers=own) as w, await w.client() as client:
        await client.send(GET)
        await until_ms(1000)
        client.abort()
        await until_ms(1100)
    assert ended_at == [1000]
    assert ending(w.exchanges[0])[1] is Reason.CLIENT_GONE


# Reload


async def test_handlers_and_middlewares_that_were_given_go_on_through_a_reload() -> None:
    """The same instances, by other routes."""
    seen: list[str] = []

    async def count(exchange: Exchange, request: Request, sink: Sink) -> None:
        seen.append(f"{exchange.route} {request.fields.get('X-Passed', b'').decode()}")
        await respond(exchange, sink, 200)

    given = {"handlers": {"own": Does(count)}, "middlewares": [Marks("m")]}
    async with world(upstreams=0, routes=OWN, **given) as w, await w.client() as client:
        assert (await client.ask(GET)).status == 200
        await w.reload(settings_for(0, routes=(RouteSettings(path="/new", handler="own"),)))
        assert (await client.ask(GET)).status == 404
        assert (await client.ask(to("/new"))).status == 200
    assert seen == ["/ m", "/new m"]


async def test_the_access_log_has_what_a_handler_did() -> None:
    async with world(upstreams=0, logging=LoggingSettings(access=True), **routed(*OWN)) as w:
        async with await w.client() as client:
            await client.ask(GET)
        (exchange,) = w.exchanges
        assert (exchange.status, exchange.body_bytes_sent, exchange.upstream) == (200, 13, "")
