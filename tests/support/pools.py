"""Words that the tests of balancing, stickiness, health and breakers share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import trio
from prometheus_client import CollectorRegistry

from support.conversation import Message, ScriptedUpstream, Speaker
from support.scenario import GET
from support.world import World, upstream_settings
from trio_proxy.settings import UpstreamSettings
from trio_proxy.telemetry.metrics import StatsCollector

#: The names of the upstreams that `servers` makes, in their order.
NAMES = tuple(f"10.1.0.{number}:9000" for number in range(1, 6))
A, B, C = NAMES[:3]


def servers(*each: Mapping[str, Any], **common: Any) -> list[UpstreamSettings]:
    """``[[upstreams]]`` tables for `NAMES`, with keys of each and keys that all have."""
    pairs = zip(NAMES, each, strict=False)
    return [upstream_settings(name, **{**common, **own}) for name, own in pairs]


class Server:
    """Lets a scripted upstream answer as it is told, and be told otherwise at any time.

    ``status``, ``body`` and ``fields`` are those of its next answer, which comes after ``delay``
    seconds. ``fault`` replaces the answer: ``hang`` never answers, ``reset`` and ``close`` end the
    connection before the head, ``cut`` in the middle of the body, ``garbage`` is no HTTP.
    """

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self.status = 200
        self.body = b"ok"
        self.fields = b""
        self.delay = 0.0
        self.fault = ""
        self.requests: list[Message] = []
        #: Requests that it has at the same time, now and at most.
        self.active = self.most = 0
        upstream.run(self._talk)

    async def _talk(self, peer: Speaker) -> None:
        while True:
            self.requests.append(await peer.read_request())
            self.active += 1
            self.most = max(self.most, self.active)
            try:
                await trio.sleep(self.delay)
                if not await self._answer(peer):
                    return
            finally:
                self.active -= 1

    async def _answer(self, peer: Speaker) -> bool:
        """Whether the connection can take another request."""
        match self.fault:
            case "hang":
                await peer.receive_some()  # until the proxy gives up
            case "reset":
                peer.abort()
            case "close":
                peer.close()
            case "cut":
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            case "garbage":
                await peer.send(b"what?\r\n\r\n")
            case _:
                await peer.respond(self.body, status=self.status, fields=self.fields)
        return not self.fault


def serve(w: World) -> list[Server]:
    """Every upstream answers with its letter: ``a``, ``b``, and so on."""
    all_of_them = [Server(upstream) for upstream in w.upstreams]
    for server, letter in zip(all_of_them, b"abcde", strict=False):
        server.body = bytes([letter])
    return all_of_them


async def ask(w: World, count: int, request: bytes = GET) -> bytes:
    """The bodies of so many answers, got one after the other by one client."""
    async with await w.client() as client:
        return b"".join([(await client.ask(request)).body for _ in range(count)])


async def send(w: World, count: int) -> list[Speaker]:
    """Clients whose requests are sent one after the other."""
    clients = [await w.client() for _ in range(count)]
    for client in clients:
        await client.send(GET)
        await trio.sleep(0.001)
    return clients


async def answer(w: World, request: bytes = GET) -> Message:
    """One answer, to a client of its own."""
    async with await w.client() as client:
        return await client.ask(request)


async def statuses(w: World, count: int, request: bytes = GET) -> list[int]:
    """The statuses of so many answers, got one after the other by one client."""
    async with await w.client() as client:
        return [(await client.ask(request)).status for _ in range(count)]


def tries(w: World) -> list[str]:
    """For each ended exchange the upstreams that were tried, as letters: ``["a", "ab"]``."""
    letters = dict(zip(NAMES, "abcde", strict=True))
    return ["".join(letters[one.upstream] for one in each.tries) for each in w.exchanges]


def outcomes(w: World) -> list[str]:
    """What became of every try, in order."""
    return [one.outcome for each in w.exchanges for one in each.tries]


def sample(w: World, name: str, **labels: str) -> float | None:
    """What ``/metrics`` would say."""
    registry = CollectorRegistry()
    registry.register(StatsCollector(w.proxy.stats))
    return registry.get_sample_value(name, labels)


def metric(w: World, name: str, upstream: str, **labels: str) -> float | None:
    """A sample of ``/metrics`` that is about one upstream."""
    return sample(w, name, pool="default", upstream=upstream, **labels)


def is_up(w: World, upstream: str) -> bool:
    """What ``proxy_upstream_up`` says."""
    value = metric(w, "proxy_upstream_up", upstream)
    assert value in (0.0, 1.0)
    return bool(value)


def told(w: World) -> list[str]:
    """The log's lines about upstreams and pools."""
    return list(_told(w))


def _told(w: World) -> Iterator[str]:
    for record in w.log:
        if record.name == "trio_proxy.upstream" and record.levelname != "DEBUG":
            yield record.getMessage()
