"""Middlewares of a configuration in the program: reloads, workers, faults, and what is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.processes import Process
from support.proxy_process import PROXY, ProxyProcess
from support.rawhttp import RawClient, Response, get

PLUGIN = '''
import os
from attrs import define, field

@define
class Count:
    """Says in the answer which process it is in, and how often it was passed."""

    name: str = "a"
    seen: int = field(default=0, init=False)

    async def handle(self, exchange, request, sink, next):
        self.seen += 1
        if exchange.target == "/fault":
            raise ZeroDivisionError("a bug")
        from trio_proxy import respond
        await respond(exchange, sink, 200, f"{self.name} {self.seen} {os.getpid()}")
'''


def configured(tmp_path: Path, *more: str, first: str = "") -> Path:
    """A configuration with the plugin in front of everything."""
    (tmp_path / "app").mkdir(exist_ok=True)
    (tmp_path / "app" / "count_plugin.py").write_text(PLUGIN)
    path = tmp_path / "proxy.toml"
    path.write_text(
        f"listen = '127.0.0.1:0'\n{first}\n[[upstreams]]\nhost = '127.0.0.1'\nport = 9001\n"
        "[[routes]]\npool = 'default'\nmiddlewares = ['count']\n"
        "[middlewares.count]\nkind = 'count_plugin:Count'\n" + "\n".join(more) + "\n"
    )
    return path


@contextmanager
def running(tmp_path: Path, *more: str, first: str = "") -> Iterator[ProxyProcess]:
    path = configured(tmp_path, *more, first=first)
    with ProxyProcess("run", path, "--app-dir", tmp_path / "app", cwd=tmp_path) as proxy:
        yield proxy.wait_until_started()


def words(answer: Response) -> list[str]:
    return answer.body.decode().split()


def test_a_reload_makes_it_anew_only_if_its_settings_have_changed(tmp_path: Path) -> None:
    """And one with a mistake in it is refused with the mistake."""
    with running(tmp_path) as proxy, RawClient(proxy.where) as client:
        assert words(client.get("/"))[:2] == ["a", "1"]
        configured(tmp_path, "[timeouts]", "read_ms = 5000")
        proxy.reload()
        assert words(client.get("/"))[:2] == ["a", "2"]
        configured(tmp_path, "name = 5")
        expected = f"{tmp_path}/proxy.toml: middlewares.count.name: is 5 (expected a text)"
        assert proxy.refused_reload() == expected
        assert words(client.get("/"))[:2] == ["a", "3"]
        configured(tmp_path, "name = 'b'")
        proxy.reload()
        assert words(client.get("/"))[:2] == ["b", "1"]


def test_each_worker_has_one_of_its_own(tmp_path: Path) -> None:
    """Also after a reload, and none in the supervisor."""
    with running(tmp_path, first="workers = 2") as proxy:
        processes = {words(get(proxy.where, "/"))[2] for _ in range(40)}
        assert len(processes) == 2
        assert str(proxy.pid) not in processes
        configured(tmp_path, "name = 'b'", first="workers = 2")
        proxy.reload()
        answers = [words(get(proxy.where, "/")) for _ in range(40)]
        assert {name for name, _, _ in answers} == {"b"}
        assert {process for _, _, process in answers} == processes


def test_a_fault_is_logged_with_its_traceback_and_costs_one_answer(tmp_path: Path) -> None:
    path = configured(tmp_path)
    with Process(
        [*PROXY, "run", str(path), "--app-dir", str(tmp_path / "app")], cwd=tmp_path
    ) as process:
        port = int(process.err.wait_for(r"listening on http://\S*?:(\d+)\b")[1])
        with RawClient(("127.0.0.1", port)) as client:
            assert client.get("/fault").status == 500
            assert client.get("/").status == 200
        process.err.wait_for('"GET / HTTP/1.1" 200 ')
        assert len(process.err.matching("internal error in phase request_filter")) == 1
        assert len(process.err.matching("ZeroDivisionError: a bug")) == 1
        assert process.err.matching(r"count_plugin\.py")


def test_the_current_directory_is_not_searched_unless_told_so(tmp_path: Path) -> None:
    """What lies there could be anybody's."""
    path = configured(tmp_path)
    for flags, status in (([], 2), (["--app-dir", "."], 0)):
        # By -m Python itself would search there: -P is as with the installed command.
        env = {"PYTHONSAFEPATH": "1"}
        with ProxyProcess("check", path, *flags, cwd=tmp_path / "app", env=env) as proxy:
            assert proxy.wait_for_end() == status


@pytest.mark.parametrize("module", ["json", "trio"])
def test_a_file_there_does_not_take_the_place_of_an_installed_module(
    tmp_path: Path, module: str
) -> None:
    path = configured(tmp_path)
    (tmp_path / "app" / f"{module}.py").write_text("raise SystemExit('the wrong one')")
    with ProxyProcess("check", path, "--app-dir", tmp_path / "app", cwd=tmp_path) as proxy:
        assert proxy.wait_for_end() == 0


def test_a_handler_in_a_file_is_refused_as_only_a_program_can_give_one(tmp_path: Path) -> None:
    path = tmp_path / "proxy.toml"
    path.write_text("[[routes]]\nhandler = 'own'\n")
    with ProxyProcess("run", path, cwd=tmp_path) as proxy:
        assert proxy.wait_for_end() == 2
    assert proxy.err.text() == (
        f'{path}: routes[0].handler: is "own", and there is no such handler'
        " (expected a program to give it to trio_proxy.open_proxy: a file alone has none)"
    )
