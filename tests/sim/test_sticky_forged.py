"""Cookies that stand for no upstream, and answers that must pin nobody."""

from __future__ import annotations

from conversation import Speaker
from crowd import Crowd, each_works, order, told
from pools import A, ask, serve
from scenario import GET, only, until_ms
from world import World, world

from trio_proxy.errors import Reason
from trio_proxy.settings import Limits
from trio_proxy.settings_upstreams import Balance

STICKY = Balance(sticky_cookie="at")
FORGED = b"Cookie: at=forged\r\n"


def get(cookie: str) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: a\r\nCookie: %s\r\n\r\n" % cookie.encode()


async def crowded(w: World) -> Crowd:
    """One upstream that is known to need 400 ms a request, with one under way."""
    crowd = each_works(w)
    for number in range(100, 110):
        await crowd.come(number, work=400)
        await until_ms((number - 99) * 400 + 1)
    await crowd.come(0, work=400)
    return crowd


async def test_who_waits_with_a_forged_cookie_is_counted_like_anybody() -> None:
    """Somebody who would come after three of them cannot be served in time, and is shed at once."""
    limits = Limits(max_conns_per_upstream=1, queue_ms=1000)
    async with world(timeouts=only(), limits=limits, balance=STICKY) as w:
        crowd = await crowded(w)
        await crowd.come(1, 2, work=400, fields=FORGED)
        assert w.proxy.cluster.queue.has_general
        await crowd.come(3, work=400)
        assert crowd.waiting == 2
        assert told(crowd, 3) == [(503, 4001)]
        await until_ms(9000)
    assert crowd.reason(3) is Reason.QUEUE_SHED


async def test_a_forged_cookie_is_no_way_past_the_shedding() -> None:
    """Who brings it where two wait already is shed like anybody."""
    limits = Limits(max_conns_per_upstream=1, queue_ms=1000)
    async with world(timeouts=only(), limits=limits, balance=STICKY) as w:
        crowd = await crowded(w)
        await crowd.come(1, 2, work=400)
        await crowd.come(3, work=400, fields=FORGED)
        assert crowd.waiting == 2
        assert told(crowd, 3) == [(503, 4001)]
        await until_ms(9000)
        assert order(w.upstreams[0])[-3:] == [0, 1, 2]
    assert crowd.reason(3) is Reason.QUEUE_SHED


async def test_an_answer_that_is_of_no_use_pins_nobody() -> None:
    """The 502 in its place does not send the client back to where it came from."""

    async def break_the_body(peer: Speaker) -> None:
        await peer.read_request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")

    async with world(timeouts=only(), balance=STICKY) as w:
        w.upstreams[0].run(break_the_body)
        refused = await (await w.client()).ask(GET)
        assert refused.status == 502
        assert b"set-cookie" not in refused


async def test_of_several_cookies_the_one_that_stands_for_an_upstream_counts() -> None:
    """A stray one of the same name before it, or after it, moves nobody."""
    async with world(upstreams=3, timeouts=only(), balance=STICKY) as w:
        serve(w)
        mine = f"at={w.proxy.cluster.member(A).cookie}"
        client = await w.client()
        for cookie in (f"at=stray; {mine}", f"{mine}; at=stray", f"at=; at=stray; {mine}"):
            answer = await client.ask(get(cookie))
            assert answer.body == b"a"
            assert b"set-cookie" not in answer


async def test_of_several_cookies_that_stand_for_none_none_counts() -> None:
    """Its client takes turns like anybody, and is told where it went."""
    async with world(upstreams=3, timeouts=only(), balance=STICKY) as w:
        serve(w)
        assert await ask(w, 3, get("at=stray; at=another")) == b"abc"
        assert b"set-cookie" in await (await w.client()).ask(get("at=stray; at=another"))
