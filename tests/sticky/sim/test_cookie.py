"""The sticky cookie: what it looks like, who gets it and what it is worth."""

from __future__ import annotations

import re
from ipaddress import IPv4Network

import pytest

from support.conversation import Message
from support.pools import A, B, C, serve, servers
from support.scenario import SWITCH, UPGRADE, only
from support.world import CLIENT, METRICS, World, settings_for, world
from trio_proxy.settings import Balance, HeaderSettings

STICKY = Balance(sticky_cookie="route")
SECRET = Balance(sticky_cookie="route", sticky_secret="correct horse battery staple")


def get(*fields: str) -> bytes:
    return "\r\n".join(["GET / HTTP/1.1", "Host: a", *fields, "", ""]).encode()


async def answer(w: World, *fields: str) -> Message:
    async with await w.client() as client:
        return await client.ask(get(*fields))


def cookie_of(message: Message) -> str:
    """``NAME=VALUE`` of the cookie that it sets."""
    return message[b"set-cookie"].partition(b";")[0].decode()


async def test_the_cookie_is_set_once() -> None:
    """A client that sends it back is served by the same upstream and told nothing more."""
    async with world(upstreams=3, timeouts=only(), balance=STICKY) as w:
        every = serve(w)
        first = await answer(w)
        assert first.body == b"a"
        for _ in range(5):
            again = await answer(w, f"Cookie: {cookie_of(first)}")
            assert again.body == b"a"
            assert b"set-cookie" not in again
        assert [len(each.requests) for each in every] == [6, 0, 0]


async def test_what_it_says() -> None:
    """An opaque value for the whole site, out of reach of scripts and of other sites' posts."""
    async with world(timeouts=only(), balance=STICKY) as w:
        serve(w)
        text = (await answer(w))[b"set-cookie"]
        assert re.fullmatch(rb"route=[0-9a-f]{32}; Path=/; HttpOnly; SameSite=Lax", text)


async def test_clients_without_it_take_turns() -> None:
    """Each gets the cookie of the one that it came to; three upstreams have three."""
    async with world(upstreams=3, timeouts=only(), balance=STICKY) as w:
        serve(w)
        answers = [await answer(w) for _ in range(6)]
        assert b"".join(each.body for each in answers) == b"abcabc"
        cookies = [cookie_of(each) for each in answers]
        assert cookies[:3] == cookies[3:]
        assert len(set(cookies)) == 3


TRUSTING = HeaderSettings(trusted_proxies=(IPv4Network(f"{CLIENT}/32"),))


@pytest.mark.parametrize(
    ("headers", "proto", "is_secure"),
    [
        (TRUSTING, "https", True),
        (TRUSTING, "HTTPS", True),
        (TRUSTING, "http", False),
        (HeaderSettings(), "https", False),
    ],
)
async def test_secure_on_tls(headers: HeaderSettings, proto: str, is_secure: bool) -> None:
    """Only if a peer that is trusted says that the client came by https."""
    async with world(timeouts=only(), balance=STICKY, headers=headers) as w:
        serve(w)
        text = (await answer(w, f"X-Forwarded-Proto: {proto}"))[b"set-cookie"]
        assert text.endswith(b"; SameSite=Lax; Secure" if is_secure else b"; SameSite=Lax")


async def test_its_value_says_nothing_of_the_address() -> None:
    """Neither in clear nor by a hash that one could look up: another secret, another value."""
    values = []
    for secret in ("one", "another"):
        balance = Balance(sticky_cookie="route", sticky_secret=secret)
        async with world(timeouts=only(), balance=balance) as w:
            serve(w)
            values.append(cookie_of(await answer(w)))
    assert values[0] != values[1]
    for value in values:
        assert not re.search(r"10\.1|9000|0a010001", value)


@pytest.mark.parametrize(("balance", "is_same"), [(SECRET, True), (STICKY, False)])
async def test_the_same_secret_gives_the_same_value(balance: Balance, is_same: bool) -> None:
    """Every proxy of a site, and each after a restart; without a secret each has its own."""
    values = []
    for names in ([A, B], [B, A, C]):
        async with world(upstreams=names, timeouts=only(), balance=balance) as w:
            serve(w)
            w.proxy.pools["default"].drain(B)
            message = await answer(w)
            assert message.body == (b"a" if names[0] == A else b"b")
            values.append(cookie_of(message))
    assert (values[0] == values[1]) == is_same


@pytest.mark.parametrize(
    "cookie",
    [
        "route=",
        "route",
        "route=garbage",
        "route=10.1.0.2:9000",
        "route=" + "0" * 32,
        "route=" + "f" * 8000,
        "route=\xff\xfe",
        "router=x; rout=y; =route",
        ";;; ,",
    ],
)
async def test_a_cookie_that_means_nothing(cookie: str) -> None:
    """As if there were none: the client gets a turn and a cookie."""
    async with world(upstreams=2, timeouts=only(), balance=STICKY) as w:
        every = serve(w)
        async with await w.client() as client:
            request = f"GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n".encode("latin-1")
            first, second = await client.ask(request), await client.ask(request)
        assert (first.body, second.body) == (b"a", b"b")
        assert cookie_of(first) != cookie_of(second)
        assert [len(each.requests) for each in every] == [1, 1]


async def test_a_cookie_among_others() -> None:
    """In whichever field, after whichever cookie; the upstream sees them all."""
    async with world(upstreams=3, timeouts=only(), balance=STICKY) as w:
        every = serve(w)
        cookie = cookie_of(await answer(w))
        for fields in (
            [f"Cookie: a=1; {cookie}; b=2"],
            [f"cookie: a=1;{cookie}"],
            ["Cookie: a=1", f"Cookie: {cookie}"],
        ):
            message = await answer(w, *fields)
            assert message.body == b"a"
            assert b"set-cookie" not in message
        assert every[0].requests[1][b"cookie"] == f"a=1; {cookie}; b=2".encode()


async def test_the_upstreams_own_cookies_are_kept() -> None:
    """Ours comes beside them."""
    async with world(timeouts=only(), balance=STICKY) as w:
        (server,) = serve(w)
        server.fields = b"Set-Cookie: session=1\r\nSet-Cookie: lang=en\r\n"
        values = (await answer(w)).all(b"set-cookie")
        assert values[:2] == [b"session=1", b"lang=en"]
        assert values[2].startswith(b"route=")


@pytest.mark.parametrize("status", [204, 302, 304, 404, 500])
async def test_every_answer_of_an_upstream_sets_it(status: int) -> None:
    """Whatever the status: the client's next request comes to where this one was."""
    async with world(upstreams=2, timeouts=only(), balance=STICKY) as w:
        every = serve(w)
        async with await w.client() as client:
            await client.send(get())
            every[0].status = status
            every[0].body = b""
            head = await client.read_head()
        assert head.status == status
        assert (await answer(w, f"Cookie: {cookie_of(head)}")).body == b""
        assert [len(each.requests) for each in every] == [2, 0]


async def test_an_upgrade_sets_the_cookie() -> None:
    """A tunnel can be the first that a client asks for."""
    async with world(upstreams=2, timeouts=only(), balance=STICKY) as w:
        client = await w.client()
        await client.send(UPGRADE)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(SWITCH)
        assert cookie_of(await client.read_head()).startswith("route=")
        client.close()
        upstream.close()


async def test_an_answer_of_the_proxy_sets_none() -> None:
    """A client whose first request failed is stuck to nobody."""
    async with world(upstreams=2, timeouts=only(), balance=STICKY) as w:
        every = serve(w)
        every[0].fault = "reset"
        failed = await answer(w)
        assert failed.status == 502
        assert b"set-cookie" not in failed
        assert (await answer(w)).body == b"b"


async def test_no_cookie_unless_it_is_configured() -> None:
    """Nor is one heeded; a reload switches it on and off, and its name may change."""
    async with world(upstreams=2, timeouts=only()) as w:
        serve(w)
        assert b"set-cookie" not in await answer(w)
        await w.reload(settings_for(2, timeouts=only(), balance=SECRET))
        cookie = cookie_of(await answer(w))
        await w.reload(settings_for(2, timeouts=only()))
        answers = [await answer(w, f"Cookie: {cookie}") for _ in range(2)]
        assert {each.body for each in answers} == {b"a", b"b"}
        assert not any(b"set-cookie" in each for each in answers)
        renamed = Balance(sticky_cookie="other", sticky_secret=SECRET.sticky_secret)
        await w.reload(settings_for(2, timeouts=only(), balance=renamed))
        assert cookie_of(await answer(w, f"Cookie: {cookie}")).startswith("other=")


async def test_a_cookie_holds_over_a_reload_without_a_secret() -> None:
    """The secret that was drawn at the start is kept until the end."""
    async with world(upstreams=2, timeouts=only(), balance=STICKY) as w:
        serve(w)
        cookie = cookie_of(await answer(w))
        await w.reload(settings_for(servers({}, {}, {}), timeouts=only(), balance=STICKY))
        message = await answer(w, f"Cookie: {cookie}")
        assert message.body == b"a"
        assert b"set-cookie" not in message


async def test_the_metrics_port_sets_none() -> None:
    """What it answers is not from the pool."""
    async with world(timeouts=only(), balance=STICKY, metrics_listen=METRICS) as w:
        serve(w)
        async with await w.client(address=METRICS) as client:
            assert b"set-cookie" not in await client.ask(get().replace(b"GET /", b"GET /nothing"))
