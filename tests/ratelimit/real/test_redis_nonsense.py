"""Servers at the store's address that are no Redis, or one that answers nonsense."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import pytest
import trio

from support.shared_buckets import MARKS, NEVER, is_local, make_buckets, running, store_lines

pytestmark = MARKS


async def listen(
    nursery: trio.Nursery, serve: Callable[[trio.SocketStream], Awaitable[None]]
) -> int:
    """The port where ``serve`` answers."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, serve, [listener])
    port: int = listener.socket.getsockname()[1]
    return port


#: What a server answers to HELLO and to SCRIPT LOAD.
HELLO = b"%7\r\n+server\r\n+redis\r\n+version\r\n+7.0.0\r\n+proto\r\n:3\r\n+id\r\n:1\r\n"
HELLO += b"+mode\r\n+standalone\r\n+role\r\n+master\r\n+modules\r\n*0\r\n"
LOADED = b"$40\r\n" + b"0" * 40 + b"\r\n"


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([b""], id="closes"),
        pytest.param([b"HTTP/1.1 400 Bad Request\r\n\r\n"], id="http"),
        pytest.param([b"\x00\xff" * 50 + b"\r\n"], id="bytes"),
        pytest.param([b"*-5\r\n:x\r\n"], id="malformed"),
        pytest.param([b"-ERR unknown command `HELLO`, with args `AUTH` `pw-0`\r\n"], id="old"),
        pytest.param([b"+OK\r\n"], id="no hello"),
        pytest.param([HELLO, b"-NOPERM no\r\n"], id="no permission"),
        pytest.param([HELLO, LOADED, b"+OK\r\n"], id="another type"),
        pytest.param([HELLO, LOADED, b"*2\r\n:7\r\n$1\r\n1\r\n"], id="no verdict"),
        pytest.param([HELLO, LOADED, b"*2\r\n:1\r\n$3\r\nnan\r\n"], id="not a number"),
        pytest.param([HELLO, LOADED, b"*2\r\n:1\r\n$4\r\n1e99\r\n"], id="too many"),
        pytest.param([HELLO, LOADED, b"-MOVED 1 127.0.0.1:1\r\n"], id="moved"),
        pytest.param([HELLO, LOADED, b"-MOVED\r\n"], id="malformed moved"),
        pytest.param([HELLO, LOADED, b"-NOSCRIPT no\r\n", b"-NOSCRIPT no\r\n"], id="no script"),
    ],
)
async def test_nonsense_makes_the_limit_local(
    answers: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever listens there, requests go on, and nothing of the URL's password is logged."""

    async def serve(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            for answer in answers:
                await stream.receive_some()
                await stream.send_all(answer)
            if answers != [b""]:
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        port = await listen(nursery, serve)
        buckets = make_buckets(f"redis://:pw%2D0@127.0.0.1:{port}")
        async with running(buckets):
            assert "away" in repr(buckets)
            assert is_local(await buckets.take(b"k"))
        nursery.cancel_scope.cancel()
    (line,) = store_lines(caplog)
    assert "pw-0" not in line
    assert "pw%2D0" not in line


async def test_nonsense_in_the_middle_makes_the_limit_local() -> None:
    """An answer that belongs to no script, on a connection that had worked."""
    sensible = b"*2\r\n:1\r\n$1\r\n1\r\n"

    async def serve(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            for answer in (HELLO, LOADED, sensible, sensible, b"$-1\r\n"):
                await stream.receive_some()
                await stream.send_all(answer)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        port = await listen(nursery, serve)
        buckets = make_buckets(f"redis://127.0.0.1:{port}", retry_seconds=NEVER)
        async with running(buckets):
            assert [is_local(await buckets.take(b"k")) for _ in range(3)] == [False, True, True]
        nursery.cancel_scope.cancel()


async def test_its_task_ends_cleanly_in_the_middle_of_a_handshake(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Cancelled while the server is silent, it raises nothing of its own and logs nothing."""
    asked = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        asked.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        port = await listen(nursery, serve)
        nursery.start_soon(make_buckets(f"redis://127.0.0.1:{port}").run)
        await asked.wait()
        nursery.cancel_scope.cancel()
    assert store_lines(caplog) == []
