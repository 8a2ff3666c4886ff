"""How a client goes away, and what must be so afterwards in whichever phase it was."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from support.conversation import Speaker
from support.scenario import GET, OK, connections, ending, only, timeouts, upstream_errors
from support.world import World, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.settings import Limits

#: Within which the upstream's work must have ended.
NOTICED_SECONDS = 0.1


def fin(client: Speaker) -> None:
    """Close in order. If answer bytes lie unread the system makes it a reset."""
    client.close()


def half(client: Speaker) -> None:
    """Only a FIN, long after the request: who half-closes on purpose does so with the request."""
    client.send_eof()


def reset(client: Speaker) -> None:
    client.abort()


def pipelined(client: Speaker) -> None:
    """More requests in front of the FIN, which nobody has read."""
    client.stream.send_nowait(GET * 3)
    client.close()


Leave = Callable[[Speaker], None]
Begin = Callable[[World, Speaker], Awaitable[object]]
any_way = pytest.mark.parametrize("leave", [fin, half, reset, pipelined])
in_mid_body = pytest.mark.parametrize("leave", [fin, half, reset])

ONE = Limits(max_conns_per_upstream=1, queue_ms=0)


async def left(begin: Begin, leave: Leave, phase: Phase) -> World:
    """Let ``begin`` bring an exchange into a phase, and the client leave in it."""
    async with world(timeouts=only(), limits=ONE) as w:
        client = await w.client()
        await begin(w, client)
        await trio.sleep(1)
        assert w.exchanges == []
        leave(client)
        await trio.sleep(NOTICED_SECONDS)
        assert connections(w) == (0, 0)
        assert all(peer.stream.is_readable() for peer in w.upstreams[0].peers)
        (gone,) = w.exchanges
        assert gone.error is not None
        assert ending(gone)[1:] == (Reason.CLIENT_GONE, Source.CLIENT, phase)
        assert gone.status == (499 if not gone.head_sent else 200)
        assert [one.failure for one in gone.tries] == [None] * len(gone.tries)
        stats = w.proxy.stats
        assert {name: n for name, n in stats.disconnects.items() if n} == {phase: 1}
        await the_slot_is_free(w)
        assert stats.orphaned_upstreams == 0
        assert upstream_errors(w) == {}
        assert timeouts(w) == {}
    return w


async def the_slot_is_free(w: World) -> None:
    """The next client is served at once, on a connection of its own."""
    w.net.heal(w.upstreams[0].name)
    client = await w.client()
    with trio.fail_after(0.1):
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        while upstream.stream.is_readable() and not await upstream.receive_until(b"\r\n\r\n"):
            pass
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"
    client.close()
