"""What a plain GET passes in the proxy: files, functions and calls, in the order in which it comes.

One proxy on loopback before one upstream, both connections kept open. After some requests that warm
everything up one more is traced, from its first byte until the proxy waits for the next. Every call
of a Python function of the package counts, those of the timers, the metrics and the access line as
well. Files with a function that is handed the request or the sink are marked: that is their path.
Compiled modules cannot be traced: run it from a source tree.

    python bench/path_of_a_get.py            # the files, each with its functions
    python bench/path_of_a_get.py --json     # the same for programs
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import TypeAlias

import trio

import trio_proxy
from trio_proxy.exchange.contract import SinkFilter
from trio_proxy.front.h1_sink import H1Sink
from trio_proxy.http.messages import Request
from trio_proxy.telemetry.logwriter import LogWriter
from trio_proxy.telemetry.outputs import StreamSink

ROOT = Path(trio_proxy.__file__).parent

REQUEST = (
    b"GET /path?query HTTP/1.1\r\nHost: example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2029 00:00:00 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 5\r\n\r\nhello"
)

#: Requests before the one that is traced.
WARM_UP = 40

#: What is left to do for an exchange when its answer has come takes less, in seconds.
SETTLING_SECONDS = 0.05

#: Parts of functions that some interpreters call, and others do in line.
COMPREHENSIONS = frozenset(("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>"))

#: The functions of each file, with the number of their calls.
Calls: TypeAlias = dict[str, dict[str, int]]


class Trace:
    """A profile function that notes the calls of the package's functions, in their order."""

    def __init__(self) -> None:
        self.calls: Calls = {}
        #: The files with a function that is handed the request or the sink.
        self.handed: list[str] = []

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(f"{ROOT}{os.sep}"):
            return
        if code.co_name in COMPREHENSIONS or _goes_on(frame):
            return
        file = str(Path(code.co_filename).relative_to(ROOT))
        functions = self.calls.setdefault(file, {})
        functions[code.co_qualname] = functions.get(code.co_qualname, 0) + 1
        if file not in self.handed and _is_handed_them(frame):
            self.handed.append(file)


def _goes_on(frame: FrameType) -> bool:
    """Whether a coroutine goes on after an await: the argument of RESUME says so (`dis`)."""
    return bool(frame.f_code.co_code[frame.f_lasti + 1] & 3)


def _is_handed_them(frame: FrameType) -> bool:
    """Whether the request or the sink is an argument of a call, or what it is a method of."""
    names = frame.f_code.co_varnames[: frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount]
    given = (frame.f_locals.get(name) for name in names)
    return any(isinstance(each, Request | H1Sink | SinkFilter) for each in given)


async def trace_one() -> Trace:
    """Start everything, warm it up, and trace one request."""
    trace = Trace()
    # Its lines are made at once, and written when all is over, to nowhere.
    writer = LogWriter(StreamSink(io.StringIO()), batch_seconds=60.0)
    async with trio.open_nursery() as helpers:
        helpers.start_soon(writer.run)
        upstream = await helpers.start(_upstream)
        settings = trio_proxy.Settings(
            listen=(trio_proxy.TcpAddress("127.0.0.1", 0),),
            upstreams=(trio_proxy.UpstreamSettings(host="127.0.0.1", port=upstream),),
        )
        async with trio_proxy.open_proxy(settings, on_exchange=writer.put) as proxy:
            address = proxy.address
            assert isinstance(address, trio_proxy.TcpAddress)
            client = await trio.open_tcp_stream(address.host, address.port)
            async with client:
                for _ in range(WARM_UP):
                    await _ask(client)
                await trio.sleep(SETTLING_SECONDS)
                sys.setprofile(trace)
                try:
                    await _ask(client)
                    await trio.sleep(SETTLING_SECONDS)
                finally:
                    sys.setprofile(None)
        helpers.cancel_scope.cancel()
    return trace


async def _upstream(task_status: trio.TaskStatus[int]) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    task_status.started(listener.socket.getsockname()[1])
    await trio.serve_listeners(_answer, [listener])


async def _answer(stream: trio.SocketStream) -> None:
    async with stream:
        while await _read_to(b"\r\n\r\n", stream.receive_some):
            await stream.send_all(ANSWER)


async def _ask(client: trio.SocketStream) -> None:
    await client.send_all(REQUEST)
    answer = await _read_to(b"hello", client.receive_some)
    assert answer.startswith(b"HTTP/1.1 200 "), answer


async def _read_to(end: bytes, receive: Callable[[], Awaitable[bytes | bytearray]]) -> bytes:
    data = b""
    while not data.endswith(end):
        received = await receive()
        if not received:
            return b""
        data += received
    return data


def main() -> None:
    """Print what was passed."""
    trace = trio.run(trace_one)
    calls, handed = trace.calls, trace.handed
    counts = {
        "files": len(calls),
        "functions": sum(map(len, calls.values())),
        "calls": sum(sum(each.values()) for each in calls.values()),
    }
    if "--json" in sys.argv[1:]:
        print(json.dumps({**counts, "handed": handed, "path": calls}))
        return
    for file, found in calls.items():
        print(f"{file} *" if file in handed else file)
        for function, count in found.items():
            print(f"    {function}" + (f" x {count}" if count > 1 else ""))
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    print(f"{len(handed)} files with a function that is handed the request or the sink (*)")


if __name__ == "__main__":
    main()
