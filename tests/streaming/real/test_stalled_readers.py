"""Clients that ask for much and read nothing: what they cost, on real sockets."""

from __future__ import annotations

import contextlib
import gc
import socket
import tracemalloc
from pathlib import Path

import pytest
import trio

from support.processes import DEADLINE
from trio_proxy import Limits, Settings, TcpAddress, UpstreamSettings, open_proxy
from trio_proxy.exchange.streams import MAX_PIECE_BYTES, PIECE_BYTES, Stream, note_piece
from trio_proxy.http.addresses import Address, UnixAddress
from trio_proxy.net.dial import SocketNetwork

MIB = 1024 * 1024
CLIENTS = 40
BODY = bytes(MIB)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

#: What each may cost beyond the kernel's buffers: what is left of a piece.
MOST_FOR_EACH = 64 * 1024


async def answer_all(stream: trio.SocketStream) -> None:
    """An upstream that sends 1 MiB for whatever comes, until the proxy leaves."""
    with contextlib.suppress(trio.BrokenResourceError):
        async for _ in stream:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY))
            await stream.send_all(BODY)


async def traced_when_all_stand_still() -> int:
    """Bytes that Python holds, once nothing has changed for a while."""
    before = -1
    with trio.fail_after(DEADLINE):
        while True:
            await trio.sleep(0.3)
            gc.collect()
            now = tracemalloc.get_traced_memory()[0]
            if abs(now - before) < 4096:
                return now
            before = now


@pytest.mark.parametrize("receive_buffer", [4096, MIB])
async def test_a_client_that_stalls_costs_a_small_piece_at_most(receive_buffer: int) -> None:
    """Whether its own buffers take little of the eight answers, or one and a part of the next."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer_all, listeners)
        upstream = UpstreamSettings(
            host="127.0.0.1", port=listeners[0].socket.getsockname()[1], max_conns=CLIENTS
        )
        settings = Settings(
            listen=(TcpAddress("127.0.0.1", 0),),
            upstreams=(upstream,),
            limits=Limits(max_client_conns=CLIENTS + 1),
        )
        async with open_proxy(settings, on_exchange=lambda exchange: None) as proxy:
            assert isinstance(proxy.address, TcpAddress)
            with contextlib.ExitStack() as stack:
                tracemalloc.start()
                stack.callback(tracemalloc.stop)
                before = await traced_when_all_stand_still()
                for _ in range(CLIENTS):
                    client = stack.enter_context(socket.socket())
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
                    client.connect((proxy.address.host, proxy.address.port))
                    client.sendall(8 * GET)
                growth = await traced_when_all_stand_still() - before
                assert proxy.stats.requests_in_flight == CLIENTS
        nursery.cancel_scope.cancel()
    assert growth / CLIENTS < MOST_FOR_EACH


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_what_a_socket_has_room_for(kind: str, unix_path: Path) -> None:
    """It is told beforehand, so that of a large piece hardly anything is left."""
    address: Address = TcpAddress("127.0.0.1", 0)
    if kind == "unix":
        address = UnixAddress(str(unix_path))
    with contextlib.closing(SocketNetwork()) as network:
        listener = await network.listen(address)
        far: Stream = await network.dial(listener.address)
        near = listener.accept_nowait()
        assert near is not None
        listener.close()
        assert near.room_bytes() > PIECE_BYTES
        sizes, sent = [], -1
        while not sizes or sent == sizes[-1]:
            sizes.append(near.piece_bytes)
            sent = near.send_nowait(bytes(sizes[-1]))
            note_piece(near, sizes[-1], sent)
        assert max(sizes) > PIECE_BYTES
        assert max(sizes) <= MAX_PIECE_BYTES
        assert sizes[-1] - sent <= PIECE_BYTES
        assert near.piece_bytes < PIECE_BYTES
        assert near.room_bytes() < PIECE_BYTES
        near.close()
        far.close()
        assert near.room_bytes() == 0
