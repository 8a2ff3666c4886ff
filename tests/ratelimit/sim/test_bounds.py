"""The rate limit under floods: the table stays small, and those who come often stay limited."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

from support.limiting import get, limit, status_of, statuses
from support.scenario import only, until_ms
from support.world import CLIENT, World, settings_for, world
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.client import Client
from trio_proxy.http.errors import ProxyError
from trio_proxy.http.messages import NO_BODY, Request
from trio_proxy.server.ratelimits import RateLimits
from trio_proxy.settings import HeaderSettings, RateLimitSettings

EDGE = "203.0.113.1"
BELIEVED = HeaderSettings(trusted_proxies=(ip_network("203.0.113.1/32"),))


async def flood(w: World, first: int, count: int) -> None:
    """One request of each of so many clients, through an edge proxy that is believed."""
    async with await w.client(EDGE) as edge:
        for number in range(first, first + count):
            address = str(IPv4Address("10.0.0.0") + number).encode()
            assert (await edge.ask(get(b"X-Forwarded-For: " + address))).status == 200


async def test_a_flood_of_addresses_does_not_free_a_client_that_comes_all_the_time() -> None:
    """Beyond max_keys the one that was not seen for longest is forgotten."""
    async with world(rate_limit=limit(1, max_keys=50), headers=BELIEVED, timeouts=only()) as w:
        w.upstreams[0].serve()
        assert await status_of(w, "198.51.100.9") == 200
        async with await w.client() as often:
            assert await statuses(often, 1) == [200]
            for turn in range(20):
                await flood(w, turn * 49, 49)
                assert await statuses(often, 1) == [429]
        assert await status_of(w, "198.51.100.9") == 200
        assert "keys=50/50" in repr(w.proxy.service.plan.handler)


async def test_the_table_is_empty_again_some_time_after_a_flood() -> None:
    """Full buckets are thrown away by those who come later."""
    async with world(rate_limit=limit(1), headers=BELIEVED, timeouts=only()) as w:
        w.upstreams[0].serve()
        await flood(w, 0, 200)
        assert "keys=200/100000" in repr(w.proxy.service.plan.handler)
        await until_ms(20_000)
        async with await w.client() as client:
            await statuses(client, 200)
        assert "keys=1/100000" in repr(w.proxy.service.plan.handler)


class Upstream:
    """Counts what is let through."""

    requests = 0

    async def handle(self, exchange: Any, request: Any, sink: Any) -> None:
        self.requests += 1


async def limited(settings: RateLimitSettings, handler: Any) -> Any:
    """The handler behind the limit, as a proxy with these settings has it."""
    limits = RateLimits()
    await limits.prepare(settings_for(rate_limit=settings))
    limits.commit()
    return limits.limited(handler)


#: What a hundred thousand requests have in common.
REQUEST = Request(b"GET", b"/", b"1.1", b"a", (), body=NO_BODY, keep_alive=True)


async def ask(handler: Any, client_ip: str) -> int:
    """The status of one request of a client, handed to the limit itself.

    A hundred thousand connections take too long.
    """
    exchange, sink = Exchange(started_at=0, started_wall=0, peer=EDGE), object()
    exchange.client = Client(client_ip, b"", b"http", b"a", is_trusted=False)
    try:
        await handler.handle(exchange, REQUEST, sink)
    except ProxyError as exc:
        return exc.status
    return 200


async def test_a_hundred_thousand_addresses_do_not_outgrow_the_table() -> None:
    """There is room for a third of them; one that comes all the time stays limited."""
    upstream, addresses = Upstream(), 100_000
    handler = await limited(limit(1, max_keys=addresses // 3), upstream)
    for number in range(addresses):
        assert await ask(handler, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}") == 200
        if number % 10_000 == 0:
            assert await ask(handler, CLIENT) == (200 if number == 0 else 429)
            assert f"keys={min(number + 2, 33_333)}/33333" in repr(handler)
    assert "keys=33333/33333" in repr(handler)
    assert upstream.requests == addresses + 1


async def test_all_the_addresses_of_an_ipv6_client_are_one_entry() -> None:
    """Ten thousand of one /64: one bucket, whose tokens they share."""
    upstream, network = Upstream(), IPv6Address("2001:db8:1:2::")
    handler = await limited(limit(3), upstream)
    for number in range(10_000):
        assert await ask(handler, str(network + number * 2**40)) == (200 if number < 3 else 429)
    assert "keys=1/100000" in repr(handler)
    assert upstream.requests == 3
