"""SimNet: half-closes, closes, resets, and what is told of them."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from support.simnet_pairs import a_pair, hangups, read
from trio_proxy.testing import Peer, SimNet

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
        near.unread_bytes,
        near.send_eof,
    ]
    for operation in operations:
        with pytest.raises(OSError, match="closed") as caught:
            operation()
        assert caught.value.errno == errno.EBADF
    assert near.is_readable()  # whoever asks goes on to read, and is told
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


async def test_an_error_in_a_callback_is_not_lost(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in the log, and the stream is no more."""

    def explode(reset: bool) -> None:
        raise RuntimeError("boom")

    async with SimNet() as net:
        near, far = await a_pair(net)
        far.on_hangup = explode
        near.close()
        await trio.sleep(5)
        assert net.open_streams == []
    assert "RuntimeError: boom" in caplog.text
