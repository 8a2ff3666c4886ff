"""Every upstream is out: the least bad is used, because a try can succeed and a 503 cannot."""

from __future__ import annotations

import pytest

from support.pools import A, B, ask, is_up, serve, servers, statuses, told, tries
from support.scenario import now_ms, only, until_ms
from support.world import World, world
from trio_proxy.settings import Health, Retry

pytestmark = pytest.mark.usefixtures("no_chance")

PANIC = "pool default: no upstream is available, ignoring their health"
CHECKS = Health(path="/up", interval_ms=1000, timeout_ms=300, rise=1, fall=1)
MINUTE = {"fail_timeout_ms": 60_000}


async def test_all_have_failed_requests() -> None:
    """They go on being asked in turn, and each is in again with its first answer."""
    async with world(upstreams=servers({}, {}, {}, **MINUTE), timeouts=only()) as w:
        every = serve(w)
        for each in every:
            each.fault = "reset"
        assert await statuses(w, 9) == [502] * 9
        assert all(2 <= len(each.requests) <= 4 for each in every)
        assert PANIC in told(w)
        every[1].fault = ""
        assert 200 in await statuses(w, 4)
        assert is_up(w, B)
        assert await ask(w, 5) == b"bbbbb"
        assert now_ms() == 0


async def test_nobody_sees_a_503() -> None:
    """An outage of two seconds of all: 502 while it lasts, 200 from the first moment after it."""
    async with world(upstreams=servers({}, {}, **MINUTE), timeouts=only()) as w:
        serve(w)
        w.net.refuse(A)
        w.net.refuse(B)
        for number in range(21):
            await until_ms(number * 100)
            if number == 20:
                w.net.heal(A)
                w.net.heal(B)
            assert await statuses(w, 2) == [200 if number == 20 else 502] * 2
        assert is_up(w, A) or is_up(w, B)


async def test_all_fail_their_checks() -> None:
    """Perhaps it is the checks that are wrong: requests are served as if there were none."""
    async with world(upstreams=3, timeouts=only(), health=CHECKS) as w:
        for upstream in w.upstreams:
            upstream.serve()
            w.net.refuse(upstream.name)
        await until_ms(501)
        for upstream in w.upstreams:
            assert not is_up(w, upstream.name)
            w.net.heal(upstream.name)
        assert await statuses(w, 6) == [200] * 6
        assert sorted(tries(w)) == sorted("aabbcc")
        assert PANIC in told(w)


async def test_the_only_upstream_fails_its_checks() -> None:
    """It is shown as down, and used: there is nothing else."""
    async with world(timeouts=only(), health=CHECKS) as w:
        (server,) = serve(w)
        server.status = 404
        await until_ms(501)
        assert not is_up(w, A)
        server.status = 200
        assert await statuses(w, 3) == [200] * 3
        assert not is_up(w, A)
        assert told(w)[0] == f"upstream {A} down: health check failed: status 404"


async def test_failed_requests_are_less_bad_than_failed_checks() -> None:
    """One that passes its checks is preferred to one that does not."""
    async with world(upstreams=servers({}, {}, **MINUTE), timeouts=only(), health=CHECKS) as w:
        one, other = serve(w)
        one.status = 500
        await until_ms(501)
        one.status = 200
        other.fault = "reset"
        assert await statuses(w, 1) == [502]
        other.fault = ""
        assert not is_up(w, A)
        assert not is_up(w, B)
        assert await ask(w, 3) == b"bbb"
        assert is_up(w, B)


def up_lines(w: World) -> list[str]:
    return [line for line in told(w) if line.startswith(f"upstream {A} up: ")]


async def test_a_check_that_passes_does_not_end_an_ejection() -> None:
    """The log says that it is up only when it is: after the trial, not before."""
    async with world(upstreams=servers({}, {}, **MINUTE), timeouts=only(), health=CHECKS) as w:
        one, _ = serve(w)
        one.fault = "reset"
        assert await statuses(w, 1) == [502]
        one.fault, one.status = "", 500
        await until_ms(501)
        one.status = 200
        await until_ms(1501)
        assert bool(up_lines(w)) == is_up(w, A)
        await until_ms(60_001)
        assert await statuses(w, 2) == [200, 200]
        assert is_up(w, A)
        assert len(up_lines(w)) == 1


async def test_a_request_that_succeeds_does_not_overrule_the_checks() -> None:
    """It ends the ejection; while the check fails the upstream stays down, and no line says up."""
    async with world(upstreams=servers({}, {}, **MINUTE), timeouts=only(), health=CHECKS) as w:
        one, other = serve(w)
        one.fault = other.fault = "reset"
        one.status = other.status = 500
        assert await statuses(w, 2) == [502, 502]
        await until_ms(501)
        one.fault = other.fault = ""
        await until_ms(1501)
        await statuses(w, 4)
        assert not is_up(w, A)
        assert up_lines(w) == []
        one.status = 200
        await until_ms(2501)
        assert is_up(w, A)
        assert len(up_lines(w)) == 1


async def test_retries_in_an_outage_of_all() -> None:
    """Each request is tried at as many as it may be, and ends with what the last one said."""
    async with world(
        upstreams=servers({}, {}, {}, **MINUTE), timeouts=only(), retry=Retry(attempts=3)
    ) as w:
        every = serve(w)
        for each in every:
            each.fault = "reset"
        assert await statuses(w, 3) == [502] * 3
        assert [sorted(each) for each in tries(w)] == [["a", "b", "c"]] * 3
        assert [len(each.requests) for each in every] == [3, 3, 3]


async def test_a_drained_upstream_is_not_the_least_bad() -> None:
    """It was taken out by an order, which an outage does not undo."""
    async with world(upstreams=servers({}, {}, **MINUTE), timeouts=only()) as w:
        one, other = serve(w)
        w.proxy.pools["default"].drain(A)
        other.fault = "reset"
        assert await statuses(w, 4) == [502] * 4
        assert len(one.requests) == 0


async def test_all_are_drained() -> None:
    """503 with Retry-After at once, which names no upstream."""
    async with world(upstreams=2, timeouts=only()) as w:
        every = serve(w)
        w.proxy.pools["default"].drain(A)
        w.proxy.pools["default"].drain(B)
        async with await w.client() as client:
            answer = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.status == 503
        assert answer[b"retry-after"] == b"1"
        assert answer[b"proxy-status"] == b"trio-proxy; error=destination_unavailable"
        assert answer.body == b"503 Service Unavailable: no upstream available (phase: pick)\n"
        assert now_ms() == 0
        assert [len(each.requests) for each in every] == [0, 0]
        w.proxy.pools["default"].undrain(B)
        assert await ask(w, 2) == b"bb"
