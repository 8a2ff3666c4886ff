"""When every upstream connection is taken: the queue, its order, its bounds, and the cap."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from support.conversation import Speaker
from support.scenario import GET, OK, connections, ending, get, now_ms, only, refusal
from support.world import World, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.settings import Limits
from trio_proxy.testing import SimNet


async def one_at_work_and(w: World, waiting: int) -> tuple[list[Speaker], Speaker]:
    """Clients that wait in order behind one whose request is under way."""
    clients = [await w.client() for _ in range(waiting + 1)]
    for number, client in enumerate(clients):
        await client.send(get(number))
        await trio.sleep(0.001)
    upstream = await w.upstreams[0].accept()
    assert w.proxy.pools["default"].queue_length == waiting
    assert w.proxy.stats.queue_length == {"default": waiting}
    return clients, upstream


async def test_first_in_first_out() -> None:
    """Whoever came first is served first, on the one connection."""
    async with world(timeouts=only(), limits=Limits(max_conns_per_upstream=1, queue_ms=0)) as w:
        clients, upstream = await one_at_work_and(w, 5)
        for number, client in enumerate(clients):
            assert (await upstream.read_request()).start == b"GET /%d HTTP/1.1" % number
            await upstream.send(OK)
            assert (await client.read_response()).body == b"ok"
        assert len(w.upstreams[0].peers) == 1


async def test_a_newcomer_does_not_overtake() -> None:
    """A request that comes at the moment at which a connection is free waits its turn."""
    async with world(timeouts=only(), limits=Limits(max_conns_per_upstream=1, queue_ms=0)) as w:
        clients, upstream = await one_at_work_and(w, 1)
        late = await w.client()
        await upstream.read_request()
        await upstream.send(OK)
        await late.send(get(9))
        await clients[0].read_response()
        assert (await upstream.read_request()).start == b"GET /1 HTTP/1.1"
        await upstream.send(OK)
        assert (await upstream.read_request()).start == b"GET /9 HTTP/1.1"
        await upstream.send(OK)
        assert (await late.read_response()).body == b"ok"


async def test_a_full_queue() -> None:
    """503 with Retry-After at once; nobody in the queue is disturbed."""
    limits = Limits(max_conns_per_upstream=1, max_queue=2, queue_ms=0)
    async with world(timeouts=only(), limits=limits) as w:
        clients, upstream = await one_at_work_and(w, 2)
        before = now_ms()
        one_more = await w.client()
        response = await one_more.ask(GET)
        assert now_ms() == before
        assert response[b"retry-after"] == b"1"
        assert refusal(response) == (
            503,
            b"trio-proxy; error=connection_limit_reached",
            b"503 Service Unavailable: too many requests are waiting (phase: pick)\n",
        )
        for client in clients:
            await upstream.read_request()
            await upstream.send(OK)
            assert (await client.read_response()).body == b"ok"
    assert ending(w.exchanges[0]) == (503, Reason.QUEUE_FULL, Source.PROXY, Phase.PICK)
    assert w.proxy.stats.rejected[Reason.QUEUE_FULL] == 1


async def test_no_queue_at_all() -> None:
    """max_queue = 0: whoever finds no connection is turned away."""
    limits = Limits(max_conns_per_upstream=1, max_queue=0)
    async with world(timeouts=only(), limits=limits) as w:
        _, upstream = await one_at_work_and(w, 0)
        other = await w.client()
        assert (await other.ask(GET)).status == 503
        await upstream.read_request()
        await upstream.send(OK)
        await trio.sleep(0.001)
        await other.send(GET)
        await upstream.read_request()
        await upstream.send(OK)
        assert (await other.read_response()).status == 200


def leaves(w: World, client: Speaker, upstream: Speaker) -> None:
    client.abort()
    upstream.stream.send_nowait(OK)


def is_granted_and_leaves(w: World, client: Speaker, upstream: Speaker) -> None:
    upstream.stream.send_nowait(OK)
    client.abort()


def is_granted_a_slot_and_leaves(w: World, client: Speaker, upstream: Speaker) -> None:
    upstream.stream.send_nowait(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    client.abort()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("race", [leaves, is_granted_and_leaves, is_granted_a_slot_and_leaves])
async def test_a_waiter_that_leaves_at_the_moment_of_its_grant(
    race: Callable[[World, Speaker, Speaker], None], seed: int
) -> None:
    """What it was given goes to the next in line, in whichever order the two events are seen."""
    limits = Limits(max_conns_per_upstream=1, queue_ms=0)
    async with world(network=SimNet(seed=seed), timeouts=only(), limits=limits) as w:
        clients, upstream = await one_at_work_and(w, 3)
        await upstream.read_request()
        await trio.sleep(1)
        race(w, clients[1], upstream)
        w.upstreams[0].serve()
        if race is not is_granted_a_slot_and_leaves:
            w.helpers.start_soon(answer_all, upstream)
        with trio.fail_after(0.1):
            for number in (0, 2, 3):
                assert (await clients[number].read_response()).body == b"ok"
        assert connections(w) == (0, 1)
    gone = next(exchange for exchange in w.exchanges if exchange.target == "/1")
    assert ending(gone)[:2] == (499, Reason.CLIENT_GONE)


@pytest.mark.parametrize("seed", range(8))
async def test_a_waiter_whose_time_is_up_at_the_moment_of_its_grant(seed: int) -> None:
    """It is served or refused; the one behind it is served."""
    limits = Limits(max_conns_per_upstream=1, queue_ms=500)
    async with world(network=SimNet(seed=seed), timeouts=only(), limits=limits) as w:
        first, second, third = [await w.client() for _ in range(3)]
        await first.send(get(0))
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await second.send(get(1))
        await trio.sleep(0.25)
        await third.send(get(2))
        await trio.sleep(0.25)
        await upstream.send(OK)
        w.helpers.start_soon(answer_all, upstream)
        assert (await second.read_response()).status in (200, 503)
        assert (await third.read_response()).status == 200
        assert now_ms() == 500


async def answer_all(peer: Speaker) -> None:
    try:
        while True:
            await peer.read_request()
            await peer.send(OK)
    except (OSError, EOFError, trio.ClosedResourceError):
        return
