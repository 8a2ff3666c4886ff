"""What follows a 101: the connection becomes a tunnel for another protocol."""

from __future__ import annotations

from trio_proxy.codec.h1.wire import ClientWire
from trio_proxy.exchange.contract import Sink
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import Stream
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.messages import ResponseHead
from trio_proxy.http.phases import Phase
from trio_proxy.net.tunnel import Tunnel
from trio_proxy.upstream.answer import truncated


async def switch_protocols(
    head: ResponseHead, upstream: Stream, wire: ClientWire, sink: Sink, exchange: Exchange
) -> None:
    """Relay the 101 and then bytes both ways until the tunnel ends.

    Raises ProxyError if a side fails or the tunnel_idle deadline passes.
    """
    client, from_client = await sink.switch(head)
    exchange.phase = Phase.STREAM
    deadlines = exchange.deadlines
    seconds = deadlines.budgets.tunnel_idle
    tunnel = Tunnel(client, upstream, exchange.turns, seconds, deadlines.timers)

    def count_rightwards(size: int) -> None:
        exchange.bytes_received += size

    def count_leftwards(size: int) -> None:
        exchange.bytes_sent += size
        exchange.body_bytes_sent += size

    try:
        in_time = await tunnel.run(
            from_left=from_client,
            from_right=wire.take_leftover(),
            count_rightwards=count_rightwards,
            count_leftwards=count_leftwards,
        )
    except OSError as exc:
        if tunnel.failed is client:
            reason = Reason.CLIENT_GONE
            raise ProxyError(Source.CLIENT, Phase.STREAM, reason, detail=str(exc)) from exc
        raise truncated(f"tunnel: {exc}") from exc
    if not in_time:
        detail = f"tunnel_idle deadline of {seconds * 1000:.0f} ms passed"
        raise ProxyError(Source.PROXY, Phase.STREAM, Reason.TUNNEL_IDLE, detail=detail)
