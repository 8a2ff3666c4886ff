"""Middlewares: in front of what they stand, in which order, and what they may do."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from support.plugins import Counts, Does, Marks, hello
from support.scenario import ending
from support.two_pools import to
from support.world import GET, World, settings_for, world
from trio_proxy import (
    ConfigError,
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
    Verdict,
    respond,
)
from trio_proxy.settings import MiddlewareSettings, RateLimitSettings, RouteSettings

FORBIDDEN = Verdict(403, "http_request_denied", "not for you", slug="forbidden")
COUNTS = MiddlewareSettings(kind="support.plugins:Counts")
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"


async def passed(w: World, target: str = "/") -> list[bytes]:
    """What the upstream finds in the field of `Marks`."""
    async with await w.client() as client:
        assert (await client.ask(to(target))).status == 200
    return w.upstreams[0].requests[-1].all(b"x-passed")


# Where they stand


async def test_a_sequence_stands_in_front_of_everything_in_its_order() -> None:
    """In front of pools and handlers alike."""
    routes = (RouteSettings(path="/own", handler="own"), RouteSettings(pool="default"))
    marked: list[Any] = []

    async def own(exchange: Exchange, request: Request, sink: Sink) -> None:
        marked.extend(request.fields.get_all("X-Passed"))
        await hello(exchange, request, sink)

    both = [Marks("first"), Marks("second")]
    async with world(routes=routes, handlers={"own": Does(own)}, middlewares=both) as w:
        w.upstreams[0].serve()
        assert await passed(w) == [b"first", b"second"]
        async with await w.client() as client:
            await client.ask(to("/own"))
    assert marked == [b"first", b"second"]


async def test_a_mapping_stands_in_front_of_the_routes_that_name_it() -> None:
    routes = (
        RouteSettings(path="/a", pool="default", middlewares=("one", "two")),
        RouteSettings(path="/b", pool="default", middlewares=("two",)),
        RouteSettings(pool="default"),
    )
    named = {"two": Marks("2"), "one": Marks("1")}
    async with world(routes=routes, middlewares=named) as w:
        w.upstreams[0].serve()
        assert await passed(w, "/a") == [b"1", b"2"]
        assert await passed(w, "/b") == [b"2"]
        assert await passed(w, "/c") == []


async def test_those_of_a_route_are_behind_those_of_everything() -> None:
    routes = (RouteSettings(pool="default", middlewares=("counts",)),)
    async with world(
        routes=routes, middlewares=[Marks("all")], tables_of_middlewares={"counts": COUNTS}
    ) as w:
        w.upstreams[0].serve()
        assert await passed(w) == [b"all"]
        raw = w.upstreams[0].requests[0].raw
        assert raw.index(b"X-Passed: all") < raw.index(b"X-Counted: counts 1")


async def test_they_are_behind_the_rate_limit() -> None:
    """Who asks too often never gets to them."""
    seen: list[str] = []

    async def note(exchange: Exchange, request: Request, sink: Sink, next: Next) -> None:
        seen.append(exchange.target)
        await next(exchange, request, sink)

    limit = RateLimitSettings(rate=0.001, burst=1)
    async with world(rate_limit=limit, middlewares=[Does(note)]) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            assert [(await client.ask(GET)).status for _ in range(2)] == [200, 429]
    assert seen == ["/"]


async def test_what_no_route_takes_does_not_get_to_them() -> None:
    routes = (RouteSettings(path="/v1", pool="default"),)
    async with world(routes=routes, middlewares=[Marks("m")]) as w:
        async with await w.client() as client:
            assert (await client.ask(GET)).status == 404
        assert ending(w.exchanges[0])[1] is Reason.NO_ROUTE


# What they may do


async def test_a_middleware_changes_request_and_response() -> None:
    """What it adds goes out beside what was read, which stays as it was."""

    class Branded(SinkFilter):
        def start(self, head: ResponseHead) -> None:
            head.fields.add("X-Brand", "ours")
            self.sink.start(head)

    async def brand(exchange: Exchange, request: Request, sink: Sink, next: Next) -> None:
        request.fields.set("Accept", "text/plain")
        await next(exchange, request, Branded(sink))

    async with world(middlewares=[Does(brand)]) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            answer = await client.ask(
                b"GET / HTTP/1.1\r\nHost: a\r\naccept: */*\r\nX-Odd:1\r\n\r\n"
            )
        assert (answer[b"x-brand"], answer.body) == (b"ours", b"ok")
        request = w.upstreams[0].requests[0]
        assert (request[b"accept"], request[b"x-odd"]) == (b"text/plain", b"1")


async def test_a_middleware_can_answer_itself() -> None:
    """The upstream never hears of the request."""

    async def answer(exchange: Exchange, request: Request, sink: Sink, next: Next) -> None:
        await respond(exchange, sink, 200, "cached")

    async with world(middlewares=[Does(answer)]) as w:
        async with await w.client() as client:
            assert [(await client.ask(GET)).body for _ in range(2)] == [b"cached"] * 2
        assert w.exchanges[0].tries == []


async def test_a_failure_with_a_row_of_its_own_is_told_by_that_row() -> None:
    """In the answer, with the fields that come along, in the log and in the metrics."""

    async def refuse(exchange: Exchange, request: Request, sink: Sink, next: Next) -> None:
        fields = [("WWW-Authenticate", "ApiKey"), ("Content-Language", "en")]
        raise ProxyError(Source.CLIENT, exchange.phase, FORBIDDEN, fields=fields, detail="why")

    async with world(middlewares=[Does(refuse)]) as w:
        async with await w.client() as client:
            for request in (GET, HEAD):
                answer = await client.ask(request)
                assert answer.start == b"HTTP/1.1 403 Forbidden"
                assert answer[b"www-authenticate"] == b"ApiKey"
                assert answer[b"content-language"] == b"en"
                assert answer[b"proxy-status"] == b"trio-proxy; error=http_request_denied"
                assert b"why" not in answer.raw + answer.body
                assert len(answer.all(b"date")) == 1
        expected = (403, FORBIDDEN, Source.CLIENT, Phase.REQUEST_FILTER)
        assert ending(w.exchanges[0]) == expected
        stats = w.proxy.stats
        assert (stats.rejected_otherwise, sum(stats.rejected.values())) == (2, 0)
        assert stats.responses[4] == 2


async def test_a_status_without_a_phrase_of_its_own_can_be_told() -> None:
    odd = Verdict(477, "http_request_denied", "odd", slug="odd")

    async def refuse(exchange: Exchange, request: Request, sink: Sink, next: Next) -> None:
        raise ProxyError(Source.CLIENT, exchange.phase, odd)

    async with world(middlewares=[Does(refuse)]) as w, await w.client() as client:
        answer = await client.ask(GET)
        assert answer.start == b"HTTP/1.1 477 Client Error"
        assert answer.body == b"477 Client Error: odd (phase: request_filter)\n"


async def test_a_filter_may_take_the_length_away_from_a_body_of_any_size() -> None:
    """It goes out in chunks then, also where it is passed on from a borrowed buffer."""

    class Lengthless(SinkFilter):
        def start(self, head: ResponseHead) -> None:
            head.forget_length()
            self.sink.start(head)

    async def forget(exchange: Exchange, request: Request, sink: Sink, next: Next) -> None:
        await next(exchange, request, Lengthless(sink))

    body = bytes(range(256)) * 4096
    async with world(middlewares=[Does(forget)]) as w:
        w.upstreams[0].serve(body)
        async with await w.client() as client:
            for _ in range(2):
                answer = await client.ask(GET)
                assert (answer[b"transfer-encoding"], answer.body == body) == (b"chunked", True)
        assert w.exchanges[0].body_bytes_sent == len(body)


# Reload


async def test_one_that_is_configured_lives_for_as_long_as_its_settings_stay_the_same() -> None:
    """Its counter goes on through a reload that changes other things, and begins anew after one
    that changes its own settings."""

    def settings(name: str, **more: Any) -> Any:
        routes = (RouteSettings(pool="default", middlewares=("counts",)),)
        table = MiddlewareSettings(kind="support.plugins:Counts", options={"name": name})
        return {"routes": routes, "middlewares": {"counts": table}, **more}

    first = settings("a")
    async with world(routes=first["routes"], tables_of_middlewares=first["middlewares"]) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            await client.ask(GET)
            await w.reload(settings_for(1, **settings("a", listen=("10.0.0.1:80",))))
            await client.ask(GET)
            await w.reload(settings_for(1, **settings("b")))
            await client.ask(GET)
        counted = [each[b"x-counted"] for each in w.upstreams[0].requests]
        assert counted == [b"a 1", b"a 2", b"b 1"]


async def test_a_reload_with_a_middleware_that_cannot_be_made_changes_nothing() -> None:
    """It says what is wrong, all of it, and the old ones go on."""
    bad = MiddlewareSettings(kind="support.plugins:Counts", options={"name": 5, "nme": "x"})
    async with world(middlewares=[Marks("m")]) as w:
        w.upstreams[0].serve()
        routes = (RouteSettings(pool="default", middlewares=("counts", "cuonts")),)
        settings = settings_for(1, routes=routes, middlewares={"counts": bad})
        with pytest.raises(ConfigError) as caught:
            await w.proxy.reload(settings)
        assert str(caught.value).splitlines() == [
            'settings: routes[0].middlewares[1]: is "cuonts", and there is no such middleware'
            ' (did you mean "counts"?)',
            "settings: middlewares.counts.name: is 5 (expected a text)",
            'settings: middlewares.counts.nme: is not a known key (did you mean "name"?)',
        ]
        assert await passed(w) == [b"m"]


# What open_proxy refuses


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            {"routes": (RouteSettings(handler="helo"),), "handlers": {"hello": Does(hello)}},
            'settings: routes[0].handler: is "helo", and there is no such handler'
            ' (did you mean "hello"?)',
        ),
        (
            {"routes": (RouteSettings(pool="default", middlewares=("x",)),)},
            'settings: routes[0].middlewares[0]: is "x", and there is no such middleware'
            " (expected a [middlewares.NAME] table)",
        ),
        (
            {"tables_of_middlewares": {"m": COUNTS}, "middlewares": {"m": Counts()}},
            "settings: middlewares.m: is given to open_proxy, too (expected one of the two)",
        ),
        (
            {"tables_of_middlewares": {"m": MiddlewareSettings(kind="nowhere:X")}},
            'settings: middlewares.m.kind: is "nowhere:X", and there is no module nowhere'
            " (expected one that Python finds: see --app-dir, or PYTHONPATH)",
        ),
    ],
)
async def test_names_that_nothing_has_are_refused_at_the_start(
    given: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        async with world(**given):
            raise AssertionError("it has started")
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    "given", [{"middlewares": [Counts]}, {"handlers": {"x": hello}}, {"middlewares": {"x": 5}}]
)
async def test_a_class_or_a_function_in_place_of_an_instance_is_refused(
    given: dict[str, Any],
) -> None:
    with pytest.raises(TypeError, match="expected an instance with an async method handle"):
        async with world(**given):
            raise AssertionError("it has started")


async def test_what_was_given_for_nothing_is_mentioned() -> None:
    """Who believes that it guards something should hear of it."""
    async with world(handlers={"h": Does(hello)}, middlewares={"guard": Marks("m")}) as w:
        await trio.lowlevel.checkpoint()
    warnings = w.messages(30)
    assert "handlers: no route leads to h" in warnings
    assert "middlewares: no route leads through guard" in warnings
