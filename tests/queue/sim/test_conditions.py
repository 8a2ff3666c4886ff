"""Upstreams that fail and return while requests wait for one of them."""

from __future__ import annotations

from typing import Any

import pytest

from support.crowd import NO_WAIT, Crowd, each_works, order, rejected, told, works
from support.pools import A, B, servers
from support.scenario import only, until_ms
from support.world import world
from trio_proxy.http.errors import Reason
from trio_proxy.settings import BreakerSettings, Health

LONG = 60_000


def breakers(**rules: Any) -> BreakerSettings:
    return BreakerSettings(**{"min_requests": 2, "open_ms": 1000, **rules})


async def test_a_breaker_that_opens_on_the_only_upstream_fails_waiters_at_once() -> None:
    """503 with Retry-After until the breaker may close, and no try for any of them."""
    async with world(timeouts=only(), limits=NO_WAIT, breaker=breakers(open_ms=2500)) as w:
        crowd = each_works(w)
        await crowd.come(0, 1, 2, 3)
        await until_ms(50)
        for peer in w.upstreams[0].peers:
            peer.abort()  # the first error
        w.net.refuse(A)  # the second
        await until_ms(60)
        assert crowd.waiting == 0
        await crowd.come(4)
        await until_ms(1000)
        assert told(crowd, 0, 1) == [(502, 50), (502, 50)]
        assert told(crowd, 2, 3, 4) == [(503, 50), (503, 50), (503, 60)]
        assert [crowd.retry_after(n) for n in (2, 3, 4)] == [3, 3, 3]
    assert [crowd.reason(n) for n in (2, 3, 4)] == [Reason.BREAKER_OPEN] * 3
    assert [len(crowd.exchange(n).tries) for n in range(5)] == [1, 1, 0, 0, 0]
    assert rejected(w) == {"breaker_open": 3}


async def test_a_breaker_that_opens_at_a_head_does_not_wait_for_its_body() -> None:
    """Waiters get their 503 when the last 500 begins, however long it goes on."""
    async with world(timeouts=only(), limits=NO_WAIT, breaker=breakers(min_requests=1)) as w:
        crowd = Crowd(w)
        await crowd.come(0)
        upstream = await w.upstreams[0].accept()
        await crowd.come(1, 2)
        await until_ms(70)
        await upstream.send(b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n")
        await until_ms(5000)
        assert told(crowd, 1, 2) == [(503, 70), (503, 70)]
        await upstream.send(b"0\r\n\r\n")
        await until_ms(6000)
        assert told(crowd, 0) == [(500, 5000)]


#: A second out, for the second upstream alone.
BY_FAILURES: dict[str, Any] = {
    "upstreams": servers({}, {"max_fails": 1, "fail_timeout_ms": 1000}, max_fails=0)
}
BY_BREAKER: dict[str, Any] = {
    "upstreams": servers({}, {}, max_fails=0),
    "breaker": breakers(min_requests=1, error_statuses=()),
}


@pytest.mark.parametrize("tables", [BY_FAILURES, BY_BREAKER])
async def test_an_upstream_whose_time_out_is_over_serves_those_who_wait(
    tables: dict[str, Any],
) -> None:
    """At that moment, though nothing has happened at the one that they wait for."""
    async with world(timeouts=only(), limits=NO_WAIT, **tables) as w:
        crowd = each_works(w)
        await crowd.come(0, work=LONG)
        w.net.refuse(B)
        await until_ms(500)
        await crowd.come(1)
        assert told(crowd, 1) == [(502, 500)]
        w.net.heal(B)
        await crowd.come(2, 3)
        assert crowd.waiting == 2
        await until_ms(2000)
        assert told(crowd, 0, 2, 3) == [None, (200, 1600), (200, 1700)]
        assert (order(w.upstreams[0]), order(w.upstreams[1])) == ([0], [2, 3])
        await crowd.leave(0)


async def test_newcomers_behind_a_queue_find_an_upstream_that_is_back() -> None:
    """A healthy idle upstream is never left alone because others wait for a busy one."""
    async with world(timeouts=only(), limits=NO_WAIT, **BY_FAILURES) as w:
        crowd = each_works(w)
        await crowd.come(0, work=LONG)
        w.net.refuse(B)
        await crowd.come(1)
        w.net.heal(B)
        await crowd.come(2)
        await until_ms(1500)
        await crowd.come(3)
        await until_ms(3000)
        assert [status for status, _ in told(crowd, 2, 3)] == [200, 200]
        assert crowd.ends[3][1] <= 1700
        await crowd.leave(0)


async def test_an_upstream_taken_out_while_others_wait_serves_them_when_it_is_back() -> None:
    """The queue was there before the failure, whose end nobody had to expect then."""
    async with world(timeouts=only(), limits=NO_WAIT, **BY_FAILURES) as w:
        crowd = each_works(w)
        await crowd.come(0, 1, work=LONG)
        await crowd.come(2, 3)
        await until_ms(300)
        w.upstreams[1].peers[0].abort()
        await until_ms(301)
        assert told(crowd, 1, 2) == [(502, 300), None]
        assert crowd.waiting == 2
        await until_ms(2000)
        assert told(crowd, 0, 2, 3) == [None, (200, 1400), (200, 1500)]
        await crowd.leave(0)


async def test_an_upstream_that_passes_its_checks_again_serves_those_who_wait() -> None:
    """After the check that brings it back, not when the one that they wait for is done."""
    health = Health(path="/up", interval_ms=1000, timeout_ms=100, rise=1, fall=1)
    async with world(upstreams=2, timeouts=only(), limits=NO_WAIT, health=health) as w:
        crowd = Crowd(w)
        for upstream in w.upstreams:
            works(upstream)
        w.net.refuse(B)
        await until_ms(1500)
        await crowd.come(5, work=LONG)
        await crowd.come(6)
        assert crowd.waiting == 1
        w.net.heal(B)
        await until_ms(4000)
        assert f"upstream {B} up: its health check passes" in w.messages()
        status, at = crowd.ends[6]
        assert (status, order(w.upstreams[1])) == (200, [6])
        assert at <= 1500 + 1100 + 100  # one interval with its jitter, and the work
        await crowd.leave(5)
