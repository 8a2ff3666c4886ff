"""While the rate limit waits for its store: the same clocks run as in any other phase.

A store that answers after 50 ms stands in for Redis, whose sockets know no virtual time.
"""

from __future__ import annotations

import pytest
import trio

from support.limiting import limit, stand, statuses
from support.scenario import GET, OK, UPGRADE, ending, now_ms, only, post, refusal, until_ms
from support.world import settings_for, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.middleware.ratelimit.ratelimit import LocalBuckets
from trio_proxy.policy.token_bucket import Grant

STORE_MS = 50


@pytest.fixture(autouse=True)
def slow_store(monkeypatch: pytest.MonkeyPatch) -> None:
    take_at_once = LocalBuckets.take

    async def take(self: LocalBuckets, key: bytes) -> Grant:
        await trio.sleep(STORE_MS / 1000)
        return await take_at_once(self, key)

    monkeypatch.setattr(LocalBuckets, "take", take)


async def test_a_request_is_answered_when_the_store_has() -> None:
    """And refused when it has."""
    async with world(rate_limit=limit(1), timeouts=only()) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            assert await statuses(client, 2) == [200, 429]
            assert now_ms() == 2 * STORE_MS


async def test_the_heads_deadline_ends_with_the_head() -> None:
    """A head that came just in time is not too late because of our own store."""
    async with world(rate_limit=limit(5), timeouts=only(head_ms=100)) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            await client.send(GET[:9])
            await until_ms(80)
            await client.send(GET[9:])
            assert (await client.read_response()).status == 200
            assert now_ms() == 80 + STORE_MS


async def test_the_idle_deadline_ends_with_the_first_byte() -> None:
    """A request that came just in time, in one piece, on a new connection and on a kept one."""
    async with world(rate_limit=limit(5), timeouts=only(idle_ms=100)) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            for turn in range(3):
                await until_ms(80 + turn * (80 + STORE_MS))
                assert (await client.ask(GET)).status == 200
            assert now_ms() == 3 * (80 + STORE_MS)


async def test_the_total_budget_counts_while_the_store_is_asked() -> None:
    """504 at total_ms, and no upstream is bothered."""
    async with world(rate_limit=limit(5), timeouts=only(total_ms=30)) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            assert refusal(await client.ask(GET)) == (
                504,
                b"trio-proxy; error=http_response_timeout",
                b"504 Gateway Timeout: total deadline passed (phase: request_filter)\n",
            )
            assert now_ms() == 30
        assert w.upstreams[0].peers == []
    assert ending(w.exchanges[0])[1::2] == (Reason.TOTAL_TIMEOUT, Phase.REQUEST_FILTER)


@pytest.mark.parametrize("request_", [GET, post(100), UPGRADE], ids=["GET", "POST", "upgrade"])
async def test_a_client_that_leaves_meanwhile_ends_its_request(request_: bytes) -> None:
    """At once, and nobody else hears of it."""
    async with world(rate_limit=limit(5), timeouts=only()) as w:
        client = await w.client()
        await client.send(request_)
        await until_ms(20)
        client.abort()
        await until_ms(21)
        assert [exchange.status for exchange in w.exchanges] == [499]
        await until_ms(1000)
        assert w.upstreams[0].peers == []
    expected = (499, Reason.CLIENT_GONE, Source.CLIENT, Phase.REQUEST_FILTER)
    assert ending(w.exchanges[0]) == expected


async def test_the_body_that_comes_meanwhile_is_passed_on() -> None:
    """Nothing of it is lost or read too early."""
    async with world(rate_limit=limit(5), timeouts=only()) as w:
        client = await w.client()
        await client.send(post(6) + b"abc")
        await until_ms(20)
        await client.send(b"def" + GET)
        upstream = await w.upstreams[0].accept()
        assert now_ms() == STORE_MS
        assert (await upstream.read_request()).body == b"abcdef"
        await upstream.send(OK)
        assert stand(await client.read_response(b"POST")) == (5, 4, 10)
        assert (await upstream.read_request()).start == b"GET / HTTP/1.1"
        await upstream.send(OK)
        assert stand(await client.read_response()) == (5, 3, 20)
        client.close()


async def test_a_reload_meanwhile_is_for_the_next_request() -> None:
    """The one under way is judged by the settings that it came under."""
    async with world(rate_limit=limit(5), timeouts=only()) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            await client.send(GET)
            await until_ms(20)
            await w.reload(settings_for(rate_limit=limit(1, key="global"), timeouts=only()))
            assert stand(await client.read_response())[0] == 5
            assert stand(await client.ask(GET)) == (1, 0, 10)


async def test_a_drain_meanwhile_lets_the_request_end() -> None:
    """It is answered, and told that it was the last."""
    async with world(rate_limit=limit(5), timeouts=only(drain_ms=1000)) as w:
        w.upstreams[0].serve()
        async with await w.client() as client, trio.open_nursery() as nursery:
            await client.send(GET)
            await until_ms(20)
            nursery.start_soon(w.proxy.drain)
            answer = await client.read_response()
            assert (answer.status, answer[b"connection"]) == (200, b"close")
            client.close()
        assert now_ms() == STORE_MS
