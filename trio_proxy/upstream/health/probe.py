"""Active health checks: a request to each upstream now and then, on a connection of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import trio

from trio_proxy.codec.h1.requests import HeadLimits
from trio_proxy.codec.h1.wire import ClientWire
from trio_proxy.exchange.complaint import Complaint
from trio_proxy.exchange.deadlines import STANDSTILL_SECONDS
from trio_proxy.exchange.streams import READ_SIZE, Stream
from trio_proxy.http.addresses import Address
from trio_proxy.http.errors import ProtocolError
from trio_proxy.http.headers import Headers
from trio_proxy.http.messages import NO_BODY, Request, ResponseHead
from trio_proxy.net.network import OUT_OF_RESOURCES
from trio_proxy.upstream.pool.member import Member
from trio_proxy.upstream.pool.rules import CheckRules

log = logging.getLogger("trio_proxy.upstream")

#: How much of a body is searched for the text that is expected in it.
MAX_BODY_BYTES = 65_536

#: Interim responses that are passed over.
MAX_INTERIM_RESPONSES = 32

#: By how much an interval is shortened or lengthened at random, so that the checks of several
#: proxies and upstreams do not fall together.
JITTER = 0.1

_LIMITS = HeadLimits()


class Dialer(Protocol):
    """What opens connections to upstreams."""

    async def dial(self, address: Address) -> Stream: ...


async def check_for_ever(
    upstream: Member, rules: CheckRules, dialer: Dialer, random: Callable[[], float]
) -> None:
    """Check an upstream until cancelled, the first time within one interval."""
    unable = Complaint(log)
    await trio.sleep(rules.interval_seconds * random())
    while True:
        try:
            reason = await check(upstream, rules, dialer)
        except OSError as exc:
            unable.warn("upstream %s cannot be checked: %s", upstream.name, exc)
        else:
            _report(upstream, reason)
        factor = 1 + JITTER * (2 * random() - 1)
        await trio.sleep(rules.interval_seconds * factor)


def _report(upstream: Member, reason: str) -> None:
    if reason:
        upstream.condition.check_failed(reason)
    else:
        upstream.condition.check_passed(trio.current_time())
    upstream.freed()  # who waits for an upstream may find this one in use again


async def check(upstream: Member, rules: CheckRules, dialer: Dialer) -> str:
    """One check; why it failed, or an empty string.

    Raises OSError if the system has not the means for it, or this process stood still meanwhile:
    that says nothing of the upstream.
    """
    with trio.move_on_after(rules.timeout_seconds) as scope:
        try:
            stream = await dialer.dial(upstream.address)
        except OSError as exc:
            if exc.errno in OUT_OF_RESOURCES:
                raise
            return f"cannot connect: {exc}"
        try:
            return await _ask(upstream, rules, stream)
        except OSError as exc:
            return f"connection failed: {exc}"
        except ProtocolError as exc:
            return f"malformed response: {exc.detail}"
        finally:
            stream.close()
    if trio.current_time() - scope.deadline > STANDSTILL_SECONDS:
        raise OSError("the proxy stood still")
    return f"no answer within {rules.timeout_seconds * 1000:.0f} ms"


async def _ask(upstream: Member, rules: CheckRules, stream: Stream) -> str:
    wire = ClientWire(_LIMITS)
    await _send(stream, _request(upstream, rules, wire))
    interims = 0
    while (head := wire.next_response()) is None or head.status < 200:
        if head is not None:
            interims += 1
            if interims > MAX_INTERIM_RESPONSES:
                return "too many interim responses"
        elif not await _receive(stream, wire):
            return "closed before the response head was complete"
    return await _judge(head, rules, stream, wire)


def _request(upstream: Member, rules: CheckRules, wire: ClientWire) -> bytes:
    host = rules.host.encode() or upstream.host_field
    request = Request(
        method=b"GET",
        target=rules.path.encode(),
        version=b"1.1",
        host=host,
        fields=(),
        body=NO_BODY,
        keep_alive=False,
    )
    fields = Headers(((b"Host", host), (b"User-Agent", b"trio-proxy"), (b"Connection", b"close")))
    return wire.encode_head(request, fields, _LIMITS) + wire.encode_end()


async def _judge(head: ResponseHead, rules: CheckRules, stream: Stream, wire: ClientWire) -> str:
    if head.status not in rules.expect:
        return f"status {head.status}"
    if not rules.expect_body:
        return ""
    wanted, body, searched = rules.expect_body.encode(), bytearray(), 0
    while len(body) < MAX_BODY_BYTES:
        body += wire.take_body()
        if body.find(wanted, searched, MAX_BODY_BYTES) >= 0:
            return ""
        searched = max(0, len(body) - len(wanted))
        if wire.body_complete:
            break
        if wire.has_more_body:
            await trio.lowlevel.checkpoint()  # it may come in tiny chunks
        elif not await _receive(stream, wire):
            break  # cut off, or delimited by the end: what came is judged
    return "the expected text is not in the body"


async def _send(stream: Stream, data: bytes) -> None:
    sent = stream.send_nowait(data)
    while sent < len(data):
        await stream.wait_writable()
        sent += stream.send_nowait(data[sent:])


async def _receive(stream: Stream, wire: ClientWire) -> bool:
    """Feed what comes; False at the end of the stream."""
    while True:
        await stream.wait_readable()
        data = stream.receive_nowait(READ_SIZE)
        if data:
            wire.feed(data)
        if data is not None:
            return bool(data)
