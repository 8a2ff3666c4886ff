"""Each example as its docstring has it: in a process, on sockets, by the configuration it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.examples import FOLDER, NAMES, configuration
from support.proxy_process import ProxyProcess
from support.rawhttp import RawClient
from support.upstreams import Request, ScriptedUpstream, UpstreamConnection

PAGE = b"<a href='http://internal.example/'>" * 20_000


@contextmanager
def running(tmp_path: Path, name: str, *first: str) -> Iterator[tuple[RawClient, list[Request]]]:
    """A client of a proxy that runs the example, and what its upstream is asked."""
    seen: list[Request] = []

    def serve(connection: UpstreamConnection) -> None:
        while True:
            seen.append(connection.read_request())
            connection.answer(PAGE, "Content-Type: text/html", 'ETag: "1"')

    with ScriptedUpstream(serve) as upstream:
        path = tmp_path / "proxy.toml"
        shown = configuration(name)
        assert "port = 9001" in shown
        path.write_text(
            "\n".join(['listen = "127.0.0.1:0"', *first, ""])
            + shown.replace("port = 9001", f"port = {upstream.port}")
        )
        with ProxyProcess("run", "--app-dir", FOLDER, path, cwd=tmp_path) as proxy:
            proxy.wait_until_started()
            with RawClient(proxy.where) as client:
                yield client, seen


def test_the_api_key(tmp_path: Path) -> None:
    with running(tmp_path, "api_key") as (client, seen):
        refused = client.get("/v1")
        assert refused.status == 401
        assert refused.header("www-authenticate") == 'ApiKey realm="proxy"'
        assert client.get("/v1", "X-API-Key: correct-horse-battery").body == PAGE
        assert [each.header("x-api-key") for each in seen] == [None]


def test_rewriting(tmp_path: Path) -> None:
    """A page of 700 kB, by a proxy of two workers, each with an instance of its own."""
    with running(tmp_path, "rewrite_response", "workers = 2") as (client, _):
        for _ in range(2):
            answer = client.get("/")
            assert answer.body == PAGE.replace(b"http://internal.", b"https://www.").replace(
                b"example/", b"example.com/"
            )
            assert answer.header("etag") is None


def test_the_ab_header(tmp_path: Path) -> None:
    with running(tmp_path, "ab_header") as (client, seen):
        cookie = client.get("/checkout").header("set-cookie")
        assert cookie is not None
        variant = re.fullmatch(r"checkout=([AB]); Max-Age=\d+; .*", cookie)
        assert variant
        again = client.get("/checkout", f"Cookie: {cookie.partition(';')[0]}")
        assert again.header("set-cookie") is None
        assert [each.header("x-variant") for each in seen] == [variant[1]] * 2


@pytest.mark.parametrize("name", NAMES)
def test_check_finds_them_by_either_way(tmp_path: Path, name: str) -> None:
    """By --app-dir, or by PYTHONPATH; without either it says what is missing."""
    path = tmp_path / "proxy.toml"
    path.write_text(configuration(name))
    with ProxyProcess("check", "--app-dir", FOLDER, path, cwd=tmp_path) as proxy:
        assert proxy.wait_for_end() == 0
    with ProxyProcess(
        "check", path, cwd=tmp_path, env={"PYTHONPATH": f"{FOLDER}:{Path(FOLDER).parent}"}
    ) as proxy:
        assert proxy.wait_for_end() == 0
    with ProxyProcess("check", path, cwd=tmp_path) as proxy:
        assert proxy.wait_for_end() == 2
    assert f"there is no module {name} (expected one that Python finds" in proxy.err.text()
