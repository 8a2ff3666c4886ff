"""A callback that raises costs its own connection at most: the others go on, and the log has it."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

from support.conversation import ScriptedUpstream, Speaker
from support.scenario import started
from support.simnet_pairs import a_pair, hangups
from support.world import GET, PROXY, settings_for, world
from trio_proxy import open_proxy
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.timers import Timed, Timers
from trio_proxy.http.addresses import TcpAddress
from trio_proxy.server.run import DRIVEN_BY
from trio_proxy.testing import SimNet


def explode(_: object) -> None:
    raise ZeroDivisionError("a bug in a callback")


def faults(records: list[logging.LogRecord]) -> list[str]:
    """The errors in the log, each of which has to have come with the traceback of `explode`."""
    found = [record for record in records if record.levelno >= logging.ERROR]
    for record in found:
        assert record.exc_info is not None
        assert record.exc_info[0] is ZeroDivisionError
    return [f"{record.name}: {record.getMessage()}" for record in found]


# Deadlines


class Fuse(Timed):
    """Notes when its time is up, and raises if it ``fails`` then."""

    __slots__ = ("ended_at", "expired_at", "fails")

    def __init__(self, timers: Timers, due: float, *, fails: bool = False) -> None:
        super().__init__(timers)
        self.fails = fails
        self.expired_at = self.ended_at = 0.0
        self.put_off(trio.current_time() + due)

    def expire(self) -> None:
        self.expired_at = trio.current_time()
        if self.fails:
            explode(self)

    def end(self) -> None:
        self.ended_at = trio.current_time()


@pytest.mark.skipif(
    "modules compiled" in DRIVEN_BY, reason="compiled classes have no subclasses in tests"
)
async def test_a_deadline_whose_end_fails_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """What it belongs to is ended; those of the same moment and later ones pass as ever."""
    timers = Timers()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        fuses = [Fuse(timers, due, fails=due == 2) for due in (1, 2, 2, 2, 3)]
        fuses[2].fails = False
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert [fuse.expired_at - start for fuse in fuses] == [1, 2, 2, 2, 3]
    assert [fuse.ended_at > 0 for fuse in fuses] == [False, True, False, True, False]
    assert faults(caplog.records) == ["trio_proxy.exchange: internal error as a deadline passed"]


# Hang-ups


async def test_a_stream_whose_callback_fails_is_aborted(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Another one that hangs up in the same moment is told of."""
    async with SimNet() as net:
        near, far = await a_pair(net)
        other_near, other_far = await a_pair(net, TcpAddress("10.0.0.2", 80))
        far.on_hangup, seen = explode, hangups(other_far)
        near.send_eof()
        other_near.send_eof()
        await trio.sleep(5)
        with pytest.raises(ConnectionResetError):
            near.receive_nowait(1)
        assert net.open_streams == [near, other_near, other_far]
        assert [reset for _, reset in seen] == [False]
    assert faults(caplog.records) == ["trio_proxy.net: internal error as 127.0.0.1 hung up"]


async def test_a_client_whose_hangup_callback_fails_costs_no_other_client() -> None:
    """Its connection ends, while one that waits for its answer gets it."""
    async with world(errors_in_log=True) as w:
        client, upstream = await started(w)
        leaving = await w.client(source="198.51.100.8")
        await leaving.send(GET)
        other_upstream = await w.upstreams[0].accept()
        await other_upstream.read_request()
        (theirs,) = [stream for stream in w.proxy_streams() if stream.peer == "198.51.100.8"]
        theirs.on_hangup = explode
        leaving.abort()
        await trio.sleep(1)
        assert theirs not in w.proxy_streams()
        await upstream.respond(b"still here")
        assert (await client.read_response()).body == b"still here"
        await other_upstream.respond()
    assert faults(w.log) == ["trio_proxy.net: internal error as 198.51.100.8 hung up"]


async def test_a_pooled_connection_whose_hangup_callback_fails_is_replaced() -> None:
    """The next request finds it closed and is sent on a fresh one."""
    async with world(errors_in_log=True) as w:
        client, upstream = await started(w)
        await upstream.respond()
        await client.read_response()
        (pooled,) = [stream for stream in w.proxy_streams() if stream.remote == w.upstreams[0].name]
        pooled.on_hangup = explode
        upstream.close()
        await trio.sleep(1)
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.read_request()
        await upstream.respond(b"fresh")
        assert (await client.read_response()).body == b"fresh"
    assert faults(w.log) == ["trio_proxy.net: internal error as 10.1.0.1 hung up"]


async def test_a_connection_that_cannot_be_drained_keeps_no_other_from_it() -> None:
    """One that was closed under the proxy in the very step in which the drain begins."""
    async with world(errors_in_log=True) as w:
        clients = [await w.client() for _ in range(3)]
        await trio.sleep(1)
        w.proxy_streams()[1].close()
        began_at = trio.current_time()
    assert trio.current_time() == began_at
    assert [await client.receive_all() for client in clients] == [b""] * 3


# Observers


async def test_an_on_exchange_that_fails_costs_no_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The connection is kept, everything is counted, and the log has it once, not each time."""
    ended: list[Exchange] = []

    def on_exchange(exchange: Exchange) -> None:
        ended.append(exchange)
        explode(exchange)

    settings = settings_for()
    async with SimNet() as net, trio.open_nursery() as helpers:
        listener = await net.listen(settings.upstreams[0].address)
        upstream = ScriptedUpstream(listener, helpers)
        async with open_proxy(settings, network=net, on_exchange=on_exchange) as proxy:
            client = Speaker(await net.dial(PROXY))
            upstream.serve(b"ok")
            for _ in range(3):
                await client.send(GET)
                assert (await client.read_response()).body == b"ok"
            assert proxy.stats.responses[2] == len(ended) == 3
            assert proxy.stats.requests_in_flight == 0
            client.close()
        assert proxy.client_limiter.borrowed_tokens == 0
        helpers.cancel_scope.cancel()
        listener.close()
    text = f"trio_proxy.server: error in on_exchange trace_id={ended[0].trace_id}"
    assert faults(caplog.records) == [text]
