"""The rate limit as a client sees it: which request is refused, and what the answers tell it."""

from __future__ import annotations

import json
import logging
import re

from support.limiting import get, limit, rate_fields, stand, statuses
from support.pools import sample
from support.scenario import GET, ending, now_ms, only, refusal, until_ms
from support.world import CLIENT, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.telemetry.accesslog import access_fields, access_text

#: What differs between two runs.
VARIES = re.compile(rb"(?<=Date: )[^\r]+|(?<=X-Trace-ID: )[^\r]+")


async def test_the_request_after_the_burst_is_refused_and_then_one_per_token() -> None:
    """Three at once, and from then on one every ten seconds, to the millisecond."""
    async with world(rate_limit=limit(3), timeouts=only()) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            assert await statuses(client, 5) == [200, 200, 200, 429, 429]
            assert now_ms() == 0
            await until_ms(9_980)
            assert await statuses(client, 1) == [429]
            await until_ms(10_000)
            assert await statuses(client, 2) == [200, 429]
            await until_ms(30_000)
            assert await statuses(client, 3) == [200, 200, 429]
        assert len(w.upstreams[0].requests) == 6


async def test_a_bucket_holds_no_more_than_the_burst() -> None:
    """However long its client was away."""
    async with world(rate_limit=limit(3), timeouts=only()) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            for day in range(3):
                await until_ms(day * 24 * 3600 * 1000)
                assert await statuses(client, 5) == [200, 200, 200, 429, 429]


async def test_a_refusal_byte_for_byte() -> None:
    """A 429 of our own: when to come again, and how the bucket stands, in both forms."""
    async with world(rate_limit=limit(1)) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            await client.ask(GET)
            answer = await client.ask(GET)
    assert VARIES.sub(b"*", answer.raw) == (
        b"HTTP/1.1 429 Too Many Requests\r\n"
        b"Date: *\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Via: 1.1 trio-proxy\r\n"
        b"Proxy-Status: trio-proxy; error=http_request_denied\r\n"
        b"X-Trace-ID: *\r\n"
        b"Retry-After: 10\r\n"
        b'RateLimit-Policy: "trio-proxy";q=1;w=10\r\n'
        b'RateLimit: "trio-proxy";r=0;t=10\r\n'
        b"RateLimit-Limit: 1\r\n"
        b"RateLimit-Remaining: 0\r\n"
        b"RateLimit-Reset: 10\r\n"
        b"Content-Length: 65\r\n\r\n"
    )
    assert refusal(answer) == (
        429,
        b"trio-proxy; error=http_request_denied",
        b"429 Too Many Requests: too many requests (phase: request_filter)\n",
    )


async def test_an_answer_byte_for_byte() -> None:
    """An upstream's answer says how the bucket stands, and nothing of Retry-After."""
    async with world(rate_limit=limit(20, rate=2)) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            answer = await client.ask(GET)
    assert VARIES.sub(b"*", answer.raw) == (
        b"HTTP/1.1 200 OK\r\n"
        b"Date: *\r\n"
        b"Via: 1.1 trio-proxy\r\n"
        b"X-Trace-ID: *\r\n"
        b'RateLimit-Policy: "trio-proxy";q=20;w=10\r\n'
        b'RateLimit: "trio-proxy";r=19;t=1\r\n'
        b"RateLimit-Limit: 20\r\n"
        b"RateLimit-Remaining: 19\r\n"
        b"RateLimit-Reset: 1\r\n"
        b"Content-Length: 2\r\n\r\n"
    )


async def test_the_fields_count_down_and_up_again() -> None:
    """Remaining is what would be let in now; reset is when the bucket is full, or a token there."""
    async with world(rate_limit=limit(3, rate=0.5), timeouts=only()) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            told = [stand(await client.ask(GET)) for _ in range(4)]
            assert told == [(3, 2, 2), (3, 1, 4), (3, 0, 6), (3, 0, 2)]
            await until_ms(500)
            assert stand(await client.ask(GET)) == (3, 0, 2)
            await until_ms(1_500)
            assert stand(await client.ask(GET)) == (3, 0, 1)
            await until_ms(5_000)
            assert stand(await client.ask(GET)) == (3, 1, 3)
            await until_ms(3_600_000)
            assert stand(await client.ask(GET)) == (3, 2, 2)


async def test_a_failed_exchange_says_how_the_bucket_stands() -> None:
    """It has cost a token, so its 502 has the fields too."""
    async with world(rate_limit=limit(3)) as w:
        w.net.refuse(w.upstreams[0].name)
        async with await w.client() as client:
            answer = await client.ask(GET)
            assert answer.status == 502
            assert b"retry-after" not in answer
            assert stand(answer) == (3, 2, 10)
            assert stand(await client.ask(GET)) == (3, 1, 20)


async def test_what_is_no_request_costs_no_token_and_is_told_nothing() -> None:
    """Refused before anybody knows whose it is."""
    async with world(rate_limit=limit(1)) as w:
        w.upstreams[0].serve()
        for bad in (b"GET / HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n"):
            async with await w.client() as client:
                answer = await client.ask(bad)
                assert answer.status == 400
                assert rate_fields(answer) == {}
        async with await w.client() as client:
            assert (await client.ask(GET)).status == 200


async def test_without_the_table_nothing_is_limited_or_told() -> None:
    """The limit is off unless it is asked for."""
    async with world() as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            answers = [await client.ask(GET) for _ in range(300)]
    assert {answer.status for answer in answers} == {200}
    assert rate_fields(answers[0]) == {}


async def test_the_refusal_of_a_head_request_has_no_body() -> None:
    """The connection goes on behind the head."""
    async with world(rate_limit=limit(1)) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            await client.ask(GET)
            answer = await client.ask(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (answer.status, answer[b"retry-after"]) == (429, b"10")
            await until_ms(10_000)
            assert (await client.ask(GET)).body == b"ok"


async def test_whoever_wants_json_is_refused_in_json() -> None:
    """The same facts, with the trace id."""
    async with world(rate_limit=limit(1)) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            await client.ask(GET)
            answer = await client.ask(get(b"Accept: application/json"))
    assert answer[b"content-type"] == b"application/json"
    assert json.loads(answer.body) == {
        "status": 429,
        "title": "Too Many Requests",
        "detail": "too many requests",
        "phase": "request_filter",
        "trace_id": answer[b"x-trace-id"].decode(),
    }


async def test_a_refusal_in_log_and_metrics() -> None:
    """The access line says why and that nobody was asked; it is the client's doing."""
    async with world(rate_limit=limit(1)) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            await client.ask(GET)
            answer = await client.ask(b"GET /two HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sample(w, "proxy_rejected_total", reason="rate_limited") == 1
            assert sample(w, "proxy_responses_total", status_class="4xx") == 1
            assert sample(w, "proxy_requests_total") == 2
    refused = w.exchanges[1]
    assert ending(refused) == (429, Reason.RATE_LIMITED, Source.CLIENT, Phase.REQUEST_FILTER)
    assert refused.tries == []
    assert access_text(refused) == (
        f'{CLIENT} "GET /two HTTP/1.1" 429 65B 0.0ms upstream=-'
        f" trace_id={answer[b'x-trace-id'].decode()} in=30B tries=0"
        " phase=request_filter error=rate_limited"
    )
    facts = access_fields(refused)
    assert (facts["error"], facts["source"], facts["upstream"]) == ("rate_limited", "client", None)


async def test_the_log_names_the_limit_that_was_hit_and_is_not_flooded() -> None:
    """One warning, however many are refused at that moment."""
    async with world(rate_limit=limit(1)) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            assert (await statuses(client, 50))[1:] == [429] * 49
    assert w.messages(logging.WARNING) == [
        f"rate limit by client_ip reached, of {CLIENT}: request refused"
    ]
