"""Whose token a request takes: clients by address, one bucket for all, or a field's value."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from support.limiting import get, limit, stand, status_of, statuses
from support.scenario import GET
from support.world import CLIENT, world
from trio_proxy.settings import HeaderSettings

OTHER = "198.51.100.8"
EDGE = "203.0.113.1"
#: The edge proxies in 203.0.113.0/24 are believed.
BELIEVED = HeaderSettings(trusted_proxies=(ip_network("203.0.113.0/24"),))


async def test_clients_do_not_influence_one_another() -> None:
    """One has used up its tokens and goes on asking; the other has all of its own."""
    async with world(rate_limit=limit(2)) as w:
        w.upstreams[0].serve()
        async with await w.client() as greedy, await w.client(OTHER) as modest:
            assert await statuses(greedy, 5) == [200, 200, 429, 429, 429]
            assert stand(await modest.ask(GET)) == (2, 1, 10)
            assert await statuses(greedy, 3) == [429, 429, 429]
            assert await statuses(modest, 2) == [200, 429]


async def test_all_connections_of_a_client_share_its_bucket() -> None:
    """A new connection is no new client."""
    async with world(rate_limit=limit(3)) as w:
        w.upstreams[0].serve()
        assert [await status_of(w, CLIENT) for _ in range(5)] == [200, 200, 200, 429, 429]


async def test_all_listeners_share_one_limit() -> None:
    """A second port is no second bucket."""
    ports = ["10.0.0.1:80", "10.0.0.1:8080"]
    async with world(listen=ports, rate_limit=limit(2)) as w:
        w.upstreams[0].serve()
        each = [await status_of(w, CLIENT, address=port) for port in ports * 2]
    assert each == [200, 200, 429, 429]


async def test_the_clients_on_a_unix_socket_share_a_bucket() -> None:
    """They have no addresses, and are not those of a TCP listener."""
    async with world(listen=["10.0.0.1:80", "unix:/run/p.sock"], rate_limit=limit(2)) as w:
        w.upstreams[0].serve()
        each = [await status_of(w, CLIENT, address="unix:/run/p.sock") for _ in range(3)]
        assert each == [200, 200, 429]
        assert await status_of(w, CLIENT) == 200


@pytest.mark.parametrize(
    "field",
    [
        b"X-Forwarded-For: 192.0.2.%d",
        b"Forwarded: for=192.0.2.%d",
        b"X-Real-IP: 192.0.2.%d",
        b"X-Client-IP: 192.0.2.%d",
        b"CF-Connecting-IP: 192.0.2.%d",
    ],
)
async def test_nobody_gets_a_new_bucket_by_claiming_another_address(field: bytes) -> None:
    """Whoever is no trusted proxy is not believed."""
    async with world(rate_limit=limit(2), headers=BELIEVED) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            each = [(await client.ask(get(field % number))).status for number in range(4)]
        assert each == [200, 200, 429, 429]


async def test_nobody_uses_up_the_bucket_of_an_address_that_he_claims() -> None:
    """The client that has it is not hurt."""
    async with world(rate_limit=limit(2), headers=BELIEVED) as w:
        w.upstreams[0].serve()
        claim = get(b"X-Forwarded-For: " + OTHER.encode())
        assert [await status_of(w, CLIENT, claim) for _ in range(3)] == [200, 200, 429]
        assert [await status_of(w, OTHER) for _ in range(3)] == [200, 200, 429]


async def test_clients_behind_a_trusted_proxy_have_buckets_of_their_own() -> None:
    """On one connection, through whichever of the proxies, and the same as without one."""
    async with world(rate_limit=limit(2), headers=BELIEVED) as w:
        w.upstreams[0].serve()
        one, other = (get(b"X-Forwarded-For: " + ip.encode()) for ip in (CLIENT, OTHER))
        async with await w.client(EDGE) as edge:
            assert await statuses(edge, 3, one) == [200, 200, 429]
            assert await statuses(edge, 1, other) == [200]
        assert await status_of(w, "203.0.113.2", other) == 200
        assert await status_of(w, "203.0.113.2", other) == 429
        assert await status_of(w, CLIENT) == 429
    assert [exchange.client_ip for exchange in w.exchanges][2:4] == [CLIENT, OTHER]


@pytest.mark.parametrize(
    "fields",
    [
        (b"X-Forwarded-For: 192.0.2.%d, 198.51.100.7",),
        (b"X-Forwarded-For: 192.0.2.%d, 198.51.100.7, 203.0.113.9",),
        (b"X-Forwarded-For: 192.0.2.%d", b"X-Forwarded-For: 198.51.100.7"),
        (b"X-Forwarded-For: garbage %d, 198.51.100.7:4%d",),
    ],
)
async def test_what_a_client_claims_before_a_trusted_proxys_word_is_no_new_bucket(
    fields: tuple[bytes, ...],
) -> None:
    """Of the chain counts the right-most address that is not a trusted proxy's."""
    async with world(rate_limit=limit(2), headers=BELIEVED) as w:
        w.upstreams[0].serve()
        async with await w.client(EDGE) as edge:
            each = []
            for number in range(4):
                request = get(*(field.replace(b"%d", b"%d" % number) for field in fields))
                each.append((await edge.ask(request)).status)
        assert each == [200, 200, 429, 429]
        assert await status_of(w, CLIENT) == 429


async def test_a_trusted_proxy_that_names_no_client_has_one_bucket() -> None:
    """Garbage in its field does not make it many clients."""
    async with world(rate_limit=limit(2), headers=BELIEVED) as w:
        w.upstreams[0].serve()
        async with await w.client(EDGE) as edge:
            claims = (b"", b"unknown", b"_hidden-1", b"fe80::1%eth1", b"fe80::1%eth2", b"300.0.0.1")
            for number, claim in enumerate(claims):
                answer = await edge.ask(get(b"X-Forwarded-For: " + claim))
                assert answer.status == (200 if number < 2 else 429)


async def test_an_ipv6_client_has_one_bucket_for_its_64() -> None:
    """The rest of its address is its own to choose."""
    async with world(rate_limit=limit(2)) as w:
        w.upstreams[0].serve()
        hosts = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:2:a:b:c:d"]
        assert [await status_of(w, host) for host in hosts] == [200, 200, 429]
        assert await status_of(w, "2001:db8:1:3::1") == 200
        assert await status_of(w, "2001:db8::1") == 200


async def test_an_ipv6_client_behind_a_trusted_proxy_has_one_bucket_for_its_64() -> None:
    """However its address is written, in brackets and with a port too."""
    async with world(rate_limit=limit(4), headers=BELIEVED) as w:
        w.upstreams[0].serve()
        async with await w.client(EDGE) as edge:
            ways = (b"2001:db8::1", b"2001:0DB8:0::2", b"[2001:db8::3]", b"[2001:db8::4]:5")
            for number, host in enumerate((*ways, b"2001:db8::6")):
                answer = await edge.ask(get(b"X-Forwarded-For: " + host))
                assert answer.status == (200 if number < 4 else 429)
        assert await status_of(w, "2001:db8::7") == 429


async def test_an_ipv4_client_is_one_whether_or_not_it_is_written_as_ipv6() -> None:
    """As a dual-stack listener of an edge proxy does it, and without a /64 of all of IPv4."""
    async with world(rate_limit=limit(2), headers=BELIEVED) as w:
        w.upstreams[0].serve()
        async with await w.client(EDGE) as edge:
            mapped = get(b"X-Forwarded-For: ::ffff:" + CLIENT.encode())
            assert await statuses(edge, 2, mapped) == [200, 200]
            assert await statuses(edge, 1, get(b"X-Forwarded-For: ::ffff:192.0.2.1")) == [200]
        assert await status_of(w, CLIENT) == 429


async def test_one_bucket_for_all() -> None:
    """``key = "global"``: whoever comes."""
    async with world(rate_limit=limit(3, key="global")) as w:
        w.upstreams[0].serve()
        sources = [CLIENT, OTHER, "2001:db8::1", EDGE, CLIENT]
        assert [await status_of(w, source) for source in sources] == [200, 200, 200, 429, 429]
    assert w.messages(30)[0] == f"rate limit by global reached, of {EDGE}: request refused"


async def test_a_bucket_for_each_value_of_a_field() -> None:
    """``key = "header:NAME"``: wherever it comes from, and however the name is written."""
    async with world(rate_limit=limit(2, key="header:X-Api-Key")) as w:
        w.upstreams[0].serve()
        assert await status_of(w, CLIENT, get(b"X-Api-Key: one")) == 200
        assert await status_of(w, OTHER, get(b"x-api-key:   one")) == 200
        assert await status_of(w, EDGE, get(b"X-API-KEY: one")) == 429
        assert await status_of(w, CLIENT, get(b"X-Api-Key: two")) == 200
        assert await status_of(w, CLIENT, get(b"X-Api-Key: One")) == 200
    assert not any("one" in line for line in w.messages(0) if "rate limit" in line)


async def test_requests_without_the_field_share_a_bucket() -> None:
    """To leave it away, or to send it twice, is no way around the limit."""
    async with world(rate_limit=limit(2, key="header:X-Api-Key")) as w:
        w.upstreams[0].serve()
        assert await status_of(w, CLIENT) == 200
        assert await status_of(w, OTHER, get(b"X-Other: one")) == 200
        assert await status_of(w, EDGE) == 429
        twice = get(b"X-Api-Key: made up", b"X-Api-Key: real")
        assert await status_of(w, CLIENT, twice) == 429
        assert await status_of(w, CLIENT, get(b"X-Api-Key: real")) == 200
