"""Bodies that are there already when the request is sent: they move without being waited for."""

from __future__ import annotations

import pytest
import trio

from support.scenario import OK, connections, ending, only, post, send_quietly
from support.world import GET, PROXY, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.testing import SimNet

MIB = 1024 * 1024
#: More than is read with a head, than one piece, and than is moved in a row.
SIZES = [70_000, MIB, 12 * MIB]

UPSTREAM = "10.1.0.1:9000"


def body_of(size: int) -> bytes:
    """Bytes of which none can be lost or moved unnoticed."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def wide_net() -> SimNet:
    """Its connections hold more than anybody sends."""
    return SimNet(buffer=32 * MIB)


@pytest.mark.parametrize("size", SIZES)
async def test_an_upload_arrives_whole(size: int) -> None:
    """And both connections can be used again."""
    async with world(network=wide_net(), timeouts=only()) as w:
        client = await w.client()
        for _ in range(2):
            await client.send(post(size) + body_of(size))
            upstream = w.upstreams[0].peers[0] if w.exchanges else await w.upstreams[0].accept()
            assert (await upstream.read_request()).body == body_of(size)
            await upstream.send(OK)
            assert (await client.read_response()).body == b"ok"
    assert [ending(one)[:2] for one in w.exchanges] == [(200, None)] * 2
    assert w.exchanges[0].bytes_received == len(post(size)) + size


@pytest.mark.parametrize("size", SIZES)
async def test_an_upstream_that_takes_it_bit_by_bit(size: int) -> None:
    """What it does not take at once follows when it does."""
    net = wide_net()
    net.link(UPSTREAM, buffer=50_000)
    async with world(network=net, timeouts=only()) as w:
        client = await w.client()
        await client.send(post(size) + body_of(size))
        upstream = await w.upstreams[0].accept()
        await trio.sleep(1)
        assert (await upstream.read_request()).body == body_of(size)
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"


@pytest.mark.parametrize("seed", range(5))
async def test_a_client_whose_bytes_come_in_bits(seed: int) -> None:
    """Some are there and some are not: they keep their order."""
    net = SimNet(seed=seed)
    net.link(PROXY, fragment=True, buffer=300_000)
    async with world(network=net, timeouts=only()) as w:
        client = await w.client()
        w.helpers.start_soon(send_quietly, client, post(MIB) + body_of(MIB) + GET)
        upstream = await w.upstreams[0].accept()
        assert (await upstream.read_request()).body == body_of(MIB)
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"
        assert (await upstream.read_request()).start == b"GET / HTTP/1.1"
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"


async def test_a_client_that_ends_its_side_too_early() -> None:
    """All that it has sent is there, and so is its end."""
    async with world(network=wide_net(), timeouts=only()) as w:
        client = await w.client()
        await client.send(post(MIB) + body_of(MIB - 1))
        client.send_eof()
        with pytest.raises(ConnectionResetError):
            await client.receive_all()
    _, reason, source, _ = ending(w.exchanges[0])
    assert (reason, source) == (Reason.CLIENT_GONE, Source.CLIENT)


@pytest.mark.parametrize("taken", [1, 65_536, 100_000, MIB])
async def test_an_upstream_that_goes_away_inside_the_body(taken: int) -> None:
    """It is the upstream's fault, and the next request has a connection of its own."""
    async with world(network=wide_net(), timeouts=only()) as w:
        client = await w.client()
        await client.send(GET)
        first = await w.upstreams[0].accept()
        await first.read_request()
        first.stream.cut_after(taken, reset=True, direction="receive")
        await first.send(OK)
        await client.read_response()
        await client.send(post(2 * MIB) + body_of(2 * MIB))
        assert (await client.read_response()).status == 502
        another = await w.client()
        await another.send(GET)
        second = await w.upstreams[0].accept()
        await second.read_request()
        await second.send(OK)
        assert (await another.read_response()).body == b"ok"
    assert ending(w.exchanges[1])[1:3] == (Reason.CONNECTION_RESET, Source.UPSTREAM)


async def test_an_upstream_that_does_not_read() -> None:
    """The write deadline runs although nothing had to be waited for before."""
    net = wide_net()
    net.link(UPSTREAM, buffer=100_000)
    async with world(network=net, timeouts=only(write_ms=500)) as w:
        client = await w.client()
        await client.send(post(MIB) + body_of(MIB))
        await w.upstreams[0].accept()
        assert (await client.read_response()).status == 504
        client.close()
    assert ending(w.exchanges[0]) == (504, Reason.WRITE_TIMEOUT, Source.UPSTREAM, Phase.SEND)


async def test_an_answer_that_comes_before_the_body_is_read() -> None:
    """The client gets it; whether the body is read after that is the upstream's affair."""
    net = wide_net()
    net.link(UPSTREAM, buffer=100_000)
    async with world(network=net, timeouts=only()) as w:
        client = await w.client()
        await client.send(post(MIB) + body_of(MIB))
        upstream = await w.upstreams[0].accept()
        await upstream.read_head()
        await upstream.respond(b"no", status=413)
        assert (await client.read_response()).status == 413
        client.close()


async def test_an_answer_that_comes_while_the_body_moves() -> None:
    """The client gets it before the rest has moved, though nobody had to wait for any of that."""
    size = 64 * MIB
    async with world(network=SimNet(buffer=2 * size), timeouts=only()) as w:
        client = await w.client()
        await client.send(post(size) + bytes(size))
        upstream = await w.upstreams[0].accept()
        await upstream.read_head()
        await upstream.respond(b"no", status=413)
        assert (await client.read_response()).status == 413
        assert len(await upstream.receive_all()) < size
        client.close()


@pytest.mark.parametrize(("size", "buffer"), [(40_000, 10_000), (MIB, 100_000), (600_000, 300_000)])
async def test_a_connection_with_half_a_body_on_it_is_never_used_again(
    size: int, buffer: int
) -> None:
    """Whoever came next would have the request taken for the rest of that body."""
    net = wide_net()
    net.link(UPSTREAM, buffer=buffer)
    async with world(network=net, timeouts=only()) as w:
        client = await w.client()
        await client.send(post(size) + body_of(size))
        upstream = await w.upstreams[0].accept()
        await upstream.read_head()
        await upstream.respond(b"no", status=413)
        assert (await client.read_response()).status == 413
        assert connections(w) == (0, 0)
        other = await w.client("198.51.100.8")
        await other.send(GET)
        fresh = await w.upstreams[0].accept()
        assert (await fresh.read_head()).start.startswith(b"GET")
        await fresh.send(OK)
        assert (await other.read_response()).body == b"ok"
        rest = await upstream.receive_all()
        assert rest == body_of(size)[: len(rest)]
