"""Words that the tests of retries share: upstreams that fail as they are told, and what was made
of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio

from support.conversation import ScriptedUpstream, Speaker
from support.scenario import OK, now_ms, upstream_errors
from support.world import World, upstream_settings
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.settings import Retry, UpstreamSettings
from trio_proxy.telemetry.accesslog import access_text

#: Steps of a script beside the bytes of an answer: a reset or an end in its place, or nothing.
RESET, CLOSE, HANG = "reset", "close", "hang"

#: A ``random()`` in the middle: half of the longest pause before each further try.
HALF = 0.5


def steady(count: int) -> list[UpstreamSettings]:
    """Upstreams that no failure takes out, so that the balancing order is all there is to know."""
    names = [f"10.1.0.{number}:9000" for number in range(1, count + 1)]
    return [upstream_settings(name, max_fails=0) for name in names]


def retry(**more: int) -> Retry:
    """What may be sent again is, also after a 503."""
    return Retry(on=("connect", "reset", "timeout", "503"), **more)


def tries(count: int, try_timeout_ms: int = 0) -> Retry:
    """`retry` with so many tries in all."""
    return retry(attempts=count, try_timeout_ms=try_timeout_ms)


def answer(status: int, body: bytes = b"", fields: bytes = b"") -> bytes:
    """A response of known length; ``fields`` are further field lines with their CRLF."""
    head = b"HTTP/1.1 %d Whatever\r\nContent-Length: %d\r\n" % (status, len(body))
    return head + fields + b"\r\n" + body


def play(upstream: ScriptedUpstream, *steps: str | bytes) -> list[float]:
    """From now on do one step for each request that has come whole, and then be healthy.

    Bytes are sent as they are. The times at which requests came are added to the list that is
    returned, in milliseconds, and the requests to ``upstream.requests``.
    """
    return play_together([upstream], *steps)


def play_together(upstreams: Sequence[ScriptedUpstream], *steps: str | bytes) -> list[float]:
    """`play` by upstreams that share one script: whoever is asked next does the next step."""
    left, came_at = iter(steps), list[float]()

    async def talk(upstream: ScriptedUpstream, peer: Speaker) -> None:
        while True:
            upstream.requests.append(await peer.read_request())
            came_at.append(now_ms())
            step = next(left, OK)
            if step == HANG:
                await peer.receive_some()
                return
            if step == RESET:
                peer.abort()
            if isinstance(step, str):
                return
            is_head = upstream.requests[-1].start.startswith(b"HEAD ")
            await peer.send(step.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if is_head else step)

    for each in upstreams:
        each.run(partial(talk, each))
    return came_at


def fix_jitter(w: World, random: float = HALF) -> None:
    """Let every pause before another try be the same share of the longest one."""
    w.proxy.pools["default"].random = lambda: random


def outcomes(exchange: Exchange) -> list[tuple[int, str]]:
    """Which upstream was tried, counted from 0 by its address, and what it came to."""
    return [(int(one.upstream.split(".")[3][0]) - 1, one.outcome) for one in exchange.tries]


def log_tail(exchange: Exchange) -> str:
    """What the access line says from its ``tries=`` on, without the fields between."""
    line = access_text(exchange)
    return line[line.index(" tries=") + 1 :]


def errors_of_each(w: World) -> list[dict[str, int]]:
    """``proxy_upstream_errors_total`` of every upstream, without zeros."""
    return [upstream_errors(w, number) for number in range(len(w.upstreams))]


def requests_of_each(w: World) -> list[int]:
    """How many tries each upstream got, by ``proxy_upstream_requests_total``."""
    return [w.proxy.stats.upstream("default", each.name).requests for each in w.upstreams]


async def send_slowly(peer: Speaker, pieces: list[bytes], seconds: float) -> None:
    """Send the pieces with a pause before each."""
    for piece in pieces:
        await trio.sleep(seconds)
        await peer.send(piece)
