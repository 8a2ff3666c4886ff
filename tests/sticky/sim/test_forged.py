"""Cookies that stand for no upstream, and answers that must pin nobody."""

from __future__ import annotations

import pytest

from support.conversation import Speaker
from support.crowd import TRUSTED, each_works, pool, rejected, told
from support.pools import A, ask, serve
from support.scenario import GET, only, until_ms
from support.world import world
from trio_proxy.settings import Balance

STICKY = Balance(sticky_cookie="at")
FORGED = b"Cookie: at=forged\r\n"


def get(cookie: str) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: a\r\nCookie: %s\r\n\r\n" % cookie.encode()


@pytest.mark.parametrize(("theirs", "his"), [(FORGED, b""), (b"", FORGED), (FORGED, FORGED)])
async def test_a_forged_cookie_is_shed_and_counted_like_anybody(theirs: bytes, his: bytes) -> None:
    """Eleven wait, so one who has 12 s is refused at once, whoever of them brings the cookie."""
    async with world(**pool(), balance=STICKY) as w:
        crowd = each_works(w)
        await crowd.come(*range(20), work=1000, fields=theirs)
        await until_ms(8500)
        assert crowd.waiting == 11
        fields = b"X-Budget: 12000\r\n" + his
        await crowd.come(20, work=1000, fields=fields, source=TRUSTED)
        assert told(crowd, 20) == [(503, 8500)]
        assert crowd.retry_after(20) == 12
        await until_ms(20_500)
        assert told(crowd, 19) == [(200, 20_000)]
    assert rejected(w) == {"queue_shed": 1}


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
        mine = f"at={w.proxy.pools['default'].member(A).cookie}"
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
