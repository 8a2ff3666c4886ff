"""SimNet: the faults of a connection, scripts at its ends, and nothing left behind."""

from __future__ import annotations

import gc

import pytest
import trio
from trio.testing import MockClock

from support.simnet_pairs import ADDRESS, a_pair, hangups
from trio_proxy.testing import Peer, SimNet

# Faults of a connection


async def test_a_stall_keeps_everything_in_flight_and_the_order(autojump_clock: MockClock) -> None:
    async with SimNet(latency=1) as net:
        near, far = await a_pair(net)
        seen = hangups(far)
        near.send_nowait(b"before ")
        await trio.sleep(1)
        near.stall()
        near.send_nowait(b"during ")
        near.send_eof()
        await trio.sleep(100)
        assert far.receive_nowait(100) == b"before "
        assert far.receive_nowait(100) is None
        assert seen == []
        resumed_at = trio.current_time()
        far.resume(direction="receive")
        assert await Peer(far).receive_all() == b"during "
        assert trio.current_time() == resumed_at
        await trio.sleep(1)
        assert seen == [(resumed_at, False)]


async def test_a_stall_wakes_its_waiter_when_it_ends(autojump_clock: MockClock) -> None:
    net = SimNet(latency=1)
    near, far = await a_pair(net)
    near.stall()
    near.send_nowait(b"x")
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(far.wait_readable)
        await trio.sleep(9)
        near.resume()
    assert trio.current_time() - start == 9


async def test_what_has_arrived_before_a_stall_stays(autojump_clock: MockClock) -> None:
    net = SimNet()
    near, far = await a_pair(net)
    near.send_eof()
    near.stall()
    assert far.receive_nowait(1) == b""
    near.resume()
    assert far.receive_nowait(1) == b""


async def test_a_reset_waits_for_a_stall_to_end(autojump_clock: MockClock) -> None:
    net = SimNet(latency=1)
    near, far = await a_pair(net)
    near.stall()
    near.abort()
    await trio.sleep(100)
    assert not far.is_readable()
    near.resume()
    with pytest.raises(ConnectionResetError):
        far.receive_nowait(1)


@pytest.mark.parametrize("direction", ["send", "receive"])
async def test_cut_after_ends_the_stream_behind_so_many_bytes(
    direction: str, autojump_clock: MockClock
) -> None:
    net = SimNet(latency=1)
    near, far = await a_pair(net)
    near.send_nowait(b"in flight ")
    if direction == "send":
        near.cut_after(4)
    else:
        far.cut_after(4, direction="receive")
    start = trio.current_time()
    assert near.send_nowait(b"12") == 2
    assert near.send_nowait(b"3456") == 4
    assert await Peer(far).receive_all() == b"in flight 1234"
    assert trio.current_time() - start == 1
    await trio.sleep(1)
    with pytest.raises(ConnectionResetError):
        near.send_nowait(b"7")
    near.close()
    assert far.receive_nowait(1) == b""
    far.send_nowait(b"x")
    await trio.sleep(2)
    with pytest.raises(ConnectionResetError):
        far.receive_nowait(1)


async def test_cut_with_a_reset_delivers_its_bytes_first(autojump_clock: MockClock) -> None:
    async with SimNet(latency=1) as net:
        near, far = await a_pair(net)
        seen = hangups(far)
        start = trio.current_time()
        near.cut_after(3, reset=True)
        near.send_nowait(b"12345")
        await trio.sleep(5)
        assert far.receive_nowait(2) == b"12"
        assert far.receive_nowait(2) == b"3"
        with pytest.raises(ConnectionResetError):
            far.receive_nowait(2)
        assert seen == [(start + 1, True)]


async def test_cut_after_nothing_cuts_now(autojump_clock: MockClock) -> None:
    net = SimNet()
    near, far = await a_pair(net)
    near.cut_after(0)
    assert far.receive_nowait(1) == b""
    with pytest.raises(ConnectionResetError):
        near.send_nowait(b"x")


async def test_a_sender_into_a_cut_blocks_until_the_reset(autojump_clock: MockClock) -> None:
    """It never finds a bottomless pit."""
    net = SimNet(latency=1, buffer=100)
    near, _ = await a_pair(net)
    near.cut_after(10)
    start = trio.current_time()
    with pytest.raises(ConnectionResetError):
        await Peer(near).send(b"x" * 1000)
    assert trio.current_time() - start == 2


# Scripts


async def test_an_upstream_accepts_one_connection_after_the_other(
    autojump_clock: MockClock,
) -> None:
    async with SimNet(latency=0.1) as net, net.upstream("10.0.0.1:0") as upstream:
        client = await net.connect(upstream.address, source="192.0.2.1")
        server = await upstream.accept()
        assert server.stream.peer == "192.0.2.1"
        await client.send(b"GET / HTTP/1.1\r\n\r\nbody and more")
        assert await server.receive_until(b"\r\n\r\n") == b"GET / HTTP/1.1\r\n\r\n"
        assert await server.receive_exactly(4) == b"body"
        assert await server.receive_some(5) == b" and "
        await server.send(b"answer")
        server.send_eof()
        assert await client.receive_all() == b"answer"
        assert await client.receive_some() == b""
        client.close()
        assert await server.receive_all() == b"more"
    assert net.open_streams == []
    assert net.open_listeners == []


async def test_a_stream_that_ends_too_early_says_what_came(autojump_clock: MockClock) -> None:
    async with SimNet() as net, net.upstream(ADDRESS) as upstream:
        async with await net.connect(ADDRESS) as client:
            await client.send(b"GET /")
        server = await upstream.accept()
        with pytest.raises(EOFError, match="GET /"):
            await server.receive_until(b"\r\n")
        with pytest.raises(EOFError, match="9 bytes"):
            await server.receive_exactly(9)


async def test_receive_all_raises_on_a_reset(autojump_clock: MockClock) -> None:
    async with SimNet() as net, net.upstream(ADDRESS) as upstream:
        client = await net.connect(ADDRESS)
        await client.send(b"half")
        client.abort()
        with pytest.raises(ConnectionResetError):
            await (await upstream.accept()).receive_all()


async def test_serve_runs_a_handler_for_each_connection(autojump_clock: MockClock) -> None:
    async def shout(peer: Peer) -> None:
        while True:
            line = await peer.receive_until(b"\n")
            await peer.send(line.upper())

    async with SimNet() as net, trio.open_nursery() as nursery:
        listener = await net.serve("10.0.0.1:0", shout, nursery)
        async with (
            await net.connect(listener.address) as one,
            await net.connect(listener.address) as other,
        ):
            await one.send(b"one\n")
            await other.send(b"other\n")
            assert await other.receive_exactly(6) == b"OTHER\n"
            assert await one.receive_exactly(4) == b"ONE\n"
        aborted = await net.connect(listener.address)
        aborted.abort()
        await trio.sleep(1)
        assert net.open_streams == []
        nursery.cancel_scope.cancel()
    assert net.open_listeners == []


async def test_a_failing_handler_fails_the_test(autojump_clock: MockClock) -> None:
    async def disagree(peer: Peer) -> None:
        raise AssertionError("not what was expected")

    with pytest.RaisesGroup(AssertionError, flatten_subgroups=True):
        async with SimNet() as net, trio.open_nursery() as nursery:
            await net.serve(ADDRESS, disagree, nursery)
            await net.connect(ADDRESS)
            await trio.sleep(1)


# Nothing left behind


async def test_open_streams_show_what_a_debugger_wants(autojump_clock: MockClock) -> None:
    net = SimNet()
    near, far = await a_pair(net)
    assert net.open_streams == [near, far]
    near.send_nowait(b"12345")
    near.send_eof()
    assert repr(near) == (
        "<SimStream 127.0.0.1 -> 10.0.0.1:80: eof sent; 0 bytes to receive, 5 sent and not read>"
    )
    assert repr(far) == (
        "<SimStream 10.0.0.1:80 -> 127.0.0.1: eof from peer; "
        "5 bytes to receive, 0 sent and not read>"
    )
    near.close()
    assert net.open_streams == [far]
    assert "closed" in repr(near)
    assert "1 open" in repr(net)


async def test_no_task_is_left(autojump_clock: MockClock) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    async with SimNet() as net:
        near, far = await a_pair(net)
        hangups(far)
        near.close()
        await trio.sleep(1)
        assert trio.lowlevel.current_statistics().tasks_living == before + 1
    assert trio.lowlevel.current_statistics().tasks_living == before
    gc.collect()


async def test_the_failure_of_a_test_is_not_wrapped(autojump_clock: MockClock) -> None:
    with pytest.raises(AssertionError, match="mine"):
        async with SimNet():
            raise AssertionError("mine")


async def test_a_deadline_around_the_network_is_kept(autojump_clock: MockClock) -> None:
    with trio.move_on_after(5) as scope:
        async with SimNet():
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == 5


async def test_run_in_a_nursery_of_ones_own(autojump_clock: MockClock) -> None:
    net = SimNet()
    async with trio.open_nursery() as nursery:
        await nursery.start(net.run)
        near, far = await a_pair(net)
        seen = hangups(far)
        near.close()
        await trio.sleep(1)
        assert len(seen) == 1
        nursery.cancel_scope.cancel()
