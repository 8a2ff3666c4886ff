"""What each example does to requests and responses, piece by piece."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from support.conversation import Message, Speaker
from support.examples import NAMES, configuration, routes_through, settings_of, tables
from support.pools import sample
from support.scenario import ending
from support.world import GET, World, run, world
from trio_proxy import Phase, Source
from trio_proxy.telemetry.accesslog import access_text


@asynccontextmanager
async def example(name: str, **options: Any) -> AsyncIterator[World]:
    """The example in front of one upstream."""
    of_it = tables(name, **options)
    async with world(tables_of_middlewares=of_it, routes=routes_through(of_it)) as w:
        yield w


def request(*fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} / HTTP/1.1", "Host: a", *fields, "", ""]).encode()


@pytest.mark.parametrize("name", NAMES)
def test_each_configuration_that_is_shown_loads(name: str) -> None:
    """And its route leads through the example."""
    shown = settings_of(name)
    assert not list(shown.remarks())
    assert [*shown.middlewares] == [*shown.routes[0].middlewares]
    assert f'kind = "{name}:' in configuration(name)


# API key

KEY = "X-API-Key: correct-horse-battery"


async def test_who_knows_a_key_is_let_in_and_the_upstream_does_not_see_it() -> None:
    async with example("api_key") as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            assert (await client.ask(request(KEY))).status == 200
            assert (await client.ask(request("x-api-key: the-second-one"))).status == 200
        assert all(b"x-api-key" not in each for each in w.upstreams[0].requests)


async def test_the_upstream_gets_the_key_if_it_is_to_be_passed_on() -> None:
    async with example("api_key", pass_on=True, header="Authorization", keys=["Key x"]) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            assert (await client.ask(request("Authorization: Key x"))).status == 200
        assert w.upstreams[0].requests[0][b"authorization"] == b"Key x"


@pytest.mark.parametrize(
    "fields", [[], ["X-API-Key: wrong"], ["X-API-Key:"], [KEY + "x"], [KEY, KEY]]
)
async def test_anybody_else_is_answered_with_401(fields: list[str]) -> None:
    """The answer says how to do better, the log and the metrics why; the connection goes on."""
    async with example("api_key") as w, await w.client() as client:
        for _ in range(2):
            answer = await client.ask(request(*fields))
            assert answer.start == b"HTTP/1.1 401 Unauthorized"
            assert answer[b"www-authenticate"] == b'ApiKey realm="proxy"'
            assert answer[b"proxy-status"] == b"trio-proxy; error=http_request_denied"
            assert answer.body == b"401 Unauthorized: no valid API key (phase: request_filter)\n"
        status, reason, source, phase = ending(w.exchanges[0])
        assert (status, source, phase) == (401, Source.CLIENT, Phase.REQUEST_FILTER)
        assert reason is not None
        assert reason.slug == "unauthorized"
        assert " error=unauthorized" in access_text(w.exchanges[0])
        assert sample(w, "proxy_rejected_total", reason="other") == 2


# Rewriting

OLD, NEW = b"http://internal.example", b"https://www.example.com"
HTML = b"Content-Type: text/html; charset=utf-8\r\n"


async def answered(
    w: World, *, pieces: list[bytes], fields: bytes, ask: bytes = GET
) -> tuple[Message, Message]:
    """What the client gets, and what the upstream was asked, with an answer sent in pieces."""
    asked: list[Message] = []

    async def talk(peer: Speaker) -> None:
        asked.append(await peer.read_request())
        await peer.send(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n")
        for piece in pieces:
            await peer.send(piece)
            await trio.sleep(0.001)

    w.upstreams[0].run(talk)
    async with await w.client() as client:
        answer = await client.ask(ask)
    return answer, asked[0]


def of_length(body: bytes) -> bytes:
    return HTML + b"Content-Length: %d\r\n" % len(body)


async def test_a_text_is_replaced_wherever_it_is_cut() -> None:
    """Also where a piece ends within it; the framing is that of an unknown length."""
    page = b"<a href='" + OLD + b"/x'>" + OLD + b"</a> http://internal.exampl"
    for at in range(len(page)):
        async with example("rewrite_response") as w:
            pieces = [page[:at], page[at:]]
            answer, _ = await answered(w, pieces=pieces, fields=of_length(page))
            assert answer.body == page.replace(OLD, NEW)
            assert answer[b"transfer-encoding"] == b"chunked"
            assert b"content-length" not in answer


@settings(max_examples=100, deadline=None)
@given(st.text("ab", min_size=1, max_size=4), st.lists(st.text("abc", max_size=8), max_size=8))
def test_law_it_is_as_if_the_whole_body_had_been_replaced_at_once(
    find: str, pieces: list[str]
) -> None:
    async def check() -> None:
        body = "".join(pieces)
        async with example("rewrite_response", find=find, replace="<ab>") as w:
            answer, _ = await answered(
                w,
                pieces=[each.encode() for each in pieces],
                fields=of_length(body.encode()),
            )
            assert answer.body.decode() == body.replace(find, "<ab>")

    run(check)


async def test_a_large_page_is_replaced_on_its_way_from_socket_to_socket() -> None:
    """Nothing of it is lost, and it is no longer than it has to be in memory."""
    page = (b"x" * 1000 + OLD) * 2000
    async with example("rewrite_response") as w:
        answer, _ = await answered(w, pieces=[page], fields=of_length(page))
        assert answer.body == page.replace(OLD, NEW)


async def test_a_chunked_page_is_replaced_as_it_comes() -> None:
    """What cannot be the beginning of the text is not held back."""
    async with example("rewrite_response") as w, await w.client() as client:
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        head = b"HTTP/1.1 200 OK\r\n" + HTML + b"Transfer-Encoding: chunked\r\n\r\n"
        await upstream.send(head + b"8\r\nfirst ht\r\n")
        assert (await client.read_head()).status == 200
        assert await client.read_chunk() == b"first "
        await upstream.send(b"4\r\nbeat\r\n0\r\n\r\n")
        assert (await client.read_chunked())[0] == b"htbeat"


async def test_what_told_of_the_old_body_is_gone_and_the_rest_is_not() -> None:
    fields = HTML + (
        b'ETag: "1"\r\nLast-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\nAccept-Ranges: bytes\r\n'
        b"Digest: x\r\nCache-Control: max-age=5\r\nContent-Length: 2\r\n"
    )
    async with example("rewrite_response") as w:
        answer, _ = await answered(w, pieces=[b"ok"], fields=fields)
        for name in (b"etag", b"last-modified", b"accept-ranges", b"digest", b"content-length"):
            assert name not in answer
        assert answer[b"cache-control"] == b"max-age=5"


async def test_whole_pages_without_a_coding_are_asked_for() -> None:
    ask = request("Accept-Encoding: gzip, br", "Range: bytes=0-5")
    async with example("rewrite_response") as w:
        _, asked = await answered(w, pieces=[b"ok"], fields=of_length(b"ok"), ask=ask)
        assert asked[b"accept-encoding"] == b"identity"
        assert b"range" not in asked


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Type: text/plain\r\n",
        b"Content-Type: text/htmlx\r\n",
        b"",
        HTML + b"Content-Encoding: gzip\r\n",
    ],
)
async def test_other_bodies_are_left_alone(fields: bytes) -> None:
    """To the last byte, with their length and their ETag."""
    body = gzip.compress(OLD) if b"gzip" in fields else OLD
    whole = fields + b'ETag: "1"\r\nContent-Length: %d\r\n' % len(body)
    async with example("rewrite_response") as w:
        answer, _ = await answered(w, pieces=[body], fields=whole)
        assert (answer.body, answer[b"etag"]) == (body, b'"1"')
        assert answer[b"content-length"] == b"%d" % len(body)


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body_are_left_alone(status: int) -> None:
    async with example("rewrite_response") as w:

        async def talk(peer: Speaker) -> None:
            await peer.read_request()
            await peer.send(b"HTTP/1.1 %d X\r\n" % status + HTML + b'ETag: "1"\r\n\r\n')

        w.upstreams[0].run(talk)
        async with await w.client() as client:
            answer = await client.ask(GET)
            assert (answer.status, answer[b"etag"]) == (status, b'"1"')


async def test_the_answer_to_head_says_what_that_to_get_would() -> None:
    """Neither the length nor the ETag of a page that nobody gets; the connection goes on."""
    async with example("rewrite_response") as w:

        async def talk(peer: Speaker) -> None:
            while True:
                await peer.read_request()
                await peer.send(b"HTTP/1.1 200 OK\r\n" + of_length(OLD) + b'ETag: "1"\r\n\r\n')

        w.upstreams[0].run(talk)
        async with await w.client() as client:
            for _ in range(2):
                answer = await client.ask(request(method="HEAD"))
                assert answer.status == 200
                assert b"etag" not in answer
                assert b"content-length" not in answer


# A/B

COOKIE = re.compile(rb"checkout=([AB]); Max-Age=2592000; Path=/; HttpOnly; SameSite=Lax")


@pytest.mark.parametrize(("share", "variant"), [(0, b"A"), (1, b"B"), (0.0, b"A")])
async def test_a_client_without_a_variant_gets_one_and_keeps_it(
    share: float, variant: bytes
) -> None:
    """The upstream is told which, and the cookie comes once."""
    async with example("ab_header", share_of_b=share) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            first = await client.ask(GET)
            found = COOKIE.fullmatch(first[b"set-cookie"])
            assert found
            assert (found[1], first[b"vary"]) == (variant, b"Cookie")
            pair = first[b"set-cookie"].partition(b";")[0].decode()
            second = await client.ask(request(f"Cookie: other=x; {pair}"))
            assert b"set-cookie" not in second
            assert second[b"vary"] == b"Cookie"
        assert [each[b"x-variant"] for each in w.upstreams[0].requests] == [variant] * 2


async def test_the_cookie_decides_whatever_the_share_is_now() -> None:
    async with example("ab_header", share_of_b=1.0) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            answer = await client.ask(request("Cookie: checkout=A", "X-Variant: B"))
        assert w.upstreams[0].requests[0][b"x-variant"] == b"A"
        assert b"set-cookie" not in answer


@pytest.mark.parametrize("value", ["C", "", "AB", '"A"'])
async def test_a_cookie_that_is_no_variant_is_replaced(value: str) -> None:
    async with example("ab_header", share_of_b=0.0) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            answer = await client.ask(request(f"Cookie: checkout={value}"))
        assert COOKIE.fullmatch(answer[b"set-cookie"])
        assert w.upstreams[0].requests[0][b"x-variant"] == b"A"


async def test_both_variants_are_dealt_out() -> None:
    async with example("ab_header", share_of_b=0.5) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            for _ in range(100):
                await client.ask(GET)
        seen = {each[b"x-variant"] for each in w.upstreams[0].requests}
        assert seen == {b"A", b"B"}
