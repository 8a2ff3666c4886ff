"""A hang-up callback that raises, on real sockets: whatever watches them goes on watching."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from support.processes import DEADLINE
from trio_proxy.exchange.streams import Stream
from trio_proxy.http.addresses import TcpAddress
from trio_proxy.net.dial import SocketNetwork
from trio_proxy.net.epoll import EpollPeerWatch, PeerWatch, SweepingPeerWatch

Connect = Callable[[], Awaitable[tuple[Stream, Stream]]]

WATCHES = pytest.mark.parametrize("new_watch", [EpollPeerWatch, SweepingPeerWatch])


def explode(_: object) -> None:
    raise ZeroDivisionError("a bug in a callback")


def only_fault(records: list[logging.LogRecord]) -> str:
    """The one error in the log, which has to have come with the traceback of `explode`."""
    (record,) = [record for record in records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    return f"{record.name}: {record.getMessage()}"


@asynccontextmanager
async def connecting(watch: PeerWatch) -> AsyncIterator[Connect]:
    """Makes connections: both ends of each."""
    network = SocketNetwork(watch)
    with contextlib.closing(network), contextlib.ExitStack() as stack, trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.run)
            listener = await network.listen(TcpAddress("127.0.0.1", 0))
            stack.callback(listener.close)

            async def connect() -> tuple[Stream, Stream]:
                far = await network.dial(listener.address)
                stack.callback(far.close)
                await listener.wait_readable()
                near = listener.accept_nowait()
                assert near is not None
                stack.callback(near.close)
                return near, far

            yield connect
            nursery.cancel_scope.cancel()


async def until(is_true: Callable[[], bool]) -> None:
    while not is_true():  # noqa: ASYNC110
        await trio.sleep(0.01)


@WATCHES
async def test_a_stream_whose_callback_fails_is_aborted_and_others_are_told(
    new_watch: Callable[[], PeerWatch], caplog: pytest.LogCaptureFixture
) -> None:
    """Of what happens in the same moment, and of what happens later."""
    async with connecting(new_watch()) as connect:
        near, far = await connect()
        others = [await connect() for _ in range(3)]
        near.on_hangup = explode
        told: list[bool] = []
        for other_near, _ in others:
            other_near.on_hangup = told.append
        for end in (others[0][1], far, others[1][1]):
            end.send_eof()
        await far.wait_readable()
        with pytest.raises(ConnectionResetError):
            far.receive_nowait(1)
        with pytest.raises(trio.ClosedResourceError):
            await near.wait_readable()
        await until(lambda: len(told) == 2)
        others[2][1].send_eof()
        await until(lambda: len(told) == 3)
        assert told == [False] * 3
    assert only_fault(caplog.records) == "trio_proxy.net: internal error as 127.0.0.1 hung up"


async def test_a_callback_that_fails_over_what_it_missed(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever sets it late gets no exception for it, but a stream that is closed."""
    async with connecting(EpollPeerWatch()) as connect:
        near, far = await connect()
        far.send_eof()
        await near.wait_readable()
        near.on_hangup = explode
        with pytest.raises(trio.ClosedResourceError):
            await near.wait_readable()
    assert only_fault(caplog.records) == "trio_proxy.net: internal error as 127.0.0.1 hung up"


@WATCHES
async def test_a_watch_goes_on_whatever_is_called(
    new_watch: Callable[[], PeerWatch], caplog: pytest.LogCaptureFixture
) -> None:
    """Also for callbacks that are no stream's."""
    watch = new_watch()
    told: list[bool] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        pairs = [socket.socketpair() for _ in range(2)]
        for (near, far), callback in zip(pairs, (explode, told.append), strict=True):
            near.setblocking(False)
            watch.add(near, callback)
            far.close()
        with trio.fail_after(DEADLINE):
            await until(lambda: bool(told) and bool(caplog.records))
        nursery.cancel_scope.cancel()
    for near, _ in pairs:
        watch.remove(near)
        near.close()
    watch.close()
    what = "internal error in telling what happened to a socket"
    assert only_fault(caplog.records) == f"trio_proxy.net: {what}"


async def test_a_closed_stream_is_readable() -> None:
    """So whoever asks before using it finds out, as with any other end."""
    async with connecting(EpollPeerWatch()) as connect:
        near, _ = await connect()
        assert not near.is_readable()
        near.close()
        assert near.is_readable()
