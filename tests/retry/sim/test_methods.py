"""Which requests may be sent twice: those that do no harm, and those that were never sent."""

from __future__ import annotations

import pytest

from support.conversation import Speaker
from support.failing import (
    CLOSE,
    HANG,
    RESET,
    answer,
    log_tail,
    outcomes,
    play,
    requests_of_each,
    steady,
)
from support.scenario import GET, OK, SWITCH, UPGRADE, ending, now_ms, only
from support.world import world
from trio_proxy.http.errors import Reason
from trio_proxy.settings import Retry

SAFE = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
UNSAFE = ("POST", "PATCH", "PURGE", "get")
EVERYTHING = Retry(on=("connect", "reset", "timeout", "503"))
UNSAFE_TOO = Retry(on=("connect", "reset", "timeout", "503"), unsafe_methods=True)
BUDGETS = only(connect_ms=300, read_ms=400)
A, B = ("10.1.0.1:9000", "10.1.0.2:9000")


def request(method: str) -> bytes:
    return b"%s /x HTTP/1.1\r\nHost: a\r\n\r\n" % method.encode()


@pytest.mark.parametrize("step", [RESET, CLOSE, HANG, answer(503)])
@pytest.mark.parametrize("method", SAFE)
async def test_an_idempotent_request_is_sent_again(method: str, step: str | bytes) -> None:
    """Whatever befell it, and as it was."""
    async with world(upstreams=steady(2), retry=EVERYTHING, timeouts=BUDGETS) as w:
        play(w.upstreams[0], step)
        play(w.upstreams[1])
        response = await (await w.client()).ask(request(method))
        assert response.status == 200
        assert response.body == (b"" if method == "HEAD" else b"ok")
        first, second = w.upstreams[0].requests[0], w.upstreams[1].requests[0]
        assert first.raw == second.raw
        assert first.start == request(method).partition(b"\r\n")[0]
    assert requests_of_each(w) == [1, 1]


@pytest.mark.parametrize(
    ("step", "status"), [(RESET, 502), (CLOSE, 502), (HANG, 504), (answer(503), 503)]
)
@pytest.mark.parametrize("method", UNSAFE)
async def test_any_other_is_not_once_it_was_sent(
    method: str, step: str | bytes, status: int
) -> None:
    """It may have been acted upon. The log says why there was no second try."""
    async with world(upstreams=steady(2), retry=EVERYTHING, timeouts=BUDGETS) as w:
        play(w.upstreams[0], step)
        play(w.upstreams[1])
        assert (await (await w.client()).ask(request(method))).status == status
        assert w.upstreams[1].requests == []
    assert requests_of_each(w) == [1, 0]
    assert " not_retried=method tried=10.1.0.1:9000:" in log_tail(w.exchanges[0])


@pytest.mark.parametrize("step", [RESET, HANG, answer(503)])
@pytest.mark.parametrize("method", UNSAFE)
async def test_unsafe_methods_can_be_allowed(method: str, step: str | bytes) -> None:
    """`unsafe_methods` treats all alike."""
    async with world(upstreams=steady(2), retry=UNSAFE_TOO, timeouts=BUDGETS) as w:
        play(w.upstreams[0], step)
        play(w.upstreams[1])
        assert (await (await w.client()).ask(request(method))).body == b"ok"
    assert requests_of_each(w) == [1, 1]


@pytest.mark.parametrize("is_blackhole", [False, True])
@pytest.mark.parametrize("method", [*SAFE, *UNSAFE])
async def test_any_method_is_tried_again_if_nobody_was_reached(
    method: str, is_blackhole: bool
) -> None:
    """Without a connection nothing was sent."""
    async with world(upstreams=steady(2), retry=EVERYTHING, timeouts=BUDGETS) as w:
        (w.net.blackhole if is_blackhole else w.net.refuse)(A)
        play(w.upstreams[1])
        assert (await (await w.client()).ask(request(method))).status == 200
        assert now_ms() == (300 if is_blackhole else 0)
    assert requests_of_each(w) == [1, 1]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_try_that_takes_too_long_to_connect_sent_nothing(method: str) -> None:
    """So try_timeout_ms in the phase of connecting is no obstacle for a POST."""
    retry = Retry(on=("timeout",), try_timeout_ms=200)
    async with world(upstreams=steady(2), retry=retry, timeouts=BUDGETS) as w:
        w.net.blackhole(A)
        play(w.upstreams[1])
        assert (await (await w.client()).ask(request(method))).body == b"ok"
        assert now_ms() == 200
    assert outcomes(w.exchanges[0]) == [(0, "try_timeout"), (1, "200")]


async def test_a_post_that_fails_at_last_was_tried_until_it_was_sent() -> None:
    """Refused, refused, and then a reset that is final although two tries are left."""
    retry = Retry(on=("connect", "reset"), attempts=5)
    async with world(upstreams=steady(3), retry=retry, timeouts=BUDGETS) as w:
        w.net.refuse(A)
        w.net.refuse(B)
        play(w.upstreams[2], RESET)
        assert (await (await w.client()).ask(request("POST"))).status == 502
    assert outcomes(w.exchanges[0]) == [
        (0, "connection_refused"),
        (1, "connection_refused"),
        (2, "connection_reset"),
    ]
    assert w.exchanges[0].not_retried == "method"


# Upgrades


async def test_an_upgrade_is_tried_again_if_nobody_was_reached() -> None:
    """The tunnel is with the second upstream."""
    async with world(upstreams=steady(2), retry=EVERYTHING, timeouts=BUDGETS) as w:
        w.net.refuse(A)
        client = await w.client()
        await client.send(UPGRADE)
        upstream = await w.upstreams[1].accept()
        assert (await upstream.read_request())[b"upgrade"] == b"echo"
        await upstream.send(SWITCH)
        assert (await client.read_head()).status == 101
        await client.send(b"ping")
        assert await upstream.receive_exactly(4) == b"ping"
        client.close()
        assert await upstream.receive_all() == b""
    assert outcomes(w.exchanges[0]) == [(0, "connection_refused"), (1, "101")]


@pytest.mark.parametrize("step", [RESET, HANG, answer(503)])
async def test_an_upgrade_that_was_not_answered_is_sent_again(step: str | bytes) -> None:
    """It is a GET; the other upstream switches protocols."""
    async with world(upstreams=steady(2), retry=EVERYTHING, timeouts=BUDGETS) as w:
        play(w.upstreams[0], step)
        client = await w.client()
        await client.send(UPGRADE)
        upstream = await w.upstreams[1].accept()
        assert (await upstream.read_request())[b"connection"] == b"upgrade"
        await upstream.send(SWITCH + b"hello")
        assert (await client.read_head()).status == 101
        assert await client.receive_exactly(5) == b"hello"
        client.close()
    assert requests_of_each(w) == [1, 1]


async def test_a_tunnel_that_is_reset_is_not_tried_again() -> None:
    """Not even if it was reset right behind the 101."""
    async with world(upstreams=steady(2), retry=EVERYTHING, timeouts=BUDGETS) as w:
        client = await w.client()
        await client.send(UPGRADE)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(SWITCH)
        assert (await client.read_head()).status == 101
        upstream.abort()
        assert await client.receive_all() == b""
    assert outcomes(w.exchanges[0])[0][0] == 0
    assert ending(w.exchanges[0])[:2] == (101, Reason.RESPONSE_TRUNCATED)
    assert requests_of_each(w) == [1, 0]


async def test_a_switch_that_nobody_asked_for_is_not_tried_again() -> None:
    """An upstream that lies is told of: 502."""
    async with world(upstreams=steady(2), retry=EVERYTHING, timeouts=BUDGETS) as w:
        play(w.upstreams[0], SWITCH)
        assert (await (await w.client()).ask(GET)).status == 502
    assert outcomes(w.exchanges[0]) == [(0, "upgrade_failed")]


# Once a response head has gone out


@pytest.mark.parametrize("reset", [False, True])
async def test_nothing_is_sent_again_once_the_client_has_a_head(reset: bool) -> None:
    """A body that is cut off is cut off for the client too."""
    async with world(upstreams=steady(2), retry=UNSAFE_TOO, timeouts=only()) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        assert (await client.read_head()).status == 200
        assert await client.receive_exactly(5) == b"12345"
        if reset:
            upstream.abort()
        else:
            upstream.close()
        assert await client.receive_all() == b""
    assert ending(w.exchanges[0])[:2] == (200, Reason.RESPONSE_TRUNCATED)
    assert requests_of_each(w) == [1, 0]
    assert w.proxy.stats.retries == {}


async def test_a_read_deadline_in_the_body_ends_it() -> None:
    """The client sees the cut at read_ms; nobody else is asked."""
    async with world(upstreams=steady(2), retry=UNSAFE_TOO, timeouts=BUDGETS) as w:
        w.upstreams[0].run(_send_half)
        client = await w.client()
        await client.send(GET)
        assert (await client.read_head()).status == 200
        assert await client.receive_all() == b"half"
        assert now_ms() == 400
    assert outcomes(w.exchanges[0]) == [(0, "read_timeout")]
    assert requests_of_each(w) == [1, 0]


async def _send_half(peer: Speaker) -> None:
    await peer.read_request()
    await peer.send(OK.replace(b": 2", b": 8")[:-2] + b"half")
    await peer.receive_some()
