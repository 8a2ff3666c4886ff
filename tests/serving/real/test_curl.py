"""What curl sends through the proxy arrives, and what it gets back is right to the last byte."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from support.echo_app import big_body
from support.processes import Curl
from support.proxy_process import ProxyProcess

STATUS = ("-o", "/dev/null", "-w", "%{http_code} %{http_version} %{num_connects}")


def test_get_is_echoed(proxy: ProxyProcess, curl: Curl) -> None:
    """A GET arrives with its path, query and fields, and with those that the proxy adds."""
    done = curl(f"{proxy.url}/a/b%20c?x=1&x=2", "-H", "X-Mine: one", "-H", "X-Mine: two")
    facts = json.loads(done.stdout)
    assert (facts["method"], facts["path"], facts["query"]) == ("GET", "/a/b%20c", "x=1&x=2")
    mine = [value for name, value in facts["headers"] if name == "x-mine"]
    assert mine == ["one", "two"]
    headers = dict(facts["headers"])
    assert headers["host"] == f"127.0.0.1:{proxy.port}"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["via"] == "1.1 trio-proxy"
    assert headers["x-trace-id"]


def test_head_has_the_length_and_no_body(proxy: ProxyProcess, curl: Curl) -> None:
    """HEAD has the fields of the GET and ends at once."""
    done = curl("--head", f"{proxy.url}/big?bytes=123456")
    assert done.returncode == 0
    assert b"content-length: 123456" in done.stdout.lower()


@pytest.mark.parametrize("status", [200, 204, 301, 304, 404, 418, 500, 503])
def test_status_is_passed_on(proxy: ProxyProcess, curl: Curl, status: int) -> None:
    """The upstream's status is the client's."""
    done = curl(f"{proxy.url}/status/{status}", *STATUS)
    assert done.stdout.split()[0] == str(status).encode()


def test_keep_alive_of_curl(proxy: ProxyProcess, curl: Curl) -> None:
    """Two requests of one curl share a connection."""
    done = curl(
        f"{proxy.url}/one", f"{proxy.url}/two", "-w", "[%{num_connects}]", "-o", "/dev/null"
    )
    assert done.stdout.count(b"[1]") == 1
    assert done.stdout.count(b"[0]") == 1


def test_large_download(proxy: ProxyProcess, curl: Curl) -> None:
    """32 MiB come through unchanged."""
    size = 32 * 1024 * 1024
    done = curl(f"{proxy.url}/big?bytes={size}")
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(big_body(size)).digest()


@pytest.mark.parametrize("how", ["length", "chunked", "one_point_zero"])
def test_large_upload(proxy: ProxyProcess, curl: Curl, tmp_path: Path, how: str) -> None:
    """16 MiB arrive unchanged: with a length, chunked from a pipe, and by HTTP/1.0."""
    body = big_body(16 * 1024 * 1024)
    file = tmp_path / "body"
    file.write_bytes(body)
    url = f"{proxy.url}/upload"
    if how == "chunked":
        done = curl("-X", "POST", "-T", "-", url, stdin=body)
    else:
        options = ["-0"] if how == "one_point_zero" else []
        done = curl(*options, "--data-binary", f"@{file}", url)
    facts = json.loads(done.stdout)
    assert facts == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def test_expect_continue_comes_from_the_upstream(proxy: ProxyProcess, curl: Curl) -> None:
    """curl waits for the 100; uvicorn sends it when the application asks for the body."""
    done = curl(
        *("-v", "-H", "Expect: 100-continue", "--expect100-timeout", "15"),
        *("-d", "some body", f"{proxy.url}/upload"),
    )
    assert b"< HTTP/1.1 100 Continue" in done.stderr
    assert b"Done waiting for 100-continue" not in done.stderr
    assert json.loads(done.stdout)["bytes"] == 9


def test_expect_continue_refused_by_the_upstream(proxy: ProxyProcess, curl: Curl) -> None:
    """An upstream that answers at once gets no body, and nobody invents a 100."""
    done = curl(
        *("-v", "-H", "Expect: 100-continue", "--expect100-timeout", "15"),
        *("-d", "some body", f"{proxy.url}/status/413"),
    )
    assert b"100 Continue" not in done.stderr
    assert b"< HTTP/1.1 413" in done.stderr
    assert done.stdout == b"status 413\n"


def test_http_1_0(proxy: ProxyProcess, curl: Curl) -> None:
    """`curl -0` gets a stream without chunks, ended by the connection."""
    done = curl("-0", "-i", f"{proxy.url}/stream?n=3")
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert body == b"piece 0\npiece 1\npiece 2\n"
    assert b"transfer-encoding" not in head.lower()
    assert done.returncode == 0


def test_http_1_0_keep_alive(proxy: ProxyProcess, curl: Curl) -> None:
    """An HTTP/1.0 client that asks for it keeps its connection."""
    urls = [f"{proxy.url}/big?bytes=10", f"{proxy.url}/big?bytes=20"]
    done = curl("-0", "-H", "Connection: keep-alive", *urls, "-w", "[%{num_connects}]")
    assert done.returncode == 0
    assert done.stdout == big_body(10) + b"[1]" + big_body(20) + b"[0]"


def test_cut_response_is_seen(proxy: ProxyProcess, curl: Curl) -> None:
    """A response that its upstream cuts off is no success for the client either."""
    done = curl(f"{proxy.url}/cut")
    assert done.returncode in (18, 56), done  # partial file, or reset
    assert done.stdout == b"0123456789"


def test_stream_of_chunks(proxy: ProxyProcess, curl: Curl) -> None:
    """Chunks of all sizes come out as the same bytes."""
    done = curl(f"{proxy.url}/stream?n=50&size=40000")
    pieces = [b"piece %d\n" % number for number in range(50)]
    assert done.stdout == b"".join(piece + b"x" * (40000 - len(piece)) for piece in pieces)
