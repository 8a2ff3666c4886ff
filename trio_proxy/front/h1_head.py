"""Reading one request head, within one budget for the whole of it."""

from __future__ import annotations

import trio

from trio_proxy.codec.h1.wire import ServerWire
from trio_proxy.exchange.deadlines import WaitBlock
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import READ_SIZE, Stream
from trio_proxy.exchange.waits import Wait
from trio_proxy.http.errors import ProtocolError, ProxyError, Reason, Source
from trio_proxy.http.messages import Request
from trio_proxy.http.phases import Phase
from trio_proxy.policy.forwarding import new_trace_id


def head_at_once(wire: ServerWire, exchange: Exchange) -> Request | None:
    """The next request head of a connection, noted in the exchange; None if it has not come whole.

    Nearly always it has. Raises ProxyError for a head that is refused.
    """
    try:
        request = wire.next_request()
    except ProtocolError as exc:
        _note_refused(exchange, wire.refused_line)
        raise ProxyError(Source.CLIENT, Phase.READ_HEAD, exc.reason, detail=exc.detail) from exc
    if request is not None:
        exchange.method = request.method.decode("ascii")
        exchange.target = request.target.decode("ascii")
        exchange.version = request.version.decode("ascii")
    return request


async def read_head(wire: ServerWire, stream: Stream, exchange: Exchange) -> Request:
    """The rest of a head that has not come whole, within one budget for all of it.

    A client that sends a byte now and then gains nothing. Raises ProxyError for a head that is
    refused or late, and for a client that leaves before its end.
    """
    deadlines = exchange.deadlines
    with deadlines.open_scope(), deadlines.wait(Wait.HEAD) as block:
        request: Request | None = None
        while request is None:
            wire.feed(await _receive(stream, exchange, block))
            request = head_at_once(wire, exchange)
        return request
    failure = deadlines.why_over()
    assert failure is not None
    raise failure


async def _receive(stream: Stream, exchange: Exchange, block: WaitBlock) -> bytes:
    try:
        while (data := stream.receive_nowait(READ_SIZE)) is None:
            await stream.wait_readable()
            if block.is_late:
                await block.too_late()
        if exchange.turns.take():
            await exchange.turns.pass_on()
    except (OSError, trio.ClosedResourceError) as exc:
        raise _gone(str(exc)) from exc
    if not data:
        raise _gone("ended inside a request head")
    exchange.bytes_received += len(data)
    return data


def _note_refused(exchange: Exchange, line: bytes) -> None:
    """What the log can show of a request that was never understood, and an id to find it by."""
    words = line.decode("latin-1").split(" ")
    words += ["-"] * (3 - len(words))
    exchange.method, exchange.target, exchange.version = (word or "-" for word in words[:3])
    exchange.trace_id = new_trace_id()


def _gone(detail: str) -> ProxyError:
    return ProxyError(Source.CLIENT, Phase.READ_HEAD, Reason.CLIENT_GONE, detail=detail)
