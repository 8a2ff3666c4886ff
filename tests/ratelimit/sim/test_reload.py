"""The rate limit over reloads: what a bucket keeps, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from support.limiting import get, limit, rate_fields, stand, status_of, statuses
from support.scenario import GET, now_ms, only, until_ms
from support.world import World, settings_for, world
from trio_proxy.http.errors import Reason
from trio_proxy.settings import RateLimitSettings

OTHER = "198.51.100.8"


async def reload(w: World, rate_limit: RateLimitSettings | None, **tables: Any) -> None:
    """The settings of `world` below, but for these."""
    await w.reload(settings_for(**{"rate_limit": rate_limit, "timeouts": only(), **tables}))


async def test_a_reload_of_something_else_leaves_every_bucket_as_it_is() -> None:
    """No client gets a new burst by it, and none loses what is left."""
    async with world(rate_limit=limit(3), timeouts=only()) as w:
        w.upstreams[0].serve()
        async with await w.client() as client, await w.client(OTHER) as other:
            assert await statuses(client, 4) == [200, 200, 200, 429]
            assert await statuses(other, 1) == [200]
            await until_ms(5_000)
            await reload(w, limit(3), timeouts=only(read_ms=1))
            await reload(w, limit(3))
            assert await statuses(client, 1) == [429]
            assert stand(await other.ask(GET)) == (3, 1, 15)
            await until_ms(10_000)
            assert await statuses(client, 2) == [200, 429]


async def test_a_bigger_burst_is_what_was_left_and_the_difference() -> None:
    """What a client has used stays used."""
    async with world(rate_limit=limit(2), timeouts=only()) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            assert await statuses(client, 3) == [200, 200, 429]
            await reload(w, limit(5))
            assert stand(await client.ask(GET)) == (5, 2, 30)
            assert await statuses(client, 3) == [200, 200, 429]


async def test_a_smaller_burst_is_in_force_with_the_next_request() -> None:
    """A client that has used more than that waits for one token, and not for the rest."""
    async with world(rate_limit=limit(9), timeouts=only()) as w:
        w.upstreams[0].serve()
        async with await w.client() as client, await w.client(OTHER) as fresh:
            assert await statuses(client, 9) == [200] * 9
            await reload(w, limit(2))
            answer = await client.ask(GET)
            assert (answer.status, answer[b"retry-after"]) == (429, b"10")
            assert await statuses(fresh, 3) == [200, 200, 429]
            await until_ms(10_000)
            assert await statuses(client, 2) == [200, 429]


async def test_a_lower_rate_gives_nobody_a_new_burst() -> None:
    """It is lowered when somebody comes too often: what he has used stays used (as in nginx)."""
    async with world(rate_limit=limit(3, rate=10), timeouts=only()) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            assert await statuses(client, 4) == [200, 200, 200, 429]
            await reload(w, limit(3, rate=0.1))
            answer = await client.ask(GET)
            assert (answer.status, answer[b"retry-after"]) == (429, b"10")
            await until_ms(10_000)
            assert await statuses(client, 2) == [200, 429]


async def test_a_higher_rate_counts_from_the_reload_on() -> None:
    """An empty bucket fills at the new rate, though nobody has looked at it meanwhile."""
    async with world(rate_limit=limit(3), timeouts=only()) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            assert await statuses(client, 4) == [200, 200, 200, 429]
            await reload(w, limit(3, rate=1))
            await until_ms(2_000)
            assert await statuses(client, 3) == [200, 200, 429]


async def test_a_changed_rate_is_told_with_the_next_answer() -> None:
    """On a connection that was open before."""
    async with world(rate_limit=limit(10, rate=10), timeouts=only()) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            assert (await client.ask(GET))[b"ratelimit-policy"] == b'"trio-proxy";q=10;w=1'
            await reload(w, limit(20, rate=5))
            answer = await client.ask(GET)
            assert answer[b"ratelimit-policy"] == b'"trio-proxy";q=20;w=4'
            assert answer[b"ratelimit-limit"] == b"20"


async def test_a_changed_key_starts_with_full_buckets() -> None:
    """Those of the old key are of no use: and they are gone when it comes back."""
    async with world(rate_limit=limit(1), timeouts=only()) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            assert await statuses(client, 2) == [200, 429]
            await reload(w, limit(1, key="header:X-User"))
            assert await statuses(client, 2, get(b"X-User: 1")) == [200, 429]
            assert await statuses(client, 1, get(b"X-User: 2")) == [200]
            await reload(w, limit(1, key="global"))
            assert await statuses(client, 2, get(b"X-User: 1")) == [200, 429]
            assert await status_of(w, OTHER) == 429
            await reload(w, limit(1))
            assert await statuses(client, 2) == [200, 429]


async def test_a_limit_that_is_switched_on_begins_with_the_next_request() -> None:
    """With full buckets, whatever came before."""
    async with world(timeouts=only()) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            assert await statuses(client, 20) == [200] * 20
            await reload(w, limit(2))
            assert await statuses(client, 3) == [200, 200, 429]


async def test_a_limit_that_is_switched_off_is_gone_and_forgotten() -> None:
    """Answers have no fields of it any more; switched on again it starts anew."""
    async with world(rate_limit=limit(1), timeouts=only()) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            assert await statuses(client, 2) == [200, 429]
            await reload(w, None)
            assert await statuses(client, 20) == [200] * 20
            assert rate_fields(await client.ask(GET)) == {}
            await reload(w, limit(1))
            assert await statuses(client, 2) == [200, 429]


async def test_a_request_under_way_is_not_touched_by_a_reload() -> None:
    """It was let in under the old limit, and is told of that one."""
    async with world(rate_limit=limit(5), timeouts=only()) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await reload(w, limit(1, key="global"))
        await upstream.respond()
        assert stand(await client.read_response()) == (5, 4, 10)
        client.close()


async def test_a_smaller_table_forgets_who_was_not_seen_for_longest() -> None:
    """With the reload; the one that came last stays limited."""
    async with world(rate_limit=limit(1, max_keys=10), timeouts=only()) as w:
        w.upstreams[0].serve()
        for number in range(3):
            assert await status_of(w, f"192.0.2.{number}") == 200
        await reload(w, limit(1, max_keys=1))
        assert await status_of(w, "192.0.2.2") == 429
        assert await status_of(w, "192.0.2.0") == 200


async def test_a_refused_reload_changes_no_limit() -> None:
    """A port that is taken, after all else was fine."""
    async with world(rate_limit=limit(1), timeouts=only()) as w:
        w.upstreams[0].serve()
        taken = await w.net.listen("10.0.0.1:8080")
        async with await w.client() as client:
            assert await statuses(client, 2) == [200, 429]
            with pytest.raises(OSError, match="in use"):
                await reload(w, None, listen=["10.0.0.1:80", "10.0.0.1:8080"])
            assert await statuses(client, 1) == [429]
            await until_ms(10_000)
            assert stand(await client.ask(GET)) == (1, 0, 10)
        taken.close()


@pytest.fixture
def clock() -> MockClock:
    """For threads, whose end an autojumping clock cannot await; no test with it waits for time."""
    return MockClock(rate=1.0)


@pytest.mark.parametrize("before", [None, limit(1)], ids=["off", "on"])
async def test_a_store_that_cannot_be_used_refuses_the_reload(
    clock: MockClock, before: RateLimitSettings | None
) -> None:
    """Nothing has changed: neither limit nor upstreams nor listeners nor settings."""
    store = "rediss://127.0.0.1:1/0?ssl_ca_certs=/nonexistent/ca.pem"
    async with world(upstreams=2, rate_limit=before, timeouts=only()) as w:
        for upstream in w.upstreams:
            upstream.serve()
        settings, members = w.proxy.settings, list(w.proxy.pools["default"].members)
        async with await w.client() as client:
            expected = [200, 200] if before is None else [200, 429]
            assert await statuses(client, 2) == expected
            with pytest.raises(OSError, match=r"rate_limit\.store: rediss://127\.0\.0\.1:1/0 "):
                await reload(w, limit(1, store=store), upstreams=1, listen=["10.0.0.1:8080"])
            assert w.proxy.settings is settings
            assert list(w.proxy.pools["default"].members) == members
            assert [str(address) for address in w.proxy.addresses] == ["10.0.0.1:80"]
            assert await statuses(client, 1) == expected[1:]
            await reload(w, limit(1, key="global"), upstreams=2)
            assert await statuses(client, 2) == [200, 429]


async def test_reloads_under_load_lose_no_count() -> None:
    """A reload every 50 ms: the client gets its burst and a token each second, no more, no less."""
    async with world(rate_limit=limit(5, rate=1), timeouts=only()) as w:
        w.upstreams[0].serve(delay=0.001)
        async with await w.client() as client, trio.open_nursery() as nursery:
            nursery.start_soon(reload_for_ever, w)
            seen = []
            while now_ms() < 6_500:
                seen.append((await client.ask(GET)).status)
                await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
        assert seen.count(200) == 5 + 6
        assert w.proxy.stats.rejected[Reason.RATE_LIMITED] == seen.count(429)
        assert len(w.upstreams[0].requests) == seen.count(200)


async def reload_for_ever(w: World) -> None:
    for number in range(100_000):
        await trio.sleep(0.05)
        await reload(w, limit(5, rate=1, max_keys=1 + number % 7))
