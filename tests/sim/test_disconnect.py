"""The client goes away: the upstream's work ends within 100 ms, in whichever phase."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from conversation import Speaker
from scenario import (
    GET,
    OK,
    SWITCH,
    UPGRADE,
    connections,
    ending,
    only,
    post,
    send_for_ever,
    send_quietly,
    timeouts,
    upstream_errors,
)
from world import World, world

from trio_proxy.errors import Reason, Source
from trio_proxy.lifecycle import Phase
from trio_proxy.settings import Limits

#: Within which the upstream's work must have ended.
NOTICED_SECONDS = 0.1


def fin(client: Speaker) -> None:
    """Close in order. If answer bytes lie unread the system makes it a reset."""
    client.close()


def half(client: Speaker) -> None:
    """Only a FIN, long after the request: who half-closes on purpose does so with the request."""
    client.send_eof()


def reset(client: Speaker) -> None:
    client.abort()


def pipelined(client: Speaker) -> None:
    """More requests in front of the FIN, which nobody has read."""
    client.stream.send_nowait(GET * 3)
    client.close()


Leave = Callable[[Speaker], None]
Begin = Callable[[World, Speaker], Awaitable[object]]
any_way = pytest.mark.parametrize("leave", [fin, half, reset, pipelined])
in_mid_body = pytest.mark.parametrize("leave", [fin, half, reset])

ONE = Limits(max_conns_per_upstream=1, queue_ms=0)


async def left(begin: Begin, leave: Leave, phase: Phase) -> World:
    """Let ``begin`` bring an exchange into a phase, and the client leave in it."""
    async with world(timeouts=only(), limits=ONE) as w:
        client = await w.client()
        await begin(w, client)
        await trio.sleep(1)
        assert w.exchanges == []
        leave(client)
        await trio.sleep(NOTICED_SECONDS)
        assert connections(w) == (0, 0)
        assert all(peer.stream.is_readable() for peer in w.upstreams[0].peers)
        (gone,) = w.exchanges
        assert gone.error is not None
        assert ending(gone)[1:] == (Reason.CLIENT_GONE, Source.CLIENT, phase)
        assert gone.status == (499 if not gone.head_sent else 200)
        assert [one.failure for one in gone.tries] == [None] * len(gone.tries)
        stats = w.proxy.stats
        assert {name: n for name, n in stats.disconnects.items() if n} == {phase: 1}
        await the_slot_is_free(w)
        assert stats.orphaned_upstreams == 0
        assert upstream_errors(w) == {}
        assert timeouts(w) == {}
    return w


async def the_slot_is_free(w: World) -> None:
    """The next client is served at once, on a connection of its own."""
    w.net.heal(w.upstreams[0].name)
    client = await w.client()
    with trio.fail_after(0.1):
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        while upstream.stream.is_readable() and not await upstream.receive_until(b"\r\n\r\n"):
            pass
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"
    client.close()


@any_way
async def test_while_dialling(leave: Leave) -> None:
    """The dial is given up."""

    async def begin(w: World, client: Speaker) -> None:
        w.net.blackhole(w.upstreams[0].name)
        await client.send(GET)

    await left(begin, leave, Phase.CONNECT)


@any_way
async def test_while_waiting_for_the_head(leave: Leave) -> None:
    """The upstream's connection is closed."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(GET)
        await (await w.upstreams[0].accept()).read_request()

    await left(begin, leave, Phase.AWAIT_HEAD)


@any_way
async def test_while_half_of_the_head_has_come(leave: Leave) -> None:
    """Half a response head is no reason to stay."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(GET)
        await (await w.upstreams[0].accept()).send(b"HTTP/1.1 200 ")

    await left(begin, leave, Phase.AWAIT_HEAD)


@any_way
async def test_after_an_upload(leave: Leave) -> None:
    """A body that was sent whole is like none."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(post(3))
        upstream = await w.upstreams[0].accept()
        await trio.sleep(1)
        await client.send(b"abc")
        assert (await upstream.read_request()).body == b"abc"

    await left(begin, leave, Phase.AWAIT_HEAD)


@in_mid_body
async def test_while_uploading_with_an_upstream_that_reads(leave: Leave) -> None:
    """The upstream sees the body end too early."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(post(1_000_000))
        upstream = await w.upstreams[0].accept()
        w.helpers.start_soon(swallow, upstream)
        w.helpers.start_soon(send_quietly, client, bytes(500_000))

    await left(begin, leave, Phase.SEND)


async def swallow(peer: Speaker) -> None:
    """Read until the proxy hangs up, but leave the end itself unread."""
    while not peer.stream.is_readable() or peer.stream.unread_bytes():
        await peer.stream.wait_readable()
        if not peer.stream.unread_bytes():
            return
        await peer.receive_some()


@in_mid_body
async def test_while_uploading_to_an_upstream_that_takes_nothing(leave: Leave) -> None:
    """The FIN lies behind body bytes that nobody reads, and is seen all the same."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(post(1_000_000))
        await w.upstreams[0].accept()
        w.helpers.start_soon(send_quietly, client, bytes(500_000))

    await left(begin, leave, Phase.SEND)


@in_mid_body
async def test_while_it_stalls_in_its_upload(leave: Leave) -> None:
    """Only the client was to be waited for."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(post(10) + b"123")
        await w.upstreams[0].accept()

    await left(begin, leave, Phase.SEND)


@in_mid_body
async def test_while_it_waits_for_a_100(leave: Leave) -> None:
    """It will never send the body that it announced."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(post(10, b"Expect: 100-continue\r\n"))
        await (await w.upstreams[0].accept()).read_head()

    await left(begin, leave, Phase.AWAIT_HEAD)


@any_way
async def test_while_the_response_stalls(leave: Leave) -> None:
    """Part of the body has been relayed and read; no more comes."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123")
        await client.read_head()
        await client.receive_exactly(3)

    await left(begin, leave, Phase.STREAM)


@any_way
async def test_while_events_trickle(leave: Leave) -> None:
    """A chunked stream without end."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        w.helpers.start_soon(send_for_ever, upstream, b"2\r\nx\n\r\n", 30)
        await client.receive_until(b"x\n")

    await left(begin, leave, Phase.STREAM)


@any_way
async def test_while_it_does_not_read_the_response(leave: Leave) -> None:
    """Both sides' buffers are full and nothing moves."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n")
        w.helpers.start_soon(send_quietly, upstream, bytes(9_000_000))

    await left(begin, leave, Phase.STREAM)


@any_way
async def test_in_the_queue(leave: Leave) -> None:
    """Its place in the queue is given up, and the next in line is served."""
    async with world(timeouts=only(), limits=ONE) as w:
        first, client, last = await w.client(), await w.client(), await w.client()
        await first.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await client.send(GET)
        await trio.sleep(1)
        await last.send(GET)
        leave(client)
        await trio.sleep(NOTICED_SECONDS)
        assert w.proxy.cluster.queue_length == 1
        (gone,) = w.exchanges
        assert ending(gone) == (499, Reason.CLIENT_GONE, Source.CLIENT, Phase.PICK)
        assert gone.tries == []
        await upstream.send(OK)
        assert (await first.read_response()).body == b"ok"
        await upstream.read_request()
        await upstream.send(OK)
        assert (await last.read_response()).body == b"ok"
        assert connections(w) == (0, 1)
        assert upstream_errors(w) == {}


@pytest.mark.parametrize("leave", [fin, reset])
async def test_in_the_middle_of_a_head(leave: Leave) -> None:
    """An exchange of its own, and no upstream is asked."""
    async with world(timeouts=only()) as w:
        client = await w.client()
        await client.send(b"GET / HT")
        await trio.sleep(1)
        leave(client)
        await trio.sleep(NOTICED_SECONDS)
        (gone,) = w.exchanges
        assert ending(gone) == (499, Reason.CLIENT_GONE, Source.CLIENT, Phase.READ_HEAD)
        assert gone.tries == []


@pytest.mark.parametrize("leave", [fin, reset])
async def test_between_requests(leave: Leave) -> None:
    """An ordinary end: no exchange, and the pooled connection stays."""
    async with world(timeouts=only()) as w:
        w.upstreams[0].serve()
        client = await w.client()
        await client.ask(GET)
        leave(client)
        await trio.sleep(NOTICED_SECONDS)
        assert len(w.exchanges) == 1
        assert w.proxy.stats.client_connections == 0
        assert connections(w) == (0, 1)


async def tunnel(w: World) -> tuple[Speaker, Speaker]:
    client = await w.client()
    await client.send(UPGRADE)
    upstream = await w.upstreams[0].accept()
    await upstream.read_request()
    await upstream.send(SWITCH)
    assert (await client.read_head()).status == 101
    return client, upstream


async def test_in_a_tunnel_by_reset() -> None:
    """The other end sees the connection end, and nobody is blamed but the client."""
    async with world(timeouts=only()) as w:
        client, upstream = await tunnel(w)
        await trio.sleep(1)
        client.abort()
        await trio.sleep(NOTICED_SECONDS)
        assert upstream.stream.is_readable()
        (gone,) = w.exchanges
        assert ending(gone) == (101, Reason.CLIENT_GONE, Source.CLIENT, Phase.STREAM)
        assert connections(w) == (0, 0)
        assert upstream_errors(w) == {}


async def test_in_a_tunnel_by_fin() -> None:
    """The FIN is passed on behind the last bytes; the upstream's own end then ends the tunnel."""
    async with world(timeouts=only()) as w:
        client, upstream = await tunnel(w)
        await client.send(b"bye")
        client.send_eof()
        assert await upstream.receive_all() == b"bye"
        await trio.sleep(1)
        await upstream.send(b"and bye")
        upstream.send_eof()
        assert await client.receive_all() == b"and bye"
        await trio.sleep(NOTICED_SECONDS)
        assert ending(w.exchanges[0]) == (101, None, None, Phase.STREAM)
        assert connections(w) == (0, 0)


@pytest.mark.parametrize("leave", [fin, reset])
async def test_in_a_tunnel_that_the_upstream_does_not_read(leave: Leave) -> None:
    """A reset is seen behind bytes that cannot be passed on; a FIN waits behind them."""
    async with world(timeouts=only(tunnel_idle_ms=3000)) as w:
        client, _ = await tunnel(w)
        w.helpers.start_soon(send_quietly, client, bytes(1_000_000))
        await trio.sleep(1)
        leave(client)
        await trio.sleep(NOTICED_SECONDS if leave is reset else 3)
        assert len(w.exchanges) == 1
        assert connections(w) == (0, 0)
