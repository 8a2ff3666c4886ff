"""What an ended exchange says of itself, on a network of any shape; and the harness itself."""

from __future__ import annotations

import logging

import pytest
import trio

from support.conversation import Speaker
from support.world import CLIENT, GET, run, world
from trio_proxy.http.errors import ProxyError
from trio_proxy.testing import SimNet

POST = b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"
)


async def answer_in_many_ways(peer: Speaker) -> None:
    """Interim responses and every framing but the one that ends the connection."""
    while True:
        request = await peer.read_request()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        if request.start.startswith(b"GET"):
            await peer.respond(b"x" * 3000)
        else:
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            size = b"%x\r\n" % len(request.body)
            await peer.send(head + size + request.body + b"\r\n0\r\nSum: 1\r\n\r\n")


async def test_the_facts_of_an_exchange() -> None:
    async with world() as w:
        w.upstreams[0].serve(b"hello", delay=2.0)
        client = await w.client()
        response = await client.ask(b"GET /path?q HTTP/1.1\r\nHost: a\r\n\r\n")
    (exchange,) = w.exchanges
    assert (exchange.method, exchange.target, exchange.version) == ("GET", "/path?q", "1.1")
    assert (exchange.status, exchange.error, exchange.upstream) == (200, None, "10.1.0.1:9000")
    assert (exchange.peer, exchange.client_ip) == (CLIENT, CLIENT)
    assert exchange.ended_at - exchange.started_at == 2.0
    assert exchange.ended_in == "stream"
    assert exchange.body_bytes_sent == 5
    assert exchange.bytes_sent == len(response.raw) + 5
    assert [(one.upstream, one.outcome) for one in exchange.tries] == [("10.1.0.1:9000", "200")]
    assert exchange.tries[0].head_seconds == 2.0


@pytest.mark.parametrize("pause", [0.0, 1.0])
async def test_every_byte_is_counted_once(pause: float) -> None:
    """Pipelined or one by one: what all exchanges counted is what crossed the connection."""
    requests = [GET, POST, CHUNKED, b"\r\n" + GET, POST, b"GET / HTTP/1.1\r\n\r\n"]
    async with world() as w:
        w.upstreams[0].run(answer_in_many_ways)
        client = await w.client()
        for request in requests:
            await client.send(request)
            await trio.sleep(pause)
        received = await client.receive_all()
    assert [exchange.status for exchange in w.exchanges] == [200] * 5 + [400]
    counted = [exchange.bytes_received for exchange in w.exchanges]
    assert sum(counted) == len(b"".join(requests))
    if pause:
        # An empty line in front of a request may be counted with either of its neighbours.
        assert [counted[n] for n in (0, 1, 5)] == [len(requests[n]) for n in (0, 1, 5)]
    assert sum(exchange.bytes_sent for exchange in w.exchanges) == len(received)
    bodies = [exchange.body_bytes_sent for exchange in w.exchanges]
    assert bodies[:5] == [3000, 5, 5, 3000, 5]


SHAPES = [
    {"latency": 0.05},
    {"latency": 0.01, "bandwidth": 20_000.0},
    {"buffer": 1},
    {"buffer": 100, "latency": 0.001},
    *({"fragment": True, "seed": seed} for seed in range(6)),
    {"fragment": True, "latency": 0.003, "jitter": 0.01, "buffer": 700, "seed": 7},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_the_shape_of_the_network_makes_no_difference(shape: dict[str, float]) -> None:
    """The same answers over slow, narrow and fragmenting connections."""
    async with world(network=SimNet(**shape)) as w:  # type: ignore[arg-type]
        w.upstreams[0].run(answer_in_many_ways)
        client = await w.client()
        w.helpers.start_soon(client.send, GET + POST + CHUNKED + GET)
        bodies = []
        for _ in range(4):
            assert (await client.read_head()).status == 103
            bodies.append((await client.read_response()).body)
        assert bodies == [b"x" * 3000, b"hello", b"hello", b"x" * 3000]
    assert [exchange.error for exchange in w.exchanges] == [None] * 4


def test_the_same_seed_gives_the_same_run() -> None:
    """Times and bytes of every exchange, on a network that is all chance."""

    async def main() -> list[tuple[float, int, ProxyError | None]]:
        net = SimNet(seed=5, fragment=True, latency=0.01, jitter=0.02)
        async with world(network=net, upstreams=2) as w:
            for upstream in w.upstreams:
                upstream.serve(b"x" * 1000)
            clients = [await w.client() for _ in range(4)]
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(client.ask, GET)
        return [(e.ended_at - e.started_at, e.bytes_sent, e.error) for e in w.exchanges]

    first = run(main)
    assert len(first) == 4
    assert run(main) == first


# The harness


async def test_what_is_left_behind_is_reported() -> None:
    """A token that nobody gives back, to see that the check at the end of each test checks."""
    with pytest.raises(AssertionError, match=r"left behind:\s+client tokens: 1"):
        async with world() as w:
            w.proxy.client_limiter.acquire_on_behalf_of_nowait("somebody")


async def test_a_test_that_hangs_is_told_where() -> None:
    with pytest.raises(AssertionError, match=r"hangs at .*: await w.upstreams\[0\].accept\(\)"):
        async with world() as w:
            await w.upstreams[0].accept()


async def test_an_error_in_the_log_is_reported() -> None:
    with pytest.raises(AssertionError, match="logged error: boom"):
        async with world():
            logging.getLogger("trio_proxy.server").error("boom")
