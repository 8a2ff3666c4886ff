"""SimNet: latency, bandwidth and bounded buffers, to the figure."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from support.simnet_pairs import ADDRESS, a_pair, read
from trio_proxy.testing import Link, Peer, SimNet

# Time


async def test_latency_is_exact(autojump_clock: MockClock) -> None:
    net = SimNet(latency=0.25)
    near, far = await a_pair(net)
    start = trio.current_time()
    near.send_nowait(b"hello")
    assert not far.is_readable()
    assert far.receive_nowait(10) is None
    await far.wait_readable()
    assert trio.current_time() - start == 0.25
    assert far.unread_bytes() == 5
    assert far.receive_nowait(10) == b"hello"


async def test_a_link_is_set_by_address(autojump_clock: MockClock) -> None:
    net = SimNet(latency=1)
    assert net.link(ADDRESS, latency=2, buffer=10) == Link(latency=2, buffer=10)
    assert net.link(ADDRESS, latency=3) == Link(latency=3, buffer=10)
    await net.listen(ADDRESS)
    await net.dial(ADDRESS)
    assert trio.current_time() == 6


async def test_bandwidth_is_exact_and_shared_by_what_is_sent_together(
    autojump_clock: MockClock,
) -> None:
    """3000 bytes at 1000 B/s take 3 s, whether sent at once or not."""
    net = SimNet(latency=0.5, bandwidth=1000)
    near, far = await a_pair(net)
    start = trio.current_time()
    near.send_nowait(b"a" * 1000)
    near.send_nowait(b"b" * 2000)
    assert await Peer(far).receive_exactly(1000) == b"a" * 1000
    assert trio.current_time() - start == pytest.approx(1.5)
    assert await Peer(far).receive_exactly(2000) == b"b" * 2000
    assert trio.current_time() - start == pytest.approx(3.5)


async def test_a_slow_link_trickles(autojump_clock: MockClock) -> None:
    """Half of the bytes are there after half of the time."""
    net = SimNet(bandwidth=100)
    near, far = await a_pair(net)
    near.send_nowait(b"x" * 1000)
    await trio.sleep(5.001)
    assert far.unread_bytes() == 500


async def test_jitter_keeps_the_order_and_its_bound(autojump_clock: MockClock) -> None:
    net = SimNet(latency=1, jitter=2)
    near, far = await a_pair(net)
    start = trio.current_time()
    for n in range(50):
        near.send_nowait(bytes([n]))
    await far.wait_readable()
    assert trio.current_time() - start > 1
    assert await Peer(far).receive_exactly(50) == bytes(range(50))
    assert 2 < trio.current_time() - start <= 3


# Backpressure


async def test_a_sender_to_nobody_stops_at_the_buffer(autojump_clock: MockClock) -> None:
    net = SimNet(buffer=1000)
    near, far = await a_pair(net)
    assert near.send_nowait(b"x" * 5000) == 1000
    assert near.send_nowait(b"x") == 0
    with trio.move_on_after(1e6) as scope:
        await near.wait_writable()
    assert scope.cancelled_caught
    assert far.receive_nowait(300) == b"x" * 300
    await near.wait_writable()
    assert near.send_nowait(b"y" * 5000) == 300


async def test_bytes_in_flight_count_against_the_buffer(autojump_clock: MockClock) -> None:
    net = SimNet(buffer=10, latency=60)
    near, _ = await a_pair(net)
    assert near.send_nowait(b"x" * 8) == 8
    assert near.send_nowait(b"x" * 8) == 2


async def test_a_waiting_sender_is_woken_by_the_reader(autojump_clock: MockClock) -> None:
    net = SimNet(buffer=100)
    near, far = await a_pair(net)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Peer(near).send, b"x" * 1000)
        await trio.sleep(1)
        assert await Peer(far).receive_exactly(1000) == b"x" * 1000


async def test_receive_into_a_buffer(autojump_clock: MockClock) -> None:
    net = SimNet()
    near, far = await a_pair(net)
    buffer = bytearray(4)
    assert far.receive_into_nowait(memoryview(buffer)) is None
    near.send_nowait(memoryview(b"hello"))
    near.send_eof()
    assert far.receive_into_nowait(memoryview(buffer)) == 4
    assert bytes(buffer) == b"hell"
    assert far.receive_into_nowait(memoryview(buffer)) == 1
    assert far.receive_into_nowait(memoryview(buffer)) == 0


@pytest.mark.parametrize("wait", ["wait_readable", "wait_writable"])
async def test_one_waiter_at_a_time(wait: str, autojump_clock: MockClock) -> None:
    net = SimNet(buffer=1)
    near, _ = await a_pair(net)
    near.send_nowait(b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(getattr(near, wait))
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await getattr(near, wait)()
        nursery.cancel_scope.cancel()


# Fragments


async def test_fragments_split_reads_and_sends(autojump_clock: MockClock) -> None:
    net = SimNet(seed=4, fragment=True)
    near, far = await a_pair(net)
    data = bytes(range(256)) * 4
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Peer(near).send, data)
        pieces: list[bytes] = []
        while sum(len(piece) for piece in pieces) < len(data):
            pieces.append(await read(far))
    assert b"".join(pieces) == data
    assert len(pieces) > 3
