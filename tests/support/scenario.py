"""Words that the tests of deadlines, departures, drains, reloads and pools share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import attrs
import trio

from support.conversation import Message, Speaker
from support.world import GET, World
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.settings import Timeouts
from trio_proxy.upstream.pool.member import Member as PoolMember

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Fine\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"


def get(number: int) -> bytes:
    """A request that can be told from others."""
    return b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number


def post(length: int, fields: bytes = b"") -> bytes:
    """The head of a request with a body of known length."""
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%s\r\n" % (length, fields)


def only(**budgets: int) -> Timeouts:
    """These deadlines and no other, but for a drain of a second."""
    none = dict.fromkeys((each.name for each in attrs.fields(Timeouts)), 0)
    return Timeouts(**{**none, "drain_ms": 1000, **budgets})


def now_ms() -> float:
    """Milliseconds since the test began; steps that take no time in virtual time take none."""
    return round(trio.current_time() * 1000, 6)


async def until_ms(milliseconds: float) -> None:
    """Sleep until then."""
    await trio.sleep_until(milliseconds / 1000)


def refusal(message: Message) -> tuple[int, bytes, bytes]:
    """What the proxy's own answer says: status, Proxy-Status, body."""
    assert message[b"content-length"] == b"%d" % len(message.body)
    return message.status, message[b"proxy-status"], message.body


def ending(exchange: Exchange) -> tuple[int, Reason | None, Source | None, Phase]:
    """How an exchange ended: status, reason, whose fault, and the phase."""
    error = exchange.error
    if error is None:
        return exchange.status, None, None, exchange.ended_in
    assert error.phase is exchange.ended_in
    return exchange.status, error.reason, error.source, exchange.ended_in


def timeouts(w: World) -> dict[str, int]:
    """The counters of ``proxy_timeout_errors_total`` that are not 0."""
    return {name: count for name, count in w.proxy.stats.timeouts.items() if count}


def upstream_errors(w: World, number: int = 0) -> dict[str, int]:
    """The counters of ``proxy_upstream_errors_total`` of one upstream that are not 0."""
    stats = w.proxy.stats.upstream("default", w.upstreams[number].name)
    return {name: count for name, count in stats.errors.items() if count}


def member(w: World, number: int = 0) -> PoolMember:
    """The pool's view of a scripted upstream."""
    (found,) = (m for m in w.proxy.pools["default"].members if m.name == w.upstreams[number].name)
    return found


def connections(w: World, number: int = 0) -> tuple[int, int]:
    """How many connections to an upstream the proxy counts: leased, idle."""
    gauges = w.proxy.stats.upstream("default", w.upstreams[number].name)
    if found := [m for m in w.proxy.pools["default"].members if m.name == w.upstreams[number].name]:
        assert found[0].limiter.borrowed_tokens == gauges.active + gauges.idle
    return gauges.active, gauges.idle


async def started(w: World, request: bytes = GET) -> tuple[Speaker, Speaker]:
    """A client whose request has reached the upstream, and the upstream."""
    client = await w.client()
    await client.send(request)
    upstream = await w.upstreams[0].accept()
    await upstream.read_request()
    return client, upstream


async def pooled(w: World) -> tuple[Speaker, Speaker]:
    """A client and an upstream connection that lies in the pool after its request."""
    client, upstream = await started(w)
    await upstream.send(OK)
    await client.read_response()
    assert connections(w) == (0, 1)
    return client, upstream


async def tunnel(w: World) -> tuple[Speaker, Speaker]:
    """Both ends of a fresh tunnel."""
    client, upstream = await started(w, UPGRADE)
    await upstream.send(SWITCH)
    assert (await client.read_head()).status == 101
    return client, upstream


async def how_it_ends(peer: Speaker) -> tuple[bytes, str]:
    """What still comes, and whether an ``"eof"`` or a ``"reset"`` ends it."""
    received = b""
    try:
        while data := await peer.receive_some():
            received += data
    except OSError:
        return received, "reset"
    return received, "eof"


async def send_for_ever(peer: Speaker, piece: bytes, seconds: float) -> None:
    """Drip a piece at a time, until cancelled or nobody takes it any more."""
    with suppress(OSError, trio.ClosedResourceError):
        while True:
            await peer.send(piece)
            await trio.sleep(seconds)


async def send_quietly(peer: Speaker, data: bytes) -> None:
    """Send as much as the other side takes before it goes away."""
    with suppress(OSError, trio.ClosedResourceError):
        await peer.send(data)


def drip(w: World, peer: Speaker, piece: bytes, seconds: float) -> None:
    """`send_for_ever` in the background."""
    w.helpers.start_soon(send_for_ever, peer, piece, seconds)


async def all_at_once(count: int, make: Callable[[int], Awaitable[Any]]) -> list[Any]:
    """The results of ``make(0)``, ``make(1)``, …, run at the same time."""
    results: list[Any] = [None] * count

    async def one(number: int) -> None:
        results[number] = await make(number)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)
    return results
