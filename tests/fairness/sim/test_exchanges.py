"""A client that pipelines without a pause, whatever it is answered: others have their turns."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import trio
from attrs import field, frozen

from support.conversation import Speaker
from support.fairness import AT_MOST, FLOOD, most_between_steps
from support.limiting import limit
from support.pools import servers
from support.propagation import NAME, TRUSTING
from support.scenario import OK, only
from support.world import GET, METRICS, World, world
from trio_proxy.front.acceptor import ACCEPTS_PER_TURN
from trio_proxy.http.addresses import Address
from trio_proxy.settings import BreakerSettings, Limits, Retry
from trio_proxy.testing import SimNet, SimStream

#: So that a whole flood lies before the proxy at once, and so do its answers before the client.
ROOMY = 4 * 1024 * 1024

LOOP = b"GET / HTTP/1.1\r\nHost: a\r\nVia: " + b", ".join([b"1.1 trio-proxy"] * 10) + b"\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"


class AwayNetwork(SimNet):
    """Upstreams are away like a unix socket that is not there: a dial fails without a wait."""

    def __init__(self) -> None:
        super().__init__(buffer=ROOMY)
        self.dials = 0

    async def dial(self, address: Address | str, *, source: str = "127.0.0.1") -> SimStream:
        if str(address).startswith("10.1."):
            self.dials += 1
            raise ConnectionRefusedError(errno.ECONNREFUSED, "away")
        return await super().dial(address, source=source)


async def answer_at_once(peer: Speaker) -> None:
    """An upstream that never waits for anything but a request."""
    while True:
        request = await peer.read_request()
        await peer.send(OK if request.start.startswith(b"GET") else OK.removesuffix(b"ok"))


async def answer_with_500(peer: Speaker) -> None:
    await peer.read_request()
    await peer.respond(status=500)


async def nothing(w: World) -> None:
    """No preparation."""


async def spend_the_token(w: World) -> None:
    w.upstreams[0].run(answer_at_once)
    assert (await (await w.client()).ask(GET)).status == 200


async def open_the_breaker(w: World) -> None:
    w.upstreams[0].run(answer_with_500)
    assert (await (await w.client()).ask(GET)).status == 500


async def take_the_only_connection(w: World) -> None:
    await (await w.client()).send(GET)
    await (await w.upstreams[0].accept()).read_request()


async def serve_at_once(w: World) -> None:
    w.upstreams[0].run(answer_at_once)


@frozen
class Kind:
    """What a client sends, what it is answered, and what it takes to get there."""

    status: int
    request: bytes = GET
    prepare: Any = nothing
    tables: dict[str, Any] = field(factory=dict)
    network: type[SimNet] | None = None


KINDS = {
    "a loop by Via": Kind(508, LOOP),
    "an empty line before each": Kind(508, b"\r\n" + LOOP),
    "rate limit": Kind(429, GET, spend_the_token, {"rate_limit": limit(1)}),
    "drained": Kind(503, tables={"upstreams": servers({"drain": True})}),
    "breaker": Kind(
        503,
        GET,
        open_the_breaker,
        {"breaker": BreakerSettings(min_requests=1, open_ms=60_000)},
    ),
    "queue full": Kind(
        503,
        GET,
        take_the_only_connection,
        {"limits": Limits(max_conns_per_upstream=1, max_queue=0)},
    ),
    "no time left": Kind(
        504,
        b"GET / HTTP/1.1\r\nHost: a\r\n%s: 0\r\n\r\n" % NAME.encode(),
        tables={"headers": TRUSTING},
    ),
    "upstream away": Kind(502, tables={"upstreams": servers({}, max_fails=0)}, network=AwayNetwork),
    "an upstream's 200": Kind(200, GET, serve_at_once),
    "an upstream's answer to HEAD": Kind(200, HEAD, serve_at_once),
}


@pytest.mark.parametrize("name", KINDS)
async def test_exchanges_that_are_there_already(name: str) -> None:
    """Hundreds in one send, all of them answered on the one connection."""
    kind = KINDS[name]
    network = SimNet(buffer=ROOMY) if kind.network is None else kind.network()
    async with world(network=network, timeouts=only(), **kind.tables) as w:
        await kind.prepare(w)
        before = len(w.exchanges)
        client = await w.client()
        await client.send(kind.request * FLOOD)
        most = await most_between_steps(lambda: len(w.exchanges), before + FLOOD)
        method = kind.request.split()[0]
        statuses = [(await client.read_response(method)).status for _ in range(FLOOD)]
        assert statuses == [kind.status] * FLOOD
        assert most <= AT_MOST


async def test_answers_of_a_handler_that_asks_nobody() -> None:
    """The metrics port's 404."""
    ask = b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"
    async with world(network=SimNet(buffer=ROOMY), metrics_listen=METRICS) as w:
        client = await w.client(address=METRICS)
        answer = await client.ask(ask)
        size = len(answer.raw + answer.body)
        await client.send(ask * FLOOD)
        most = await most_between_steps(client.stream.unread_bytes, FLOOD * size)
        assert most <= AT_MOST * size


async def test_retries_over_upstreams_that_refuse_at_once() -> None:
    """Each try that fails is followed by a turn of the others, however many tries a request has."""
    network = AwayNetwork()
    tables = {
        "upstreams": servers({}, {}, {}, {}, {}, max_fails=0),
        "retry": Retry(attempts=5, budget_percent=1000),
    }
    async with world(network=network, timeouts=only(), **tables) as w:
        client = await w.client()
        await client.send(GET * 100)
        assert await most_between_steps(lambda: network.dials, 500) <= 2
        for _ in range(100):
            assert (await client.read_response()).status == 502


async def test_connections_that_end_with_a_400() -> None:
    """Hundreds that come at the same time: no more between two steps than are accepted in two."""

    async def come() -> None:
        async with await w.client() as client:
            await client.send(b"nonsense\r\n\r\n")
            assert (await client.read_response()).status == 400
            assert await client.receive_all() == b""

    async with world() as w, trio.open_nursery() as nursery:
        for _ in range(FLOOD):
            nursery.start_soon(come)
        most = await most_between_steps(lambda: len(w.exchanges), FLOOD)
        assert most <= 2 * ACCEPTS_PER_TURN
