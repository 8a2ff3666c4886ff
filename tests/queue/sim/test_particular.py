"""Requests that want one upstream among others: nobody waits behind them in vain, nor they.

A client that is stuck to an upstream wants that one, a retry any that has not failed it yet.
"""

from __future__ import annotations

from typing import Any

from support.crowd import NO_WAIT, each_works, order, told
from support.pools import A, B, servers
from support.scenario import only, until_ms
from support.world import World, world
from trio_proxy.http.errors import Reason
from trio_proxy.settings import Balance, Limits, Retry

LONG = 60_000
STICKY = Balance(sticky_cookie="at")


def stuck_to(w: World, name: str) -> bytes:
    """The field that pins a request to an upstream."""
    return b"Cookie: at=%s\r\n" % w.proxy.pools["default"].member(name).cookie.encode()


async def test_nobody_waits_behind_those_who_are_stuck_to_a_busy_upstream() -> None:
    """Whoever takes any upstream gets the one that is free: those in the queue and newcomers."""
    async with world(upstreams=2, timeouts=only(), limits=NO_WAIT, balance=STICKY) as w:
        crowd = each_works(w)
        await crowd.come(0, work=100, fields=stuck_to(w, A))
        await crowd.come(1, work=LONG, fields=stuck_to(w, B))
        await crowd.come(2, 3, fields=stuck_to(w, B))
        await crowd.come(4, 5)
        assert crowd.waiting == 4
        await until_ms(350)
        assert told(crowd, 4, 5) == [(200, 200), (200, 300)]
        assert crowd.waiting == 2
        await crowd.come(6, 7)
        await until_ms(1000)
        assert told(crowd, 6, 7) == [(200, 450), (200, 550)]
        assert told(crowd, 2, 3) == [None, None]
        await crowd.leave(1)
        await until_ms(2000)
        assert told(crowd, 2, 3) == [(200, 1100), (200, 1200)]
        assert (order(w.upstreams[0]), order(w.upstreams[1])) == ([0, 4, 5, 6, 7], [1, 2, 3])


async def test_those_who_are_stuck_are_not_kept_by_those_who_take_any() -> None:
    """Each frees what it frees: whoever came first among those who can use it is next."""
    async with world(upstreams=2, timeouts=only(), limits=NO_WAIT, balance=STICKY) as w:
        crowd = each_works(w)
        await crowd.come(0, work=300, fields=stuck_to(w, A))
        await crowd.come(1, work=100, fields=stuck_to(w, B))
        await crowd.come(2, fields=stuck_to(w, A))
        await crowd.come(3, work=500)
        await crowd.come(4, fields=stuck_to(w, B))
        await crowd.come(5, fields=stuck_to(w, A))
        await until_ms(2000)
        assert told(crowd, 2, 3, 4, 5) == [(200, 400), (200, 600), (200, 700), (200, 500)]
        assert (order(w.upstreams[0]), order(w.upstreams[1])) == ([0, 2, 5], [1, 3, 4])


async def test_a_cookie_that_means_nothing_is_no_way_past_the_queue() -> None:
    """It waits in its turn like everybody else, and is told where it went."""
    async with world(upstreams=2, timeouts=only(), limits=NO_WAIT, balance=STICKY) as w:
        crowd = each_works(w)
        await crowd.come(0, 1, 2, work=100)
        await crowd.come(3, fields=b"Cookie: at=forged\r\n")
        await crowd.come(4)
        assert crowd.waiting == 3
        await until_ms(50)
        await crowd.come(5, fields=b"Cookie: at=forged\r\n")
        await until_ms(1000)
        answered = [(200, 100), (200, 100), (200, 200), (200, 200), (200, 300), (200, 300)]
        assert told(crowd, *range(6)) == answered
        assert b"set-cookie" in crowd.answers[3]


async def test_a_client_that_is_moved_waits_like_anybody() -> None:
    """Its upstream has failed another's request and is out, so it goes where there is room."""
    async with world(upstreams=2, timeouts=only(), limits=NO_WAIT, balance=STICKY) as w:
        crowd = each_works(w)
        await crowd.come(0, work=300)
        await crowd.come(1, work=50, fields=b"X-Fails-At: 10.1.0.2:9000\r\n")
        await crowd.come(2, fields=stuck_to(w, B))
        await crowd.come(3)
        await until_ms(1000)
        assert told(crowd, 0, 1, 2, 3) == [(200, 300), (502, 50), (200, 400), (200, 500)]
        assert (order(w.upstreams[0]), order(w.upstreams[1])) == ([0, 2, 3], [1])
        cookie = stuck_to(w, A).removeprefix(b"Cookie: ").strip()
        assert crowd.answers[2][b"set-cookie"].startswith(cookie)


FAILS_AT_A = b"X-Fails-At: 10.1.0.1:9000\r\n"


def retrying(limits: Limits = NO_WAIT) -> dict[str, Any]:
    """Two upstreams that no failure takes out, and a second try."""
    tables = {"upstreams": servers({}, {}, max_fails=0), "retry": Retry(attempts=2)}
    return {"timeouts": only(), "limits": limits, **tables}


async def test_nobody_waits_behind_a_retry_for_another_upstream() -> None:
    """The retry wants the busy one; the one that failed it is idle, and serves newcomers."""
    async with world(**retrying()) as w:
        crowd = each_works(w)
        await crowd.come(0, work=150, fields=FAILS_AT_A)
        await crowd.come(1, work=LONG)
        await until_ms(200)
        assert crowd.waiting == 1
        assert w.proxy.pools["default"].member(A).in_flight == 0
        await crowd.come(2, 3)
        await until_ms(500)
        assert told(crowd, 2, 3) == [(200, 300), (200, 400)]
        await crowd.leave(1)
        await until_ms(1000)
        assert told(crowd, 0) == [(200, 650)]
    assert [(one.upstream, one.outcome) for one in crowd.exchange(0).tries] == [
        (A, "connection_reset"),
        (B, "200"),
    ]


async def test_a_retry_does_not_take_the_place_that_its_failure_frees() -> None:
    """It goes to the first in line; the retry gets the upstream that has not failed it."""
    async with world(**retrying()) as w:
        crowd = each_works(w)
        await crowd.come(0, work=50, fields=FAILS_AT_A)
        await crowd.come(1, work=200)
        await crowd.come(2, work=400)
        await crowd.come(3)
        await until_ms(1000)
        assert told(crowd, 1, 2, 3) == [(200, 200), (200, 450), (200, 300)]
        assert told(crowd, 0) == [(200, 350)]
        assert (order(w.upstreams[0]), order(w.upstreams[1])) == ([0, 2], [1, 3, 0])


async def test_a_retry_that_waits_in_vain() -> None:
    """503 at queue_ms after it has failed; both facts are in its record."""
    async with world(**retrying(Limits(max_conns_per_upstream=1, queue_ms=300))) as w:
        crowd = each_works(w)
        await crowd.come(0, work=100, fields=FAILS_AT_A)
        await crowd.come(1, work=LONG)
        await until_ms(1000)
        assert told(crowd, 0) == [(503, 400)]
        assert (order(w.upstreams[0]), order(w.upstreams[1])) == ([0], [1])
        await crowd.leave(1)
    assert crowd.reason(0) is Reason.QUEUE_TIMEOUT
    assert [one.outcome for one in crowd.exchange(0).tries] == ["connection_reset"]
