"""SimNet: listening, dialling, and the faults of an address."""

from __future__ import annotations

import errno
import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from support.simnet_pairs import ADDRESS
from trio_proxy.exchange.streams import Stream
from trio_proxy.http.addresses import UnixAddress
from trio_proxy.net.network import Listener, Network
from trio_proxy.testing import SimNet

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
