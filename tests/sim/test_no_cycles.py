"""No exchange, however it ends, leaves work for the cyclic garbage collector.

`server.garbage` has it look so rarely that what lies in cycles would pile up.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import trio
from world import World, run, world

from trio_proxy.lifecycle import Exchange
from trio_proxy.settings import LoggingSettings

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
BAD = b"GET / HTTP/1.1\r\n\r\n"


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
    request = {"late body": POST, "bad": BAD}.get(kind, GET)
    await client.send(request)
    if kind == "abort":
        await w.upstreams[0].accept()
        await trio.sleep(0.1)
        client.stream.abort()
    elif kind == "bad":
        await client.read_response()
    else:
        upstream = await w.upstreams[0].accept()
        if kind == "late body":
            await trio.sleep(0.1)
            await client.send(b"abc")
        await upstream.read_request()
        if kind == "reset":
            upstream.stream.abort()
        else:
            await upstream.send(ANSWER[:-1] if kind == "truncated" else ANSWER)
            upstream.stream.close()
        await trio.sleep(0.1)
    client.stream.close()
    await trio.sleep(0.1)


@pytest.mark.parametrize("kind", ["answered", "late body", "abort", "bad", "reset", "truncated"])
def test_an_exchange_leaves_no_cycle(kind: str, garbage: list[object]) -> None:
    async def main() -> None:
        # Without an access log nothing else holds an ended exchange.
        async with world(logging=LoggingSettings(access=False)) as w:
            for _ in range(3):
                await _converse(w, kind)
            gc.collect()
            assert not [each for each in garbage if isinstance(each, Exchange)]

    run(main)
