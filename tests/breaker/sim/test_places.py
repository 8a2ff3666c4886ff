"""The places of a half-open breaker: who holds one without an outcome does not hold it for ever."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked as settle

from support.pools import ask, serve, servers, statuses
from support.scenario import drip, only, post
from support.world import world
from trio_proxy.settings import BreakerSettings

BREAKER = BreakerSettings(min_requests=1, half_open_requests=2, open_ms=1000)


async def test_slow_clients_do_not_hold_the_places_for_ever() -> None:
    """After open_ms their places go to others, whose answers close the breaker."""
    async with world(upstreams=servers({}, max_fails=0), timeouts=only(), breaker=BREAKER) as w:
        (server,) = serve(w)
        server.status = 500
        assert await statuses(w, 1) == [500]
        server.status = 200
        await trio.sleep(1.1)
        for _ in range(BREAKER.half_open_requests):
            client = await w.client()
            await client.send(post(100))
            drip(w, client, b"x", 10)
            await settle()
        assert await statuses(w, 1) == [503]
        await trio.sleep(1)
        assert await ask(w, 5) == b"aaaaa"


async def test_a_place_is_held_for_a_second_however_short_open_ms_is() -> None:
    """An answer may take that long, so no more probes are let in meanwhile."""
    breaker = BreakerSettings(min_requests=1, half_open_requests=2, open_ms=100)
    async with world(upstreams=servers({}, max_fails=0), timeouts=only(), breaker=breaker) as w:
        (server,) = serve(w)
        server.status = 500
        await statuses(w, 1)
        server.status, server.delay = 200, 0.9
        await trio.sleep(0.2)
        clients = [await w.client() for _ in range(2)]
        for client in clients:
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in range(4):
            await trio.sleep(0.2)
            assert await statuses(w, 1) == [503]
        assert [(await client.read_response()).status for client in clients] == [200, 200]
        assert await statuses(w, 1) == [200]
