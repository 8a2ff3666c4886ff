"""Passive checks: which failures of requests count, how many, and for whom."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network

import pytest
import trio

from support.conversation import Speaker
from support.pools import A, B, Server, ask, is_up, outcomes, serve, servers, statuses, told, tries
from support.scenario import GET, how_it_ends, now_ms, only, post, send_quietly, until_ms
from support.world import CLIENT, World, world
from trio_proxy.settings import HeaderSettings, Health, Retry

THREE = servers({"max_fails": 3}, {"max_fails": 3})


def down(name: str, reason: str, fails: int = 1) -> str:
    return f"upstream {name} down: {reason} (max_fails={fails} within 10 s), not used for 10 s"


async def fail_at(w: World, *times_ms: float) -> None:
    """At each of these times a request to each of the two, of which the first fails."""
    for at in times_ms:
        await until_ms(at)
        assert sorted(await statuses(w, 2)) == [200, 502]


async def test_max_fails_within_fail_timeout() -> None:
    """Three failures in just ten seconds take it out, and the log says why."""
    async with world(upstreams=THREE, timeouts=only()) as w:
        every = serve(w)
        w.net.refuse(A)
        await fail_at(w, 0, 5000)
        assert is_up(w, A)
        await fail_at(w, 10_000)
        assert not is_up(w, A)
        assert is_up(w, B)
        assert told(w)[-1] == down(A, "connection_refused", 3)
        assert await ask(w, 4) == b"bbbb"
        assert [len(each.requests) for each in every] == [0, 7]


async def test_failures_that_lie_further_apart() -> None:
    """Any number of them, as long as no three fall into ten seconds."""
    async with world(upstreams=THREE, timeouts=only()) as w:
        serve(w)
        w.net.refuse(A)
        await fail_at(w, *(number * 5001 for number in range(12)))
        assert is_up(w, A)
        w.net.heal(A)
        assert sorted(await ask(w, 2)) == sorted(b"ab")


async def test_a_success_forgets_no_failure() -> None:
    """Only time does (as in nginx): every other request failing is enough."""
    async with world(upstreams=THREE, timeouts=only()) as w:
        every = serve(w)
        w.proxy.pools["default"].drain(B)
        for status in (502, 200, 502, 200, 502):
            every[0].fault = "reset" if status == 502 else ""
            assert await statuses(w, 1) == [status]
        w.proxy.pools["default"].undrain(B)
        assert not is_up(w, A)
        assert await ask(w, 2) == b"bb"


Fail = Callable[[World, Server], Awaitable[None]]


async def refuses(w: World, server: Server) -> None:
    w.net.refuse(A)


async def is_a_black_hole(w: World, server: Server) -> None:
    w.net.blackhole(A)


def fault(name: str) -> Fail:
    async def set_fault(w: World, server: Server) -> None:
        server.fault = name

    return set_fault


COUNTING = [
    (refuses, 502, "connection_refused"),
    (is_a_black_hole, 504, "connect_timeout"),
    (fault("hang"), 504, "read_timeout"),
    (fault("reset"), 502, "connection_reset"),
    (fault("close"), 502, "connection_reset"),
    (fault("garbage"), 502, "response_malformed"),
]


@pytest.mark.parametrize(("fail", "status", "reason"), COUNTING, ids=[c[2] for c in COUNTING])
async def test_what_counts(fail: Fail, status: int, reason: str) -> None:
    """Whatever ends a try before its response head; one is enough by default."""
    budgets = only(connect_ms=300, read_ms=400)
    async with world(upstreams=2, timeouts=budgets) as w:
        every = serve(w)
        await fail(w, every[0])
        assert await statuses(w, 1) == [status]
        assert outcomes(w) == [reason]
        assert told(w) == [down(A, reason)]
        assert not is_up(w, A)
        assert await ask(w, 3) == b"bbb"
        assert tries(w) == ["a", "b", "b", "b"]


async def test_the_time_of_a_try() -> None:
    """try_timeout_ms that passes is a failure of that upstream, though the client is served."""
    async with world(upstreams=2, timeouts=only(), retry=Retry(try_timeout_ms=250)) as w:
        serve(w)[0].fault = "hang"
        assert await ask(w, 1) == b"b"
        assert now_ms() == 250
        assert told(w) == [down(A, "try_timeout")]


async def test_the_total_time() -> None:
    """An upstream that lets a request's whole time pass has failed it."""
    async with world(upstreams=2, timeouts=only(total_ms=700)) as w:
        serve(w)[0].fault = "hang"
        assert await statuses(w, 1) == [504]
        assert now_ms() == 700
        assert told(w) == [down(A, "total_timeout")]


async def test_the_total_time_that_a_trusted_peer_has_shortened() -> None:
    """Too little time for any upstream is no fault of the one that was asked."""
    headers = HeaderSettings(
        trusted_proxies=(IPv4Network(f"{CLIENT}/32"),), deadline_header="X-Deadline-Ms"
    )
    async with world(upstreams=2, timeouts=only(total_ms=700), headers=headers) as w:
        serve(w)[0].fault = "hang"
        hurried = b"GET / HTTP/1.1\r\nHost: a\r\nX-Deadline-Ms: 50\r\n\r\n"
        assert await statuses(w, 1, hurried) == [504]
        assert now_ms() == 50
        assert is_up(w, A)
        assert told(w) == []


@pytest.mark.parametrize("leave", [Speaker.abort, Speaker.close], ids=["reset", "fin"])
@pytest.mark.parametrize("request_", [GET, post(100)], ids=["get", "post"])
async def test_a_client_that_leaves(leave: Callable[[Speaker], None], request_: bytes) -> None:
    """It never counts: ten of them, waiting for the head or still uploading."""
    async with world(upstreams=2, timeouts=only()) as w:
        every = serve(w)
        every[0].fault = every[1].fault = "hang"
        for _ in range(10):
            client = await w.client()
            await client.send(request_)
            await trio.sleep(0.1)
            leave(client)
        await trio.sleep(5)
        assert [one.outcome for each in w.exchanges for one in each.tries] == ["client_gone"] * 10
        assert is_up(w, A)
        assert is_up(w, B)
        assert told(w) == []
        assert len(w.upstreams[0].peers) == len(w.upstreams[1].peers) == 5


async def test_a_client_that_leaves_while_it_is_dialled() -> None:
    """Nothing is known of the upstream yet."""
    async with world(upstreams=2, timeouts=only()) as w:
        serve(w)
        w.net.blackhole(A)
        client = await w.client()
        await client.send(GET)
        await trio.sleep(0.1)
        client.abort()
        await trio.sleep(0.1)
        w.net.heal(A)
        assert await ask(w, 2) in (b"ab", b"ba")
        assert told(w) == []


async def test_a_client_that_is_too_slow() -> None:
    """A body that does not come within body_ms is the client's fault."""
    async with world(upstreams=2, timeouts=only(body_ms=500)) as w:
        serve(w)
        client = await w.client()
        await send_quietly(client, post(100) + b"half")
        assert (await client.read_response()).status == 408
        assert now_ms() == 500
        assert is_up(w, A)
        assert told(w) == []


async def test_a_body_that_is_cut_off() -> None:
    """It does not count (as in nginx): the upstream has answered."""
    async with world(upstreams=2, timeouts=only()) as w:
        every = serve(w)
        every[0].fault = "cut"
        async with await w.client() as client:
            await client.send(GET)
            assert (await how_it_ends(client))[0].endswith(b"\r\n\r\nhalf")
        assert outcomes(w) == ["response_truncated"]
        assert is_up(w, A)
        assert told(w) == []
        every[0].fault = ""
        assert sorted(await ask(w, 2)) == sorted(b"ab")


@pytest.mark.parametrize("status", [404, 429, 500, 503])
async def test_statuses_do_not_count(status: int) -> None:
    """Unless they are configured to."""
    async with world(upstreams=2, timeouts=only()) as w:
        for each in serve(w):
            each.status = status
        assert await statuses(w, 6) == [status] * 6
        assert tries(w) == ["a", "b", "a", "b", "a", "b"]
        assert is_up(w, A)


async def test_statuses_that_are_configured_to_count() -> None:
    """The answer is passed on all the same, and it is the last."""
    health = Health(fail_statuses=("503",))
    async with world(upstreams=2, timeouts=only(), health=health) as w:
        every = serve(w)
        every[0].status = 503
        assert await statuses(w, 4) == [503, 200, 200, 200]
        assert told(w) == [down(A, "status 503")]
        every[1].status = 500
        assert await statuses(w, 2) == [500, 500]
        assert is_up(w, B)


async def test_every_try_of_a_request_counts() -> None:
    """A request that fails at one and succeeds at the next takes the first out."""
    async with world(upstreams=3, timeouts=only(), retry=Retry(attempts=3)) as w:
        every = serve(w)
        every[0].fault = every[1].fault = "reset"
        assert await ask(w, 1) == b"c"
        assert told(w) == [down(A, "connection_reset"), down(B, "connection_reset")]
        assert await ask(w, 3) == b"ccc"
        assert tries(w) == ["abc", "c", "c", "c"]


async def test_max_fails_0_is_never() -> None:
    """It is asked again and again."""
    tables = servers({"max_fails": 0}, {})
    async with world(upstreams=tables, timeouts=only()) as w:
        serve(w)
        w.net.refuse(A)
        assert await statuses(w, 8) == [502, 200] * 4
        assert is_up(w, A)
        assert told(w) == []


async def test_a_sole_upstream_is_never_ejected() -> None:
    """There is nobody to spare it for: it is asked each time and recovers with its first answer."""
    async with world(timeouts=only()) as w:
        (server,) = serve(w)
        server.fault = "reset"
        assert await statuses(w, 20) == [502] * 20
        assert is_up(w, A)
        assert told(w) == []
        server.fault = ""
        assert await statuses(w, 1) == [200]
        assert tries(w) == ["a"] * 21


async def test_errors_of_the_proxy_itself_do_not_count() -> None:
    """A lack of descriptors is no fault of an upstream."""
    async with world(upstreams=2, timeouts=only()) as w:
        serve(w)
        w.net.refuse(A, errno.EMFILE)
        assert await statuses(w, 2) == [503, 200]
        assert is_up(w, A)
        w.net.heal(A)
        assert sorted(await ask(w, 2)) == sorted(b"ab")


async def test_an_address_that_cannot_be_had_is_one_that_cannot_be_reached() -> None:
    """Where IPv6 is switched off Linux says so of every such address: another one is asked."""
    async with world(upstreams=2, timeouts=only(), retry=Retry()) as w:
        serve(w)
        w.net.refuse(A, errno.EADDRNOTAVAIL)
        assert await statuses(w, 4) == [200] * 4
        assert not is_up(w, A)
