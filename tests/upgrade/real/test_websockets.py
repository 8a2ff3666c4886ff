"""WebSockets through the proxy: the `websockets` client, uvicorn, and a tunnel between them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from support.processes import DEADLINE
from support.proxy_process import ProxyProcess, running_proxy
from support.rawhttp import RawClient, get, request
from support.upstreams import ScriptedUpstream, UpstreamConnection

UPGRADE = ("Connection: Upgrade", "Upgrade: chat/1")


def open_websocket(proxy: ProxyProcess, path: str = "/ws") -> ClientConnection:
    """A WebSocket; a context manager."""
    url = f"ws://127.0.0.1:{proxy.port}{path}"
    return connect(url, proxy=None, open_timeout=DEADLINE, close_timeout=DEADLINE, max_size=None)


def test_text_and_binary_are_echoed(proxy: ProxyProcess) -> None:
    """Text, a megabyte of binary and an empty message come back as they went."""
    megabyte = bytes(range(256)) * 4096
    with open_websocket(proxy) as socket:
        for message in ("hello", "zwölf", megabyte, b"", ""):
            socket.send(message)
            assert socket.recv(DEADLINE) == message


def test_close_handshake(proxy: ProxyProcess) -> None:
    """Code and reason of a close travel through, and both sides see an orderly end."""
    with open_websocket(proxy) as socket:
        socket.send("one")
        assert socket.recv(DEADLINE) == "one"
        socket.close(1000, "enough")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(DEADLINE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1000
    proxy.err.wait_for('"GET /ws HTTP/1.1" 101 ')


def test_ping_is_answered_by_the_far_end(proxy: ProxyProcess) -> None:
    """A ping goes through the tunnel and its pong comes back."""
    with open_websocket(proxy) as socket:
        assert socket.ping().wait(DEADLINE)


def test_many_websockets_at_once(proxy: ProxyProcess) -> None:
    """Tunnels do not mix."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(open_websocket(proxy)) for _ in range(20)]
        for number, socket in enumerate(sockets):
            socket.send(f"from {number}")
        assert [socket.recv(DEADLINE) for socket in sockets] == [f"from {n}" for n in range(20)]


def test_refused_websocket_is_an_ordinary_response(proxy: ProxyProcess) -> None:
    """The application's refusal reaches the client as the status that it is."""
    with pytest.raises(InvalidStatus) as refused, open_websocket(proxy, "/refused"):
        pass
    assert refused.value.response.status_code == 403


def test_refused_upgrade_keeps_the_connection(proxy: ProxyProcess) -> None:
    """An upgrade that the upstream knows nothing of is an ordinary request."""
    with RawClient(proxy.where) as client:
        answer = client.get("/status/404", *UPGRADE)
        assert (answer.status, answer.body) == (404, b"status 404\n")
        assert client.get("/status/200").status == 200


def test_tunnel_passes_on_early_bytes_and_half_closes(tmp_path: Path) -> None:
    """Bytes behind the request and behind the 101 come first; each side ends on its own."""

    def handler(connection: UpstreamConnection) -> None:
        connection.read_request()
        connection.send(
            b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: chat/1\r\n\r\nearly "
        )
        heard = connection.read_to_end()
        connection.send(b"heard " + heard)

    with (
        ScriptedUpstream(handler) as upstream,
        running_proxy(tmp_path, [upstream.port]) as proxy,
        RawClient(proxy.where) as client,
    ):
        client.send(request("GET", "/", *UPGRADE) + b"at once, ")
        assert client.read_response().status == 101
        client.send(b"then more")
        client.half_close()
        assert client.read_to_end() == b"early heard at once, then more"


def test_idle_tunnel_is_ended(tmp_path: Path) -> None:
    """`tunnel_idle_ms` without a byte ends both sides."""

    def handler(connection: UpstreamConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: chat/1\r\n\r\n")
        connection.wait_for_end()

    timeouts = {"tunnel_idle_ms": 200}
    with (
        ScriptedUpstream(handler) as upstream,
        running_proxy(tmp_path, [upstream.port], timeouts=timeouts) as proxy,
    ):
        with RawClient(proxy.where) as client:
            client.send(request("GET", "/", *UPGRADE))
            assert client.read_response().status == 101
            client.wait_for_end()
        proxy.wait_until_quiet()


def test_h2c_is_not_forwarded(tmp_path: Path) -> None:
    """`Upgrade: h2c` reaches no upstream; the request does, as an ordinary one."""

    def handler(connection: UpstreamConnection) -> None:
        names = [name for name, _ in connection.read_request().headers]
        connection.answer(" ".join(names).encode())

    fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    with ScriptedUpstream(handler) as upstream, running_proxy(tmp_path, [upstream.port]) as proxy:
        answer = get(proxy.where, "/", *fields)
    assert answer.status == 200
    assert b"upgrade" not in answer.body
    assert b"http2-settings" not in answer.body
