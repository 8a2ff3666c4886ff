"""Opening the connection that a slot is for."""

from __future__ import annotations

import errno

from trio_proxy.exchange.streams import Stream
from trio_proxy.exchange.waits import Wait
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.net.dns.resolver import LookupFailed
from trio_proxy.net.network import OUT_OF_RESOURCES
from trio_proxy.upstream.h1_session import UpstreamSession
from trio_proxy.upstream.pool.pool import Pool
from trio_proxy.upstream.session import Slot


async def dial(pool: Pool, slot: Slot) -> Stream:
    """Open the stream of a slot's session, which has none. Raises ProxyError."""
    exchange, session = slot.holder, slot.session
    assert isinstance(session, UpstreamSession)
    exchange.phase = Phase.CONNECT
    with exchange.deadlines.wait(Wait.CONNECT) as block:
        try:
            stream = await pool.directory.network.dial(slot.upstream.address)
        except OSError as exc:
            # A dial that fails at once has not been to the scheduler.
            await exchange.turns.pass_on()
            raise _dial_error(exc) from exc
        if block.is_late:
            stream.close()
            await block.too_late()
    session.opened(stream)
    return stream


def _dial_error(exc: OSError) -> ProxyError:
    reason = Reason.CONNECTION_FAILED
    if exc.errno in OUT_OF_RESOURCES:
        return ProxyError(Source.PROXY, Phase.CONNECT, Reason.OUT_OF_RESOURCES, detail=str(exc))
    if isinstance(exc, LookupFailed):
        reason = Reason.DNS_ERROR
    elif exc.errno == errno.ECONNREFUSED or isinstance(exc, FileNotFoundError):
        reason = Reason.CONNECTION_REFUSED
    elif exc.errno == errno.ETIMEDOUT:
        reason = Reason.CONNECT_TIMEOUT
    detail = str(exc)
    return ProxyError(Source.UPSTREAM, Phase.CONNECT, reason, detail=detail, retryable=True)
