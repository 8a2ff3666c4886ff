"""A body of very many very small chunks: whole at the other end, and in nobody's way."""

from __future__ import annotations

import pytest

from support.conversation import Message, Speaker
from support.scenario import all_at_once
from support.world import GET, World, world
from trio_proxy.testing import SimNet

COUNT = 50_000
BODY = bytes(number % 251 for number in range(COUNT))
TINY = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\nChecksum: 42\r\nX-Mark: a\r\n\r\n"
TRAILERS = [(b"Checksum", b"42"), (b"X-Mark", b"a")]
HEAD = b"Transfer-Encoding: chunked\r\n\r\n"

#: So that all of it lies before the proxy at once, and only the proxy itself can make room.
ROOMY = 1024 * 1024


async def in_which_order(w: World, big: bytes) -> tuple[list[str], Message]:
    """Send a big request and a small one at the same time: who had the answer first, and the big
    answer."""
    clients = [await w.client(), await w.client()]
    order: list[str] = []

    async def ask(number: int) -> Message:
        answer = await clients[number].ask([big, GET][number])
        order.append(["big", "small"][number])
        return answer

    answers = await all_at_once(2, ask)
    assert answers[1].body == b"small"
    assert (await clients[0].ask(GET)).body == b"small", "the connection goes on"
    return order, answers[0]


async def answer_by_method(peer: Speaker) -> None:
    while True:
        request = await peer.read_request()
        if request.start.startswith(b"POST"):
            assert request.body == BODY
            assert request.trailers == TRAILERS
            await peer.respond(b"whole")
        elif b" /big " in request.start:
            await peer.send(b"HTTP/1.1 200 OK\r\nTrailer: Checksum\r\n" + HEAD + TINY)
        else:
            await peer.respond(b"small")


@pytest.mark.parametrize("seed", [1, 2])
async def test_an_upload_in_tiny_chunks(seed: int) -> None:
    """Byte for byte with its trailers; a small request of somebody else's is answered before."""
    async with world(network=SimNet(seed=seed, buffer=ROOMY)) as w:
        w.upstreams[0].run(answer_by_method)
        order, answer = await in_which_order(w, b"POST / HTTP/1.1\r\nHost: a\r\n" + HEAD + TINY)
        assert answer.body == b"whole"
        assert order == ["small", "big"]


@pytest.mark.parametrize("seed", [1, 2])
async def test_an_answer_in_tiny_chunks(seed: int) -> None:
    """The same on the way back."""
    async with world(network=SimNet(seed=seed, buffer=ROOMY)) as w:
        w.upstreams[0].run(answer_by_method)
        order, answer = await in_which_order(w, b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.body == BODY
        assert answer.trailers == TRAILERS
        assert order == ["small", "big"]
