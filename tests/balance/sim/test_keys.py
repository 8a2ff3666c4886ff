"""Hashing policies: the same upstream for the same key, whatever the key is made of."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
import trio

from support.pools import NAMES, serve, servers
from support.scenario import GET, only
from support.world import World, settings_for, world
from trio_proxy.http.addresses import parse_address
from trio_proxy.settings import Balance, HeaderSettings

FOUR = NAMES[:4]
CLIENTS = [f"198.51.100.{number}" for number in range(1, 41)]


def request(target: str = "/", fields: str = "Host: a") -> bytes:
    return f"GET {target} HTTP/1.1\r\n{fields}\r\n\r\n".encode()


async def answer(w: World, message: bytes, source: str = CLIENTS[0]) -> bytes:
    """Which upstream answers a client at that address."""
    async with await w.client(source) as client:
        return (await client.ask(message)).body


def by(key: str) -> Balance:
    return Balance(policy="hash", key=key)


IP_POLICIES = [Balance(policy="ip_hash"), by("client_ip")]


@pytest.mark.parametrize("balance", IP_POLICIES)
async def test_a_client_keeps_its_upstream(balance: Balance) -> None:
    """By its address, on whatever connection; forty clients are spread over all four."""
    async with world(upstreams=4, timeouts=only(), balance=balance) as w:
        serve(w)
        first = [await answer(w, GET, source) for source in CLIENTS]
        again = [await answer(w, request("/other"), source) for source in CLIENTS]
        assert first == again
        assert set(first) == {b"a", b"b", b"c", b"d"}


@pytest.mark.parametrize("balance", IP_POLICIES)
async def test_the_client_behind_a_trusted_proxy(balance: Balance) -> None:
    """X-Forwarded-For of a trusted peer tells clients apart, a stranger's does not."""
    trusted = HeaderSettings(trusted_proxies=(IPv4Network("198.51.100.1/32"),))
    async with world(upstreams=4, timeouts=only(), balance=balance, headers=trusted) as w:
        serve(w)
        direct = [await answer(w, GET, source) for source in CLIENTS[1:]]
        messages = [request(fields=f"Host: a\r\nX-Forwarded-For: {ip}") for ip in CLIENTS[1:]]
        behind = [await answer(w, message, CLIENTS[0]) for message in messages]
        assert behind == direct
        assert len({await answer(w, message, CLIENTS[1]) for message in messages}) == 1


DIFFERENT = [
    ("path", [request(f"/{number}") for number in range(40)]),
    ("uri", [request(f"/?{number}") for number in range(40)]),
    ("host", [request(fields=f"Host: a{number}.example") for number in range(40)]),
    ("header:X-User", [request(fields=f"Host: a\r\nX-User: {n}") for n in range(40)]),
    ("cookie:user", [request(fields=f"Host: a\r\nCookie: user={n}") for n in range(40)]),
]


@pytest.mark.parametrize(("key", "messages"), DIFFERENT, ids=[key for key, _ in DIFFERENT])
async def test_different_keys_are_spread(key: str, messages: list[bytes]) -> None:
    """Over all upstreams, and each key comes to the same one from wherever it is sent."""
    async with world(upstreams=4, timeouts=only(), balance=by(key)) as w:
        every = serve(w)
        first = [await answer(w, message) for message in messages]
        assert set(first) == {b"a", b"b", b"c", b"d"}
        assert [await answer(w, message, CLIENTS[9]) for message in messages] == first
        assert sum(len(each.requests) for each in every) == 80


EQUAL = [
    ("path", [request("/a?1"), request("/a?2"), request("/a", "Host: b"), request("/a")]),
    ("path", [request("/a"), request("http://a/a"), request("http://a/a?x")]),
    ("uri", [request("/a?1"), request("/a?1", "Host: b"), request("http://a/a?1")]),
    ("host", [request("/1", "Host: Ab.Example"), request("/2", "Host: aB.eXAMPLE")]),
    ("host", [request("/1", "Host: a"), request("http://A/1", "Host: a")]),
    (
        "header:X-User",
        [request("/1", "Host: a\r\nx-user: u"), request("/2", "Host: b\r\nX-USER: u")],
    ),
    (
        "cookie:user",
        [
            request("/1", "Host: a\r\nCookie: user=u"),
            request("/2", "Host: b\r\ncookie: x=1; user=u; y=2"),
            request("/3", "Host: b\r\nCookie: xuser=7\r\nCookie: user=u"),
        ],
    ),
]


@pytest.mark.parametrize(
    ("key", "messages"), EQUAL, ids=[f"{n}-{k}" for n, (k, _) in enumerate(EQUAL)]
)
async def test_equal_keys_go_to_one_upstream(key: str, messages: list[bytes]) -> None:
    """Whatever else is different, the client's address among it; ten are no chance hit."""
    async with world(upstreams=4, timeouts=only(), balance=by(key)) as w:
        serve(w)
        found = {await answer(w, m, ip) for m in messages for ip in CLIENTS[:10]}
        assert len(found) == 1


@pytest.mark.parametrize("key", ["header:X-User", "cookie:user"])
async def test_a_request_without_the_key_goes_by_its_client(key: str) -> None:
    """As ip_hash would have it, so that not all of them meet at one upstream."""
    async with world(upstreams=4, timeouts=only(), balance=by(key)) as w:
        serve(w)
        found = [await answer(w, GET, source) for source in CLIENTS]
        assert set(found) == {b"a", b"b", b"c", b"d"}
        await w.reload(settings_for(4, timeouts=only(), balance=Balance(policy="ip_hash")))
        assert [await answer(w, GET, source) for source in CLIENTS] == found


async def test_only_the_keys_of_a_removed_upstream_move() -> None:
    """A reload without the third moves its keys, and they come back with it."""
    async with world(upstreams=4, timeouts=only(), balance=by("path")) as w:
        serve(w)
        messages = [request(f"/{number}") for number in range(40)]
        before = [await answer(w, message) for message in messages]
        without = [name for name in FOUR if name != FOUR[2]]
        await w.reload(settings_for(without, timeouts=only(), balance=by("path")))
        after = [await answer(w, message) for message in messages]
        for old, new in zip(before, after, strict=True):
            assert new == old if old != b"c" else new != b"c"
        await w.reload(settings_for(4, timeouts=only(), balance=by("path")))
        assert [await answer(w, message) for message in messages] == before


async def test_only_the_keys_of_an_upstream_that_is_out_move() -> None:
    """And they come back when it does, ten seconds later."""
    async with world(upstreams=4, timeouts=only(), balance=by("path")) as w:
        every = serve(w)
        messages = [request(f"/{number}") for number in range(40)]
        before = [await answer(w, message) for message in messages]
        every[2].fault = "reset"
        victim = messages[before.index(b"c")]
        async with await w.client() as client:
            assert (await client.ask(victim)).status == 502
        every[2].fault = ""
        after = [await answer(w, message) for message in messages]
        for old, new in zip(before, after, strict=True):
            assert new == old if old != b"c" else new != b"c"
        await trio.sleep(10)
        assert [await answer(w, message) for message in messages] == before


async def test_the_order_of_the_list_does_not_matter() -> None:
    """Two proxies that name the same upstreams in another order agree."""
    messages = [request(f"/{number}") for number in range(20)]
    found = []
    for names in (FOUR, FOUR[::-1]):
        async with world(upstreams=names, timeouts=only(), balance=by("path")) as w:
            serve(w)
            async with await w.client() as client:
                for message in messages:
                    await client.ask(message)
            found.append([exchange.upstream for exchange in w.exchanges])
    assert found[0] == found[1]


async def test_a_hot_key_is_shared() -> None:
    """No upstream has more than 1.25 times its share of what is under way, rounded up."""
    async with world(upstreams=4, timeouts=only(), balance=by("path")) as w:
        every = serve(w)
        for each in every:
            each.fault = "hang"
        for count in range(1, 41):
            client = await w.client()
            await client.send(GET)
            await trio.sleep(0.001)
            assert sum(each.active for each in every) == count
            assert max(each.active for each in every) <= -(-1.25 * count // 4)


async def test_ip_hash_stays_with_its_upstream_under_load() -> None:
    """A browser's parallel requests belong together: nginx's ip_hash moves for failures only."""
    async with world(upstreams=4, timeouts=only(), balance=Balance(policy="ip_hash")) as w:
        every = serve(w)
        for each in every:
            each.delay = 1.0
        clients = [await w.client() for _ in range(6)]
        for client in clients:
            await client.send(GET)
        assert len({(await client.read_response()).body for client in clients}) == 1


async def test_weights_of_a_hash() -> None:
    """An upstream of weight 3 has about three times as many keys as one of weight 1."""
    tables = servers({"weight": 3}, {})
    async with world(upstreams=tables, timeouts=only(), balance=by("path")) as w:
        every = serve(w)
        async with await w.client() as client:
            for number in range(200):
                await client.ask(request(f"/{number}"))
        assert 130 <= len(every[0].requests) <= 170


@pytest.mark.parametrize("address", ["10.1.0.1:9000", "unix:/run/a.sock"])
async def test_a_pool_of_one(address: str) -> None:
    """Every key goes there."""
    async with world(upstreams=[address], timeouts=only(), balance=by("uri")) as w:
        serve(w)
        assert w.proxy.pools["default"].members[0].address == parse_address(address)
        assert {await answer(w, request(f"/{n}")) for n in range(5)} == {b"a"}
