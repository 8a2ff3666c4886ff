"""Clients on bare sockets: pipelines, half-closes, odd and malformed requests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.proxy_process import ProxyProcess, running_proxy
from support.rawhttp import RawClient, get, request
from support.upstreams import ScriptedUpstream, UpstreamConnection


def test_pipelined_requests_are_answered_in_order(proxy: ProxyProcess) -> None:
    """Requests sent in one go are answered one by one, a slow one first."""
    targets = ["/slow?ms=50", "/status/404", "/big?bytes=100000", "/stream?n=2", "/last"]
    with RawClient(proxy.where) as client:
        client.send(b"".join(request("GET", target) for target in targets))
        answers = [client.read_response() for _ in targets]
    assert [answer.status for answer in answers] == [200, 404, 200, 200, 200]
    assert [len(answer.body) for answer in answers[1:4]] == [11, 100000, 16]
    assert json.loads(answers[4].body)["path"] == "/last"


def test_pipelined_bodies_stay_apart(proxy: ProxyProcess) -> None:
    """Bodies with a length and in chunks, back to back, end where they should."""
    with RawClient(proxy.where) as client:
        client.send(
            request("POST", "/one", body=b"first")
            + b"POST /two HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"3\r\nsec\r\n3;ext=1\r\nond\r\n0\r\n\r\n"
            + request("GET", "/three")
        )
        echoes = [json.loads(client.read_response().body) for _ in range(3)]
    assert [(e["path"], e["body"]) for e in echoes] == [
        ("/one", "first"),
        ("/two", "second"),
        ("/three", ""),
    ]


def test_half_closing_client_is_answered(proxy: ProxyProcess) -> None:
    """A client that ends its side with the request still gets the whole answer."""
    with RawClient(proxy.where) as client:
        client.send(request("GET", "/big?bytes=3000000"))
        client.half_close()
        assert len(client.read_response().body) == 3_000_000
        assert client.read_to_end() == b""


def test_request_byte_by_byte(proxy: ProxyProcess) -> None:
    """A request in single bytes is the same request."""
    with RawClient(proxy.where) as client:
        for byte in request("POST", "/drops", body=b"abc"):
            client.send(bytes([byte]))
        assert json.loads(client.read_response().body)["body"] == "abc"


def test_http_1_0_without_keep_alive(proxy: ProxyProcess) -> None:
    """An HTTP/1.0 request without a Host is answered, and the connection closed."""
    with RawClient(proxy.where) as client:
        client.send(b"GET /status/200 HTTP/1.0\r\n\r\n")
        assert client.read_response().status == 200
        assert client.read_to_end() == b""


def _with(*fields: str, line: str = "GET / HTTP/1.1") -> bytes:
    return "\r\n".join([line, "Host: x", *fields, "", ""]).encode("latin-1")


_CHUNKED = _with("Transfer-Encoding: chunked", line="POST /upload HTTP/1.1")

MALFORMED = {
    "length and coding": (_with("Content-Length: 3", "Transfer-Encoding: chunked"), 400),
    "two lengths": (_with("Content-Length: 3", "Content-Length: 3"), 400),
    "list of lengths": (_with("Content-Length: 3, 3"), 400),
    "signed length": (_with("Content-Length: +3"), 400),
    "negative length": (_with("Content-Length: -3"), 400),
    "gzip coding": (_with("Transfer-Encoding: gzip"), 501),
    "gzip, chunked": (_with("Transfer-Encoding: gzip, chunked"), 501),
    "chunked twice": (_with("Transfer-Encoding: chunked, chunked"), 400),
    "chunked in 1.0": (_with("Transfer-Encoding: chunked", line="POST / HTTP/1.0"), 400),
    "bare LF": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "bare CR": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", 400),
    "obs-fold": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400),
    "space before colon": (_with("A : b"), 400),
    "field without colon": (_with("A b"), 400),
    "NUL": (_with("A: b\0c"), 400),
    "DEL in name": (_with("A\x7f: b"), 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (_with("Host: x"), 400),
    "host contradicts target": (_with(line="GET http://y/ HTTP/1.1"), 400),
    "userinfo in host": (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    "no version": (b"GET /\r\nHost: x\r\n\r\n", 400),
    "HTTP/2.0": (_with(line="GET / HTTP/2.0"), 505),
    "HTTP/1.2": (_with(line="GET / HTTP/1.2"), 505),
    "lower-case version": (_with(line="GET / http/1.1"), 400),
    "two spaces": (_with(line="GET  / HTTP/1.1"), 400),
    "relative target": (_with(line="GET x HTTP/1.1"), 400),
    "fragment": (_with(line="GET /a#b HTTP/1.1"), 400),
    "CONNECT": (_with(line="CONNECT x:443 HTTP/1.1"), 501),
    "TRACE": (_with(line="TRACE / HTTP/1.1"), 501),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50), 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "long target": (_with(line=f"GET /{'a' * 9000} HTTP/1.1"), 414),
    "target without end": (b"GET /" + b"a" * 20_000, 414),
    "head too large": (_with(f"A: {'b' * 40_000}"), 431),
    "too many fields": (_with(*["A: b"] * 120), 431),
    "chunk size": (_CHUNKED + b"3x\r\nabc\r\n0\r\n\r\n", 400),
    "huge chunk size": (_CHUNKED + b"f" * 20 + b"\r\n", 400),
    "chunk without its end": (_CHUNKED + b"3\r\nabcX\r\n0\r\n\r\n", 400),
    "bare LF in chunk": (_CHUNKED + b"3\nabc\r\n0\r\n\r\n", 400),
    "bad trailer": (_CHUNKED + b"3\r\nabc\r\n0\r\nA b\r\n\r\n", 400),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_request_is_refused(proxy: ProxyProcess, what: str) -> None:
    """Each gets its status and the end of its connection; the next client notices nothing."""
    data, status = MALFORMED[what]
    with RawClient(proxy.where) as client:
        client.send(data)
        answer = client.read_response()
        assert answer.status == status, answer.body
        assert (answer.header("proxy-status") or "").startswith("trio-proxy; error=")
        assert client.read_to_end() == b""
    assert get(proxy.where, "/status/200").status == 200


def test_requests_behind_a_malformed_one_are_not_served(proxy: ProxyProcess) -> None:
    """What follows bytes that have no one meaning has none either."""
    with RawClient(proxy.where) as client:
        client.send(MALFORMED["length and coding"][0] + request("GET", "/status/418"))
        assert client.read_response().status == 400
        assert client.read_to_end() == b""


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_refusal_names_the_phase(proxy: ProxyProcess, accept: str) -> None:
    """The proxy's own answer is one line, or JSON for a client that asks for it."""
    with RawClient(proxy.where) as client:
        client.send(request("GET", "/", "Transfer-Encoding: gzip"))
        assert b"phase: read_head" in client.read_response().body
    with RawClient(proxy.where) as client:
        client.send(
            request("POST", "/upload", f"Accept: {accept}", "Transfer-Encoding: chunked")
            + b"xyz\r\n"
        )
        answer = client.read_response()
    assert answer.status == 400
    if accept.endswith("json"):
        facts = json.loads(answer.body)
        assert facts["status"] == 400
        assert facts["phase"]
        assert facts["trace_id"] == answer.header("x-trace-id")
    else:
        assert answer.body.count(b"\n") == 1


def test_trailers_go_both_ways(tmp_path: Path) -> None:
    """Trailers of a chunked request reach the upstream, those of its answer the client."""

    def handler(connection: UpstreamConnection) -> None:
        seen = connection.read_request()
        connection.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            + b"%x\r\n%s\r\n0\r\nX-Sum: 42\r\n\r\n" % (len(seen.body), seen.body)
        )
        requests.append(seen)

    requests = []
    with (
        ScriptedUpstream(handler) as upstream,
        running_proxy(tmp_path, [upstream.port]) as proxy,
        RawClient(proxy.where) as client,
    ):
        client.send(
            request("POST", "/", "Transfer-Encoding: chunked", "TE: trailers")
            + b"3\r\nabc\r\n0\r\nX-Check: 1\r\nX-Check: 2\r\n\r\n"
        )
        answer = client.read_response()
    assert requests[0].trailers == [("x-check", "1"), ("x-check", "2")]
    assert answer.body == b"abc"
    assert answer.trailers == [("x-sum", "42")]


def test_early_answer_to_a_large_upload(proxy: ProxyProcess) -> None:
    """An upstream that answers without reading the body: the client sees the answer."""
    with RawClient(proxy.where) as client:
        client.send(b"POST /status/401 HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n")
        client.send(b"x" * 1000)
        assert client.read_response().status == 401
