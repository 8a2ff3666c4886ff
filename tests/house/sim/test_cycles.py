"""No exchange, however it ends, leaves work for the cyclic garbage collector.

`server.garbage` has it look so rarely that what lies in cycles would pile up.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import trio

from support.conversation import Speaker
from support.scenario import GET, OK
from support.world import World, run, world
from trio_proxy.exchange.exchange import Exchange, Try
from trio_proxy.front.h1_sink import H1Sink
from trio_proxy.http.errors import ProtocolError, ProxyError
from trio_proxy.net.tunnel import Tunnel
from trio_proxy.settings import LoggingSettings, Retry
from trio_proxy.upstream.attempt import Attempt
from trio_proxy.upstream.retry import Retrier
from trio_proxy.upstream.session import Slot
from trio_proxy.upstream.upload import Upload

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
BAD = b"GET / HTTP/1.1\r\n\r\n"
HUGE = b"GET / HTTP/1.1\r\nA: " + bytes(40_000).replace(b"\0", b"a")
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n"
REQUESTS = {"late body": POST, "bad": BAD, "huge": HUGE, "tunnel": UPGRADE}


@pytest.fixture
def garbage() -> Iterator[list[object]]:
    """What the collector finds while the test runs."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


async def _converse(w: World, kind: str) -> None:
    """One connection and one exchange of that kind, with an upstream to suit."""
    client = await w.client()
    await client.send(REQUESTS.get(kind, GET))
    if kind in ("bad", "huge"):
        await client.read_response()
    elif kind == "abort":
        await w.upstreams[0].accept()
        await trio.sleep(0.1)
        client.stream.abort()
    else:
        await _answer(w, client, kind)
    client.stream.close()
    await trio.sleep(0.1)


async def _answer(w: World, client: Speaker, kind: str) -> None:
    upstream = await w.upstreams[0].accept()
    if kind == "late body":
        await trio.sleep(0.1)
        await client.send(b"abc")
    await upstream.read_request()
    if kind == "retried":
        upstream.stream.abort()
        second = await w.upstreams[0].accept()
        await second.send(OK)
        await client.read_response()
        second.stream.close()
    elif kind == "tunnel":
        await upstream.send(SWITCH)
        await client.read_head()
        upstream.stream.abort()
    elif kind == "reset":
        upstream.stream.abort()
    else:
        await upstream.send(OK[:-1] if kind == "truncated" else OK)
        upstream.stream.close()
    await trio.sleep(0.1)


#: What one exchange is made of; the world around it may end in whatever way.
OF_AN_EXCHANGE = (
    *(Retrier, Exchange, H1Sink, Slot, ProtocolError, ProxyError, Tunnel, Try),
    *(Upload, Attempt),
)


@pytest.mark.parametrize(
    "kind",
    [
        *("answered", "late body", "abort", "bad", "huge"),
        *("reset", "retried", "truncated", "tunnel"),
    ],
)
def test_an_exchange_leaves_no_cycle(kind: str, garbage: list[object]) -> None:
    async def main() -> None:
        # Without an access log nothing else holds an ended exchange.
        retry = Retry(attempts=2 if kind == "retried" else 1)
        async with world(logging=LoggingSettings(access=False), retry=retry) as w:
            for _ in range(3):
                await _converse(w, kind)
            gc.collect()
            assert not [each for each in garbage if isinstance(each, OF_AN_EXCHANGE)]

    run(main)
