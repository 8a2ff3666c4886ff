"""The client goes away before there is an answer: the upstream's work ends within 100 ms."""

from __future__ import annotations

import pytest
import trio

from support.conversation import Speaker
from support.departures import NOTICED_SECONDS, ONE, Leave, any_way, fin, left, reset
from support.scenario import GET, OK, connections, ending, only, upstream_errors
from support.world import World, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase


@pytest.mark.parametrize("leave", [fin, reset])
async def test_in_the_middle_of_a_head(leave: Leave) -> None:
    """An exchange of its own, and no upstream is asked."""
    async with world(timeouts=only()) as w:
        client = await w.client()
        await client.send(b"GET / HT")
        await trio.sleep(1)
        leave(client)
        await trio.sleep(NOTICED_SECONDS)
        (gone,) = w.exchanges
        assert ending(gone) == (499, Reason.CLIENT_GONE, Source.CLIENT, Phase.READ_HEAD)
        assert gone.tries == []


@any_way
async def test_in_the_queue(leave: Leave) -> None:
    """Its place in the queue is given up, and the next in line is served."""
    async with world(timeouts=only(), limits=ONE) as w:
        first, client, last = await w.client(), await w.client(), await w.client()
        await first.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await client.send(GET)
        await trio.sleep(1)
        await last.send(GET)
        leave(client)
        await trio.sleep(NOTICED_SECONDS)
        assert w.proxy.pools["default"].queue_length == 1
        (gone,) = w.exchanges
        assert ending(gone) == (499, Reason.CLIENT_GONE, Source.CLIENT, Phase.PICK)
        assert gone.tries == []
        await upstream.send(OK)
        assert (await first.read_response()).body == b"ok"
        await upstream.read_request()
        await upstream.send(OK)
        assert (await last.read_response()).body == b"ok"
        assert connections(w) == (0, 1)
        assert upstream_errors(w) == {}


@any_way
async def test_while_dialling(leave: Leave) -> None:
    """The dial is given up."""

    async def begin(w: World, client: Speaker) -> None:
        w.net.blackhole(w.upstreams[0].name)
        await client.send(GET)

    await left(begin, leave, Phase.CONNECT)


@any_way
async def test_while_waiting_for_the_head(leave: Leave) -> None:
    """The upstream's connection is closed."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(GET)
        await (await w.upstreams[0].accept()).read_request()

    await left(begin, leave, Phase.AWAIT_HEAD)


@any_way
async def test_while_half_of_the_head_has_come(leave: Leave) -> None:
    """Half a response head is no reason to stay."""

    async def begin(w: World, client: Speaker) -> None:
        await client.send(GET)
        await (await w.upstreams[0].accept()).send(b"HTTP/1.1 200 ")

    await left(begin, leave, Phase.AWAIT_HEAD)


@pytest.mark.parametrize("leave", [fin, reset])
async def test_between_requests(leave: Leave) -> None:
    """An ordinary end: no exchange, and the pooled connection stays."""
    async with world(timeouts=only()) as w:
        w.upstreams[0].serve()
        client = await w.client()
        await client.ask(GET)
        leave(client)
        await trio.sleep(NOTICED_SECONDS)
        assert len(w.exchanges) == 1
        assert w.proxy.stats.client_connections == 0
        assert connections(w) == (0, 1)
