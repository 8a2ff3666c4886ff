"""Bytes that are there already, in whatever form: they move in turns with everybody else."""

from __future__ import annotations

import pytest
import trio

from support.conversation import Speaker
from support.fairness import AT_MOST, most_between_steps
from support.scenario import OK, only, pooled, post, tunnel
from support.world import GET, World, world
from trio_proxy.codec.h1.chunks import MAX_CHUNKS_AT_ONCE
from trio_proxy.exchange.streams import READ_SIZE
from trio_proxy.exchange.transfer import TURN_BYTES
from trio_proxy.testing import SimNet

MIB = 1024 * 1024
LARGE = 32 * MIB

#: Both sides' buffers hold all of it, so that nobody ever has to wait for room.
ROOMY = 2 * LARGE

COUNT = 20_000
CHUNKS = b"1\r\nx\r\n" * COUNT + b"0\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

#: What is made of as many chunks as are read in one go: one, with its size and its line ends.
ONE_GO = len(b"40\r\n\r\n") + MAX_CHUNKS_AT_ONCE


def roomy() -> SimNet:
    return SimNet(buffer=ROOMY)


async def asked(w: World, request: bytes = GET) -> tuple[Speaker, Speaker]:
    """A client whose request has reached the upstream, over a connection that was pooled."""
    client, upstream = await pooled(w)
    await client.send(request)
    await upstream.read_head()
    return client, upstream


async def test_an_answer_in_tiny_chunks() -> None:
    async with world(network=roomy(), timeouts=only()) as w:
        client, upstream = await asked(w)
        await upstream.send(b"HTTP/1.1 200 OK\r\n" + CHUNKED + CHUNKS)
        most = await most_between_steps(client.stream.unread_bytes, COUNT)
        assert most <= AT_MOST * ONE_GO
        assert (await client.read_response()).body == b"x" * COUNT


async def test_an_upload_in_tiny_chunks() -> None:
    async with world(network=roomy(), timeouts=only()) as w:
        client, upstream = await asked(w, b"POST / HTTP/1.1\r\nHost: a\r\n" + CHUNKED)
        await client.send(CHUNKS)
        most = await most_between_steps(upstream.stream.unread_bytes, COUNT)
        assert most <= AT_MOST * ONE_GO
        body, _ = await upstream.read_chunked()
        assert body == b"x" * COUNT
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"


async def test_an_upload_of_known_length() -> None:
    """It is sent without a task of its own, as all of it is there with its head."""
    async with world(network=roomy(), timeouts=only()) as w:
        client, upstream = await pooled(w)
        await client.send(post(LARGE) + bytes(LARGE))
        most = await most_between_steps(upstream.stream.unread_bytes, LARGE)
        assert most <= AT_MOST * TURN_BYTES
        assert len((await upstream.read_request()).body) == LARGE
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"


async def test_an_upload_that_comes_behind_its_head() -> None:
    async with world(network=roomy(), timeouts=only()) as w:
        client, upstream = await asked(w, post(LARGE))
        await client.send(bytes(LARGE))
        most = await most_between_steps(upstream.stream.unread_bytes, LARGE)
        assert most <= AT_MOST * TURN_BYTES
        assert len(await upstream.receive_exactly(LARGE)) == LARGE
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"


async def test_a_download_of_known_length() -> None:
    async with world(network=roomy(), timeouts=only()) as w:
        client, upstream = await asked(w)
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
        await upstream.send(bytes(LARGE))
        most = await most_between_steps(client.stream.unread_bytes, LARGE)
        assert most <= AT_MOST * TURN_BYTES
        assert len((await client.read_response()).body) == LARGE


async def test_a_download_that_ends_with_its_connection() -> None:
    async with world(network=roomy(), timeouts=only()) as w:
        client, upstream = await asked(w)
        await upstream.send(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(LARGE))
        upstream.close()
        most = await most_between_steps(client.stream.unread_bytes, LARGE)
        assert most <= AT_MOST * (READ_SIZE + 10)
        assert len((await client.read_response()).body) == LARGE


async def test_interim_responses() -> None:
    """Each is a head that is read and one that is sent."""
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    async with world(network=roomy(), timeouts=only()) as w:
        client, upstream = await asked(w)
        await upstream.send(interim * 32 + OK)
        most = await most_between_steps(client.stream.unread_bytes, 32 * len(interim))
        assert most <= AT_MOST // 2 * len(interim)
        for _ in range(32):
            assert (await client.read_head()).raw == interim
        assert (await client.read_response()).body == b"ok"


async def steps_to_an_answer(interims: int) -> int:
    """How many steps a bystander makes until a client that speaks HTTP/1.0 is answered."""
    steps = 0
    async with world(network=roomy(), timeouts=only()) as w:
        client, upstream = await asked(w, b"GET / HTTP/1.0\r\n\r\n")
        await upstream.send(b"HTTP/1.1 102 Processing\r\n\r\n" * interims + OK)
        while not client.stream.unread_bytes():
            await trio.lowlevel.checkpoint()
            steps += 1
        assert (await client.read_response()).body == b"ok"
    return steps


async def test_interim_responses_that_are_not_relayed() -> None:
    """Reading them is work, too: the others have two turns more for 32 of them."""
    assert await steps_to_an_answer(32) >= await steps_to_an_answer(0) + 2


async def send_in_tiny_pieces(peer: Speaker, count: int) -> None:
    for _ in range(count):
        await peer.send(b"x")
        await trio.lowlevel.checkpoint()


async def test_tiny_messages_in_a_tunnel() -> None:
    """Both ways at the same time."""
    async with world(network=roomy(), timeouts=only()) as w:
        client, upstream = await tunnel(w)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_in_tiny_pieces, client, 1000)
            nursery.start_soon(send_in_tiny_pieces, upstream, 1000)
            most = await most_between_steps(
                lambda: client.stream.unread_bytes() + upstream.stream.unread_bytes(), 2000
            )
        assert most <= AT_MOST
        client.close()
        upstream.close()


@pytest.mark.parametrize("downwards", [False, True])
async def test_a_tunnel_that_is_full(downwards: bool) -> None:
    async with world(network=roomy(), timeouts=only()) as w:
        client, upstream = await tunnel(w)
        source, target = (upstream, client) if downwards else (client, upstream)
        await source.send(bytes(LARGE))
        most = await most_between_steps(target.stream.unread_bytes, LARGE)
        assert most <= AT_MOST * READ_SIZE
        assert len(await target.receive_exactly(LARGE)) == LARGE
        client.close()
        upstream.close()
