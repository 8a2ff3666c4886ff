"""The rate limit and what lies behind it: no upstream, queue, check or breaker sees a refusal."""

from __future__ import annotations

import pytest

from support.conversation import Speaker
from support.limiting import limit, rate_fields, stand, status_of, statuses
from support.pools import A, is_up, outcomes, serve, servers, tries
from support.scenario import GET, SWITCH, UPGRADE, all_at_once, now_ms, until_ms
from support.world import CLIENT, METRICS, World, world
from trio_proxy.http.errors import Reason
from trio_proxy.settings import BreakerSettings, Health, Limits, Retry

OTHER = "198.51.100.8"
AGAIN = Retry(attempts=3, on=("connect", "reset", "timeout", "429", "503"))


async def test_a_refused_request_reaches_no_upstream() -> None:
    """No try is made and no connection opened for it."""
    async with world(upstreams=2, rate_limit=limit(2), retry=Retry()) as w:
        pool = serve(w)
        statuses = await all_at_once(10, lambda _: status_of(w, CLIENT))
        assert sorted(statuses) == [200] * 2 + [429] * 8
        assert [len(server.requests) for server in pool] == [1, 1]
        assert [len(upstream.peers) for upstream in w.upstreams] == [1, 1]
        assert (
            sum(w.proxy.stats.upstream("default", each.name).requests for each in w.upstreams) == 2
        )
    assert sorted(map(len, tries(w))) == [0] * 8 + [1] * 2


async def test_a_refused_request_takes_no_place_in_the_queue() -> None:
    """The one place is left to a client that has a token; the refusals come at once."""
    limits = Limits(max_conns_per_upstream=1, max_queue=1)
    async with world(rate_limit=limit(1), limits=limits) as w:
        w.upstreams[0].serve(delay=1)
        first = await w.client()
        await first.send(GET)
        await until_ms(100)
        assert await all_at_once(5, lambda _: status_of(w, CLIENT)) == [429] * 5
        assert (now_ms(), w.proxy.pools["default"].queue_length) == (100, 0)
        assert await status_of(w, OTHER) == 200
        assert now_ms() == 2000
        assert (await first.read_response()).status == 200
        first.close()
        assert w.proxy.stats.rejected[Reason.QUEUE_FULL] == 0
        assert w.proxy.stats.rejected[Reason.RATE_LIMITED] == 5


async def test_a_queued_request_has_taken_its_token_already() -> None:
    """The limit is on what comes, not on what is served; a full queue does not give it back."""
    limits = Limits(max_conns_per_upstream=1, max_queue=0)
    async with world(rate_limit=limit(3), limits=limits) as w:
        w.upstreams[0].serve(delay=1)
        answers = await all_at_once(5, lambda _: status_of(w, CLIENT))
        assert sorted(answers) == [200, 429, 429, 503, 503]


async def test_refusals_count_in_no_health_and_open_no_breaker() -> None:
    """A hundred of them are nothing to the upstreams, which serve on."""
    breaker = BreakerSettings(min_requests=1, error_percent=1, error_statuses=("4xx", "5xx"))
    health = Health(fail_statuses=("4xx", "5xx"))
    async with world(
        upstreams=2, rate_limit=limit(1), breaker=breaker, health=health, retry=AGAIN
    ) as w:
        serve(w)
        async with await w.client() as client:
            assert (await statuses(client, 101))[1:] == [429] * 100
        assert [is_up(w, upstream.name) for upstream in w.upstreams] == [True, True]
        assert [await status_of(w, f"192.0.2.{number}") for number in range(4)] == [200] * 4
    assert tries(w) == ["a", *[""] * 100, "b", "a", "b", "a"]
    assert sum(w.proxy.stats.retries.values()) == 0
    assert not [line for line in w.messages() if "upstream" in line]


async def test_a_refusal_is_never_retried() -> None:
    """Though 429 is among the statuses that are, when they are an upstream's."""
    async with world(upstreams=2, rate_limit=limit(1), retry=AGAIN) as w:
        pool = serve(w)
        async with await w.client() as client:
            assert await statuses(client, 3) == [200, 429, 429]
        assert [len(server.requests) for server in pool] == [1, 0]
    assert [exchange.not_retried for exchange in w.exchanges] == ["", "", ""]


async def test_a_retried_request_costs_one_token() -> None:
    """However many tries it takes."""
    async with world(upstreams=2, rate_limit=limit(3), retry=AGAIN) as w:
        pool = serve(w)
        pool[0].fault = "reset"
        async with await w.client() as client:
            answers = [await client.ask(GET) for _ in range(3)]
            assert [stand(answer)[1] for answer in answers] == [2, 1, 0]
    assert tries(w)[0] == "ab"


async def test_an_upstreams_own_429_is_passed_on_and_is_no_rejection_of_ours() -> None:
    """With its own Retry-After; our fields say how our bucket stands."""
    async with world(rate_limit=limit(5)) as w:
        (server,) = serve(w)
        server.status, server.fields = 429, b"Retry-After: 77\r\n"
        async with await w.client() as client:
            answer = await client.ask(GET)
        assert (answer.status, answer[b"retry-after"], answer.body) == (429, b"77", b"a")
        assert stand(answer) == (5, 4, 10)
        assert b"proxy-status" not in answer
        assert w.proxy.stats.rejected[Reason.RATE_LIMITED] == 0
    assert (outcomes(w), w.messages(30)) == (["429"], [])


async def test_health_checks_are_not_limited() -> None:
    """They are nobody's requests, even when one bucket is for all."""
    health = Health(path="/healthz", interval_ms=100, fall=1)
    async with world(upstreams=servers({}), rate_limit=limit(1, key="global"), health=health) as w:
        (server,) = serve(w)
        assert await status_of(w, CLIENT) == 200
        await until_ms(9_900)
        assert await status_of(w, OTHER) == 429
        assert len(server.requests) > 50
        assert is_up(w, A)


async def test_the_metrics_port_is_not_limited() -> None:
    """A scraper comes as often as it likes, and is told of no limit."""
    async with world(metrics_listen=METRICS, rate_limit=limit(1, key="global")) as w:
        w.upstreams[0].serve()
        assert await status_of(w, CLIENT) == 200
        async with await w.client(address=METRICS) as scraper:
            for _ in range(20):  # any path but /metrics itself, which needs a thread
                answer = await scraper.ask(b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (answer.status, rate_fields(answer)) == (404, {})
        assert await status_of(w, CLIENT) == 429


# An upstream that has a limit of its own.


async def answer_with(w: World, fields: bytes) -> dict[bytes, list[bytes]]:
    """The RateLimit fields that a client sees when an upstream's answer has these field lines."""
    (server,) = serve(w)
    server.fields = fields
    async with await w.client() as client:
        return rate_fields(await client.ask(GET))


async def test_an_upstreams_own_fields_are_left_as_they_are() -> None:
    """Its values, and of the lists perhaps a line of ours beside them."""
    async with world(rate_limit=limit(5)) as w:
        own = (
            b'RateLimit-Policy: "default";q=7;w=70\r\n'
            b'ratelimit: "default";r=6;t=50\r\n'
            b"RATELIMIT-LIMIT: 7\r\nRateLimit-Remaining: 6\r\nRateLimit-Reset: 50\r\n"
        )
        fields = await answer_with(w, own)
        for name in (b"ratelimit", b"ratelimit-policy"):
            fields[name] = [line for line in fields[name] if b'"trio-proxy"' not in line]
        assert fields == {
            b"ratelimit": [b'"default";r=6;t=50'],
            b"ratelimit-limit": [b"7"],
            b"ratelimit-policy": [b'"default";q=7;w=70'],
            b"ratelimit-remaining": [b"6"],
            b"ratelimit-reset": [b"50"],
        }


@pytest.mark.parametrize(
    "own",
    [
        b"RateLimit-Limit: 7\r\n",
        b"RateLimit-Remaining: 0\r\n",
        b"RateLimit-Limit: 7\r\nRateLimit-Remaining: 0\r\n",
        b"RateLimit-Remaining: 0\r\nRateLimit-Reset: 3600\r\n",
    ],
)
async def test_the_older_fields_are_one_statement_an_upstreams_or_ours(own: bytes) -> None:
    """Its remaining beside our limit or reset would say what neither means."""
    async with world(rate_limit=limit(5)) as w:
        fields = await answer_with(w, own)
        older = {name: fields[name] for name in fields if name.startswith(b"ratelimit-")}
        older.pop(b"ratelimit-policy", None)
        lines = [line.split(b": ") for line in own.splitlines()]
        assert older == {name.lower(): [value] for name, value in lines}


@pytest.mark.parametrize(
    "own", [b'RateLimit: "default";r=0;t=60\r\n', b'RateLimit-Policy: "default";q=7;w=70\r\n']
)
async def test_an_upstreams_policy_and_state_are_not_mixed_with_ours(own: bytes) -> None:
    """A state names a policy beside it, so ours is with its policy or not there."""
    async with world(rate_limit=limit(5)) as w:
        fields = await answer_with(w, own)
        name, value = own.strip().split(b": ")
        assert value in fields[name.lower()]
        policies, states = fields.get(b"ratelimit-policy", []), fields.get(b"ratelimit", [])
        ours = [any(b'"trio-proxy"' in each for each in found) for found in (policies, states)]
        assert ours in ([True, True], [False, False])


async def test_the_fields_of_an_upstreams_101_are_not_doubled() -> None:
    """Its word is left as it is there too."""
    async with world(rate_limit=limit(5)) as w:
        client = await w.client()
        await client.send(UPGRADE)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        own = b"RateLimit-Limit: 7\r\nRateLimit-Remaining: 6\r\nRateLimit-Reset: 50\r\n\r\n"
        await upstream.send(SWITCH[:-2] + own)
        switched = await client.read_head()
        assert stand(switched) == (7, 6, 50)
        client.close()
        assert await upstream.receive_all() == b""


async def test_other_fields_of_an_upstreams_limit_pass_unchanged() -> None:
    """``X-RateLimit-*`` is a dialect that we do not speak."""
    async with world(rate_limit=limit(5)) as w:
        (server,) = serve(w)
        server.fields = b"X-RateLimit-Remaining: 1\r\n"
        async with await w.client() as client:
            answer = await client.ask(GET)
        assert (answer[b"x-ratelimit-remaining"], stand(answer)) == (b"1", (5, 4, 10))


async def test_an_interim_answer_has_none_of_the_fields() -> None:
    """They are the final answer's: an early hint is not counted."""
    async with world(rate_limit=limit(5)) as w:
        w.upstreams[0].run(hint_and_answer)
        async with await w.client() as client:
            await client.send(GET)
            hint = await client.read_head()
            assert (hint.status, rate_fields(hint)) == (103, {})
            assert stand(await client.read_response()) == (5, 4, 10)


async def hint_and_answer(peer: Speaker) -> None:
    while True:
        await peer.read_request()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
        await peer.respond()
