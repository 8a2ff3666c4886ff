"""How departures are noticed where there is no epoll: `SweepingPeerWatch` on real sockets."""

from __future__ import annotations

import contextlib
import gc
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio

from support.processes import DEADLINE
from support.rawhttp import RawClient, Where, connect, get, request
from support.upstreams import ScriptedUpstream, UpstreamConnection
from trio_proxy import Proxy, Settings, TcpAddress, UpstreamSettings, open_proxy
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.errors import Reason
from trio_proxy.net.dial import SocketNetwork
from trio_proxy.net.epoll import SWEEP_SECONDS, SweepingPeerWatch

SEVERAL_SWEEPS = 2.5 * SWEEP_SECONDS


@contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection; the first one does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    with near, far:
        near.setblocking(False)
        yield near, far


@contextmanager
def unix_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        yield near, far


Pair = Callable[[], AbstractContextManager[tuple[socket.socket, socket.socket]]]
PAIRS = pytest.mark.parametrize("pair", [tcp_pair, unix_pair])


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@asynccontextmanager
async def sweeping() -> AsyncIterator[SweepingPeerWatch]:
    """A watch that runs."""
    watch = SweepingPeerWatch()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        yield watch
        nursery.cancel_scope.cancel()
    watch.close()


async def until_told(calls: list[Any], count: int = 1) -> None:
    """Wait for so many calls, and for another one that must not come."""
    with trio.fail_after(DEADLINE):
        while len(calls) < count:  # noqa: ASYNC110
            await trio.sleep(SWEEP_SECONDS)
    await trio.sleep(SEVERAL_SWEEPS)


@PAIRS
async def test_a_fin_is_told_once(pair: Pair) -> None:
    """And the bytes that come before it can still be read."""
    calls: list[bool] = []
    async with sweeping() as watch:
        with pair() as (near, far):
            watch.add(near, calls.append)
            await trio.sleep(SEVERAL_SWEEPS)
            assert calls == []
            far.shutdown(socket.SHUT_WR)
            await until_told(calls)
            assert calls == [False]
            assert near.recv(10) == b""
            near.send(b"an answer")
            assert far.recv(10) == b"an answer"
            watch.remove(near)


@PAIRS
async def test_a_fin_behind_bytes_is_told_when_they_have_been_read(pair: Pair) -> None:
    """Looking takes none of them away."""
    calls: list[bool] = []
    async with sweeping() as watch:
        with pair() as (near, far):
            watch.add(near, calls.append)
            far.sendall(b"a request")
            far.shutdown(socket.SHUT_WR)
            await trio.sleep(SEVERAL_SWEEPS)
            assert calls == []
            assert near.recv(100) == b"a request"
            await until_told(calls)
            assert calls == [False]
            watch.remove(near)


async def test_a_reset_is_told_once() -> None:
    calls: list[bool] = []
    async with sweeping() as watch:
        with tcp_pair() as (near, far):
            watch.add(near, calls.append)
            reset(far)
            await until_told(calls)
            assert calls == [True]
            watch.remove(near)


async def test_what_was_removed_is_told_nothing() -> None:
    """Before its end, or by another one's callback in the same sweep, or twice."""
    calls: list[str] = []

    def told(name: str, other: socket.socket) -> Callable[[bool], None]:
        def callback(reset: bool) -> None:
            calls.append(name)
            watch.remove(other)

        return callback

    async with sweeping() as watch:
        with tcp_pair() as (one, far_one), tcp_pair() as (two, far_two):
            watch.add(one, told("one", two))
            watch.remove(one)
            watch.remove(one)
            far_one.close()
            await trio.sleep(SEVERAL_SWEEPS)
            assert calls == []
            # Whichever is looked at first takes the other one away.
            watch.add(one, told("one", two))
            watch.add(two, told("two", one))
            far_two.close()
            await until_told(calls)
            assert calls == ["one"]
            watch.remove(one)


async def test_a_callback_may_take_its_own_socket_away() -> None:
    """As a connection does that closes itself then."""
    calls: list[bool] = []
    async with sweeping() as watch:
        with tcp_pair() as (near, far), tcp_pair() as (other, far_other):

            def callback(reset: bool) -> None:
                calls.append(reset)
                watch.remove(near)
                near.close()

            watch.add(near, callback)
            watch.add(other, calls.append)
            reset(far)
            far_other.close()
            await until_told(calls, 2)
            assert sorted(calls) == [False, True]
            watch.remove(other)


# The whole proxy on it


class Held:
    """An upstream's handler that answers ``/ok``, and else waits for the end."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.ended = threading.Event()

    def __call__(self, connection: UpstreamConnection) -> None:
        while connection.read_request().target == "/ok":
            connection.answer()
        self.arrived.set()
        connection.wait_for_end()
        self.ended.set()


@asynccontextmanager
async def sweeping_proxy(port: int, exchanges: list[Exchange]) -> AsyncIterator[Proxy]:
    network = SocketNetwork(SweepingPeerWatch())
    settings = Settings(
        listen=(TcpAddress("127.0.0.1", 0),),
        upstreams=(UpstreamSettings(host="127.0.0.1", port=port),),
    )
    with contextlib.closing(network), trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.run)
            async with open_proxy(settings, network=network, on_exchange=exchanges.append) as proxy:
                yield proxy
            nursery.cancel_scope.cancel()
    gc.collect()


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_leaves_cancels_the_upstreams_work(how: str) -> None:
    """At one of the next sweeps, far from any deadline; other clients are served meanwhile."""
    held, exchanges = Held(), list[Exchange]()
    with ScriptedUpstream(held) as upstream:
        async with sweeping_proxy(upstream.port, exchanges) as proxy:
            assert isinstance(proxy.address, TcpAddress)
            where = (proxy.address.host, proxy.address.port)
            with await trio.to_thread.run_sync(connect, where) as client:
                client.sendall(request("GET", "/held"))
                assert await trio.to_thread.run_sync(held.arrived.wait, DEADLINE)
                await trio.sleep(SWEEP_SECONDS)
                assert not held.ended.is_set()
                assert (await trio.to_thread.run_sync(get, where, "/ok")).status == 200
                left_at = trio.current_time()
                client.close() if how == "close" else reset(client)
            assert await trio.to_thread.run_sync(held.ended.wait, DEADLINE)
            assert trio.current_time() - left_at < DEADLINE / 2
    failed = [exchange.error for exchange in exchanges if exchange.error is not None]
    assert [error.reason for error in failed] == [Reason.CLIENT_GONE]
    assert failed[0].detail == ("closed" if how == "close" else "reset")


async def test_a_client_that_half_closes_gets_its_answer() -> None:
    """Its FIN comes with the request, though the sweep comes upon it later."""

    def handler(connection: UpstreamConnection) -> None:
        connection.read_request()
        time.sleep(4 * SWEEP_SECONDS)
        connection.answer(b"late")

    def half_closing(where: Where) -> bytes:
        with RawClient(where) as client:
            client.send(request("GET", "/"))
            client.half_close()
            return client.read_response().body

    with ScriptedUpstream(handler) as upstream:
        async with sweeping_proxy(upstream.port, []) as proxy:
            assert isinstance(proxy.address, TcpAddress)
            where = (proxy.address.host, proxy.address.port)
            assert await trio.to_thread.run_sync(half_closing, where) == b"late"
