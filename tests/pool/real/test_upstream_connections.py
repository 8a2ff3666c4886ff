"""The proxy's connections to real upstreams: reused, replaced when stale, of every kind."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from support.processes import running_uvicorn
from support.proxy_process import running_proxy
from support.rawhttp import RawClient, get, request
from support.upstreams import ScriptedUpstream, UpstreamConnection, named

RACES = 400


def test_one_connection_serves_many_requests(tmp_path: Path) -> None:
    """Requests one after the other, of one client or of several, share one connection."""
    with ScriptedUpstream() as upstream, running_proxy(tmp_path, [upstream.port]) as proxy:
        with RawClient(proxy.where) as client:
            for number in range(20):
                assert client.get(f"/{number}").status == 200
        for number in range(20):
            assert get(proxy.where, f"/{number}").status == 200
        assert upstream.connections == 1
        values = proxy.metrics()
        name = f'upstream="127.0.0.1:{upstream.port}"'
        assert values[f'proxy_upstream_connections{{pool="default",state="idle",{name}}}'] == 1
        assert values[f'proxy_upstream_requests_total{{pool="default",{name}}}'] == 40


def test_upstreams_take_turns(tmp_path: Path) -> None:
    """Two upstreams get the requests in turn."""
    with (
        ScriptedUpstream(named(b"one")) as one,
        ScriptedUpstream(named(b"two")) as two,
        running_proxy(tmp_path, [one.port, two.port]) as proxy,
        RawClient(proxy.where) as client,
    ):
        bodies = [client.get("/").body for _ in range(6)]
    assert bodies == [b"one", b"two"] * 3


class Spiteful:
    """Answers the first request of a connection and closes upon the second, each time otherwise."""

    def __init__(self) -> None:
        self.answered = 0
        self._lock = threading.Lock()

    def __call__(self, connection: UpstreamConnection) -> None:
        connection.read_request()
        connection.answer()
        with self._lock:
            self.answered += 1
            way = self.answered % 4
        if way == 1:  # at once: the end races with the next request
            return
        if way == 2:  # as the first byte arrives, leaving the rest unread: a reset
            connection.read_exactly(1)
        elif way == 3:  # after the whole request: an orderly end
            connection.read_request()
        else:  # our side only, then the request is read
            connection.half_close()
            connection.read_request()


def race(tmp_path: Path, count: int) -> None:
    """So many GETs, each of which may meet a connection that is just being closed."""
    with (
        ScriptedUpstream(Spiteful()) as upstream,
        running_proxy(tmp_path, [upstream.port]) as proxy,
    ):
        with RawClient(proxy.where) as client:
            statuses = [client.get(f"/{number}").status for number in range(count)]
        assert statuses == [200] * count
        assert proxy.metrics().get('proxy_retries_total{reason="stale"}', 0) > count / 8


def test_stale_connection_costs_a_get_nothing(tmp_path: Path) -> None:
    """An upstream that closes exactly as a request arrives: no GET sees a 502."""
    race(tmp_path, RACES)


@pytest.mark.slow
def test_stale_connection_costs_thousands_nothing(tmp_path: Path) -> None:
    """The same race, often enough to meet every interleaving."""
    race(tmp_path, 25 * RACES)


def test_post_on_a_stale_connection_is_not_sent_twice(tmp_path: Path) -> None:
    """A POST that may have been acted upon becomes a 502, and is never repeated."""

    def handler(connection: UpstreamConnection) -> None:
        while True:
            seen = connection.read_request()
            posts.append(seen.target)
            if len(posts) == 2:
                return
            connection.answer()

    posts: list[str] = []
    with (
        ScriptedUpstream(handler) as upstream,
        running_proxy(tmp_path, [upstream.port]) as proxy,
        RawClient(proxy.where) as client,
    ):
        for expected in (200, 502, 200):
            client.send(request("POST", f"/{len(posts)}", body=b"once"))
            assert client.read_response().status == expected
    assert posts == ["/0", "/1", "/2"]


def test_bytes_after_a_response_poison_nothing(tmp_path: Path) -> None:
    """A connection whose upstream said too much is not used again."""

    def handler(connection: UpstreamConnection) -> None:
        while True:
            connection.read_request()
            connection.send(_ok(b"right\n") + _ok(b"wrong\n"))

    def _ok(body: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    with (
        ScriptedUpstream(handler) as upstream,
        running_proxy(tmp_path, [upstream.port]) as proxy,
        RawClient(proxy.where) as client,
    ):
        bodies = [client.get("/").body for _ in range(20)]
    assert bodies == [b"right\n"] * 20


def test_malformed_response_is_502(tmp_path: Path) -> None:
    """What is no HTTP, or is framed twice, never reaches the client."""
    nonsense = [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    ]

    def handler(connection: UpstreamConnection) -> None:
        connection.read_request()
        connection.send(nonsense[connection.number - 1])

    with ScriptedUpstream(handler) as upstream, running_proxy(tmp_path, [upstream.port]) as proxy:
        for _ in nonsense:
            assert get(proxy.where, "/").status == 502


def test_unix_socket_upstream(tmp_path: Path, unix_path: Path) -> None:
    """uvicorn on a unix socket answers through the proxy."""
    with (
        running_uvicorn("--uds", str(unix_path)),
        running_proxy(tmp_path, [f"unix:{unix_path}"]) as proxy,
    ):
        facts = json.loads(get(proxy.where, "/over-unix").body)
    assert facts["path"] == "/over-unix"


def test_host_name_upstream(tmp_path: Path, echo_port: int) -> None:
    """A name is resolved when it is dialled, whichever address family answers there."""
    with running_proxy(tmp_path, [f"localhost:{echo_port}"]) as proxy:
        assert json.loads(get(proxy.where, "/by-name").body)["path"] == "/by-name"


def test_unknown_host_name_is_502(tmp_path: Path) -> None:
    """A name without an address costs the client a 502 and says so in the log."""
    with running_proxy(tmp_path, ["does-not-exist.invalid:80"]) as proxy:
        answer = get(proxy.where, "/")
        assert answer.status == 502
        assert b"cannot be resolved" in answer.body
        proxy.err.wait_for("error=dns_error")
