"""The simulated network: every figure in virtual time, every fault as told."""

from __future__ import annotations

import errno
import gc
import math
from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_proxy.addresses import TcpAddress, UnixAddress
from trio_proxy.net.streams import Listener, Network, Stream
from trio_proxy.testing import Link, Peer, SimNet, SimStream

ADDRESS = TcpAddress("10.0.0.1", 80)


async def a_pair(net: SimNet, address: TcpAddress = ADDRESS) -> tuple[SimStream, SimStream]:
    """The dialler's and the listener's end of a connection; the listener is closed."""
    listener = await net.listen(address)
    near = await net.dial(address)
    await listener.wait_readable()
    far = listener.accept_nowait()
    assert far is not None
    listener.close()
    return near, far


def hangups(stream: SimStream) -> list[tuple[float, bool]]:
    """A list that fills with the time and the argument of each `on_hangup`."""
    seen: list[tuple[float, bool]] = []
    stream.on_hangup = lambda reset: seen.append((trio.current_time(), reset))
    return seen


async def read(stream: SimStream, limit: int = 65536) -> bytes:
    """What the stream has next, waiting for it."""
    return await Peer(stream).receive_some(limit)


# Contract


async def test_it_satisfies_the_protocols(autojump_clock: MockClock) -> None:
    """What SimNet makes can stand wherever the proxy takes a network."""
    async with SimNet() as net:
        network: Network = net
        listener: Listener = await network.listen(ADDRESS)
        stream: Stream = await network.dial(ADDRESS)
        stream.close()
        listener.close()


# Listening and dialling


async def test_port_zero_gives_the_same_free_ports_each_time(autojump_clock: MockClock) -> None:
    net = SimNet()
    first = await net.listen("10.0.0.1:0")
    second = await net.listen("10.0.0.1:0")
    assert [str(first.address), str(second.address)] == ["10.0.0.1:49152", "10.0.0.1:49153"]


async def test_a_taken_address_is_refused_until_its_listener_closes(
    autojump_clock: MockClock,
) -> None:
    net = SimNet()
    listener = await net.listen(ADDRESS)
    for taken in ("10.0.0.1:80", "0.0.0.0:80"):
        with pytest.raises(OSError, match="in use") as caught:
            await net.listen(taken)
        assert caught.value.errno == errno.EADDRINUSE
    listener.close()
    listener.close()
    await net.listen(ADDRESS)


async def test_a_wildcard_listener_takes_every_host(autojump_clock: MockClock) -> None:
    net = SimNet()
    listener = await net.listen("0.0.0.0:80")
    await net.dial("127.0.0.1:80")
    assert listener.accept_nowait() is not None


async def test_a_dial_takes_one_round_trip_and_the_accept_one_way_more(
    autojump_clock: MockClock,
) -> None:
    net = SimNet(latency=0.25)
    listener = await net.listen(ADDRESS)
    near = await net.dial(ADDRESS, source="192.0.2.7")
    assert trio.current_time() == 0.5
    assert listener.accept_nowait() is None
    await listener.wait_readable()
    assert trio.current_time() == 0.75
    far = listener.accept_nowait()
    assert far is not None
    assert (near.peer, far.peer) == ("10.0.0.1", "192.0.2.7")


async def test_unix_addresses(autojump_clock: MockClock) -> None:
    """A unix peer has no IP address."""
    net = SimNet()
    listener = await net.listen(UnixAddress("/run/app.sock"))
    near = await net.dial("unix:/run/app.sock")
    far = listener.accept_nowait()
    assert far is not None
    assert (near.peer, far.peer) == ("unix:", "unix:")


async def test_nobody_listening_refuses_after_a_round_trip(autojump_clock: MockClock) -> None:
    net = SimNet(latency=0.25)
    with pytest.raises(ConnectionRefusedError):
        await net.dial(ADDRESS)
    assert trio.current_time() == 0.5


async def test_a_listener_that_closes_during_the_handshake_refuses(
    autojump_clock: MockClock,
) -> None:
    net = SimNet(latency=1)
    listener = await net.listen(ADDRESS)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def close_after_the_syn() -> None:
            await trio.sleep(1.5)
            listener.close()

        with pytest.raises(ConnectionRefusedError):
            await net.dial(ADDRESS)
    assert net.open_streams == []


async def test_a_full_backlog_leaves_the_dialler_waiting(autojump_clock: MockClock) -> None:
    net = SimNet()
    listener = await net.listen(ADDRESS, backlog=2)
    await net.dial(ADDRESS)
    await net.dial(ADDRESS)
    connected_at = math.inf

    async def dial_third() -> None:
        nonlocal connected_at
        await net.dial(ADDRESS)
        connected_at = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial_third)
        await trio.sleep(7)
        assert (connected_at, listener.waiting) == (math.inf, 2)
        assert listener.accept_nowait() is not None
    assert connected_at == 7


async def test_dials_that_wait_for_room_are_refused_when_the_listener_closes(
    autojump_clock: MockClock,
) -> None:
    """And those in the backlog are reset."""
    net = SimNet()
    listener = await net.listen(ADDRESS, backlog=1)
    near = await net.dial(ADDRESS)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def close() -> None:
            await trio.sleep(1)
            listener.close()

        with pytest.raises(ConnectionRefusedError):
            await net.dial(ADDRESS)
    with pytest.raises(ConnectionResetError):
        near.receive_nowait(1)


@pytest.mark.parametrize("seconds", [0.5, 1.5, 5.0], ids=["syn", "syn-ack", "backlog"])
async def test_a_cancelled_dial_leaves_nothing_behind(
    seconds: float, autojump_clock: MockClock
) -> None:
    net = SimNet(latency=1)
    listener = await net.listen(ADDRESS, backlog=1)
    if seconds > 2:
        await net.dial(ADDRESS)
    before = net.open_streams
    with trio.move_on_after(seconds) as scope:
        await net.dial(ADDRESS)
    assert scope.cancelled_caught
    assert net.open_streams == before
    assert listener.waiting == len(before) / 2


async def test_a_place_given_up_goes_to_the_next_dialler(autojump_clock: MockClock) -> None:
    """The first dial is cancelled in its handshake while the second waits for its place."""
    net = SimNet(latency=1)
    await net.listen(ADDRESS, backlog=1)

    async def give_up() -> None:
        with trio.move_on_after(1.5):
            await net.dial(ADDRESS)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up)
        await trio.sleep(0.1)
        await net.dial(ADDRESS)
    assert trio.current_time() == 2.5


async def test_the_wait_of_a_listener_ends_with_it(autojump_clock: MockClock) -> None:
    net = SimNet()
    listener = await net.listen(ADDRESS)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.wait_readable()

        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await listener.wait_readable()
        listener.close()
    with pytest.raises(trio.ClosedResourceError):
        listener.accept_nowait()


# Faults of an address


async def test_refuse_and_heal(autojump_clock: MockClock) -> None:
    net = SimNet()
    await net.listen(ADDRESS)
    net.refuse(ADDRESS)
    with pytest.raises(ConnectionRefusedError):
        await net.dial(ADDRESS)
    net.refuse(ADDRESS, errno.EHOSTUNREACH)
    with pytest.raises(OSError, match="No route") as caught:
        await net.dial(ADDRESS)
    assert caught.value.errno == errno.EHOSTUNREACH
    net.heal(ADDRESS)
    await net.dial(ADDRESS)


async def test_a_black_hole_swallows_dials_until_healed(autojump_clock: MockClock) -> None:
    net = SimNet()
    await net.listen(ADDRESS)
    net.blackhole(ADDRESS)
    with trio.move_on_after(1e6) as scope:
        await net.dial(ADDRESS)
    assert scope.cancelled_caught
    assert net.open_streams == []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(net.dial, ADDRESS)
        await trio.sleep(3)
        assert net.open_streams == []
        net.heal(ADDRESS)
    assert len(net.open_streams) == 2


async def test_accept_fails_so_many_times_and_loses_no_connection(
    autojump_clock: MockClock,
) -> None:
    net = SimNet()
    listener = await net.listen(ADDRESS)
    net.fail_accept(ADDRESS, errno.EMFILE, times=2)
    assert listener.accept_nowait() is None
    await net.dial(ADDRESS)
    for _ in range(2):
        await listener.wait_readable()
        with pytest.raises(OSError, match="files") as caught:
            listener.accept_nowait()
        assert caught.value.errno == errno.EMFILE
    assert listener.accept_nowait() is not None


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


# Half-close and close


async def test_half_close_leaves_the_other_direction_open(autojump_clock: MockClock) -> None:
    net = SimNet(latency=1)
    near, far = await a_pair(net)
    near.send_nowait(b"question")
    near.send_eof()
    near.send_eof()
    with pytest.raises(BrokenPipeError):
        near.send_nowait(b"more")
    await near.wait_writable()
    assert await Peer(far).receive_all() == b"question"
    far.send_nowait(b"answer")
    assert await read(near) == b"answer"


async def test_close_sends_a_fin_behind_the_data(autojump_clock: MockClock) -> None:
    net = SimNet(latency=1, bandwidth=10)
    near, far = await a_pair(net)
    start = trio.current_time()
    near.send_nowait(b"x" * 20)
    near.close()
    near.close()
    assert await Peer(far).receive_all() == b"x" * 20
    assert trio.current_time() - start == pytest.approx(3)
    assert far.receive_nowait(1) == b""


async def test_close_with_unread_bytes_resets(autojump_clock: MockClock) -> None:
    """Even what was sent before is lost: the reset of a hasty 413."""
    net = SimNet(latency=1)
    near, far = await a_pair(net)
    near.send_nowait(b"body")
    await far.wait_readable()
    far.send_nowait(b"413")
    await trio.sleep(0.5)
    far.close()
    await trio.sleep(0.75)
    assert near.unread_bytes() == 3
    await trio.sleep(0.25)
    with pytest.raises(ConnectionResetError) as caught:
        near.receive_nowait(10)
    assert caught.value.errno == errno.ECONNRESET
    assert near.unread_bytes() == 0
    assert near.is_readable()


async def test_bytes_for_a_closed_peer_come_back_as_a_reset(autojump_clock: MockClock) -> None:
    net = SimNet(latency=1, buffer=100)
    near, far = await a_pair(net)
    far.close()
    assert await read(near) == b""
    start = trio.current_time()
    assert near.send_nowait(b"x" * 1000) == 100, "no more than the buffer until the reset comes"
    assert near.send_nowait(b"x") == 0
    await near.wait_writable()
    assert trio.current_time() - start == 2
    with pytest.raises(BrokenPipeError):
        near.send_nowait(b"x")
    with pytest.raises(ConnectionResetError):
        near.receive_nowait(10)
    with pytest.raises(OSError, match="not connected") as caught:
        near.send_eof()
    assert caught.value.errno == errno.ENOTCONN


async def test_bytes_in_flight_when_the_peer_closes_come_back_as_a_reset(
    autojump_clock: MockClock,
) -> None:
    net = SimNet(latency=1)
    near, far = await a_pair(net)
    start = trio.current_time()
    near.send_nowait(b"x")
    far.close()
    assert await read(near) == b""
    assert trio.current_time() - start == 1
    await trio.sleep(1)
    with pytest.raises(ConnectionResetError):
        near.receive_nowait(10)


async def test_abort_resets_after_the_latency_and_drops_unread_bytes(
    autojump_clock: MockClock,
) -> None:
    net = SimNet(latency=1)
    near, far = await a_pair(net)
    near.send_nowait(b"half of it")
    await far.wait_readable()
    near.abort()
    near.abort()
    assert far.unread_bytes() == 10
    await trio.sleep(1)
    with pytest.raises(ConnectionResetError):
        far.receive_nowait(100)
    with pytest.raises(ConnectionResetError):
        far.send_nowait(b"x")


@pytest.mark.parametrize("fault", ["abort", "cut"])
async def test_a_reset_wakes_a_sender_that_waits_for_room(
    fault: str, autojump_clock: MockClock
) -> None:
    net = SimNet(latency=1, buffer=10)
    near, far = await a_pair(net)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            with pytest.raises(ConnectionResetError):
                await Peer(near).send(b"x" * 100)

        await trio.sleep(5)
        if fault == "abort":
            far.abort()
        else:
            near.cut_after(0)
    assert trio.current_time() - start == 6


async def test_abort_with_unread_bytes_still_takes_the_latency(autojump_clock: MockClock) -> None:
    net = SimNet(latency=1)
    near, far = await a_pair(net)
    near.send_nowait(b"unread")
    await trio.sleep(5)
    far.abort()
    start = trio.current_time()
    with pytest.raises(ConnectionResetError):
        await read(near)
    assert trio.current_time() - start == 1


async def test_after_close_waits_and_operations_fail(autojump_clock: MockClock) -> None:
    net = SimNet(buffer=1)
    near, _ = await a_pair(net)
    near.send_nowait(b"x")
    async with trio.open_nursery() as nursery:
        for wait in (near.wait_readable, near.wait_writable):

            @nursery.start_soon
            async def expect(wait: Callable[[], Awaitable[None]] = wait) -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await wait()

        await wait_all_tasks_blocked()
        near.close()
    operations: list[Callable[[], object]] = [
        lambda: near.receive_nowait(1),
        lambda: near.receive_into_nowait(memoryview(bytearray(1))),
        lambda: near.send_nowait(b"x"),
        near.is_readable,
        near.unread_bytes,
        near.send_eof,
    ]
    for operation in operations:
        with pytest.raises(OSError, match="closed") as caught:
            operation()
        assert caught.value.errno == errno.EBADF
    for wait in (near.wait_readable, near.wait_writable):
        with pytest.raises(trio.ClosedResourceError):
            await wait()


# Hangups


async def test_a_fin_is_reported_when_it_arrives_though_nobody_looks(
    autojump_clock: MockClock,
) -> None:
    async with SimNet(latency=1) as net:
        near, far = await a_pair(net)
        seen = hangups(far)
        start = trio.current_time()
        near.send_eof()
        await trio.sleep(10)
        assert seen == [(start + 1, False)]


async def test_a_fin_is_reported_with_unread_bytes_in_front(autojump_clock: MockClock) -> None:
    async with SimNet(latency=1, bandwidth=10) as net:
        near, far = await a_pair(net)
        seen = hangups(far)
        start = trio.current_time()
        near.send_nowait(b"x" * 20)
        near.close()
        await trio.sleep(10)
        assert far.unread_bytes() == 20
        [(at, reset)] = seen
        assert at == pytest.approx(start + 3)
        assert not reset


async def test_a_reset_is_reported_as_one(autojump_clock: MockClock) -> None:
    async with SimNet(latency=1) as net:
        near, far = await a_pair(net)
        seen = hangups(far)
        start = trio.current_time()
        near.abort()
        await trio.sleep(10)
        assert seen == [(start + 1, True)]


async def test_a_fin_and_then_a_reset_are_two_hangups(autojump_clock: MockClock) -> None:
    async with SimNet(latency=1) as net:
        near, far = await a_pair(net)
        seen = hangups(far)
        start = trio.current_time()
        near.close()
        await trio.sleep(5)
        far.send_nowait(b"anybody there?")
        await trio.sleep(5)
        assert seen == [(start + 1, False), (start + 7, True)]


async def test_a_connection_that_both_sides_ended_was_not_reset(autojump_clock: MockClock) -> None:
    async with SimNet(latency=1) as net:
        near, far = await a_pair(net)
        seen = hangups(far)
        start = trio.current_time()
        near.send_eof()
        await trio.sleep(5)
        far.send_eof()
        await trio.sleep(5)
        assert seen == [(start + 1, False)]


async def test_a_callback_that_comes_late_is_told_what_it_missed(autojump_clock: MockClock) -> None:
    async with SimNet() as net:
        near, far = await a_pair(net)
        near.send_eof()
        await trio.sleep(5)
        seen = hangups(far)
        await trio.sleep(1)
        assert [reset for _, reset in seen] == [False]


async def test_own_close_is_no_hangup(autojump_clock: MockClock) -> None:
    async with SimNet(latency=1) as net:
        near, far = await a_pair(net)
        seen = hangups(far)
        near.abort()
        far.close()
        await trio.sleep(5)
        assert seen == []


async def test_a_callback_may_close_its_stream(autojump_clock: MockClock) -> None:
    async with SimNet() as net:
        near, far = await a_pair(net)
        far.on_hangup = lambda reset: far.abort()
        far.send_eof()
        near.close()
        await trio.sleep(1)
        assert net.open_streams == []


async def test_an_error_in_a_callback_is_not_lost(autojump_clock: MockClock) -> None:
    def explode(reset: bool) -> None:
        raise RuntimeError("boom")

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="boom")):
        async with SimNet() as net:
            near, far = await a_pair(net)
            far.on_hangup = explode
            near.close()
            await trio.sleep(5)


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


# Determinism


def trace(seed: int, **link: object) -> list[tuple[float, str, bytes]]:
    """When two clients that send at the same time were heard, and in which pieces."""
    heard: list[tuple[float, str, bytes]] = []

    async def talk(net: SimNet, name: str) -> None:
        async with await net.connect(ADDRESS, source=name) as client:
            await client.send(bytes(range(256)) * 8)

    async def listen(peer: Peer) -> None:
        while data := await peer.receive_some():
            heard.append((trio.current_time(), peer.stream.peer, data))

    async def main() -> None:
        async with SimNet(seed=seed, **link) as net, trio.open_nursery() as nursery:  # type: ignore[arg-type]
            await net.serve(ADDRESS, listen, nursery)
            async with trio.open_nursery() as clients:
                for n in range(4):
                    clients.start_soon(talk, net, f"192.0.2.{n}")
            await trio.sleep(1000)
            nursery.cancel_scope.cancel()
            assert net.open_streams == []

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return heard


# These start event loops of their own, so they cannot be async.
@pytest.mark.parametrize("link", [{"fragment": True}, {"jitter": 1.0, "bandwidth": 100.0}, {}])
def test_the_same_seed_gives_the_same_trace(link: dict[str, object]) -> None:
    first = trace(1, **link)
    assert trace(1, **link) == first
    if link:
        assert trace(2, **link) != first


def test_the_seed_decides_the_order_of_tasks() -> None:
    """Without jitter too: which of four clients is heard first differs between seeds."""
    firsts = {trace(seed)[0][1] for seed in range(12)}
    assert len(firsts) > 1


# Integrity


@settings(deadline=None, max_examples=60)
@given(
    sends=st.lists(st.binary(min_size=1, max_size=3000), max_size=12),
    limits=st.lists(st.integers(1, 2000), min_size=1, max_size=5),
    pauses=st.lists(st.sampled_from([0.0, 0.0, 0.01, 3.0]), min_size=1, max_size=5),
    link=st.builds(
        dict,
        seed=st.integers(0, 1000),
        latency=st.sampled_from([0.0, 0.1, 1 / 3]),
        bandwidth=st.sampled_from([math.inf, 777.0, 1e6]),
        buffer=st.sampled_from([1, 10, 1000, 65536]),
        jitter=st.sampled_from([0.0, 0.5]),
        fragment=st.booleans(),
    ),
)
def test_exactly_the_bytes_sent_arrive_in_order(
    sends: list[bytes], limits: list[int], pauses: list[float], link: dict[str, object]
) -> None:
    """Whatever the link does, and never are there more bytes in the pipe than fit."""
    received = bytearray()

    async def main() -> None:
        async with SimNet(**link) as net:  # type: ignore[arg-type]
            near, far = await a_pair(net)

            async def send() -> None:
                for n, data in enumerate(sends):
                    await trio.sleep(pauses[n % len(pauses)])
                    await Peer(near).send(data)
                near.close()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                n = 0
                while data := await read(far, limits[n % len(limits)]):
                    assert far.unread_bytes() <= net.default_link.buffer
                    received.extend(data)
                    n += 1
                    if n < 20:
                        await trio.sleep(pauses[n % len(pauses)])
            far.close()
            assert net.open_streams == []

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert bytes(received) == b"".join(sends)


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
