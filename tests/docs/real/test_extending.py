"""What the page "Extending it" shows is what there is: its programs run, its files load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.documents import Document, blocks
from support.processes import DEADLINE, ROOT, environment
from support.proxy_process import ProxyProcess
from support.rawhttp import RawClient, request
from support.upstreams import ScriptedUpstream

PAGE = Document("docs/extending.md")


def python(title: str) -> str:
    (program,) = blocks("python", PAGE.section(title))
    return program


def stamp_in(folder: Path, port: int = 9001, **replaced: str) -> Path:
    """The first middleware and its configuration, in files."""
    (folder / "stamp.py").write_text(python("A middleware"))
    (text,) = blocks("toml", PAGE.section("A middleware"))
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "proxy.toml"
    path.write_text('listen = "127.0.0.1:0"\n' + text.replace("9001", str(port)))
    return path


def test_the_first_middleware_does_what_it_says(tmp_path: Path) -> None:
    """By the commands that are shown."""
    commands = blocks("console", PAGE.section("A middleware"))[0].splitlines()
    assert len(commands) == 2
    with ScriptedUpstream(seen_by := Keeps()) as upstream:
        stamp_in(tmp_path, upstream.port)
        for command in commands:
            env = {"PYTHONUNBUFFERED": "1"}
            with ProxyProcess(*command.split()[1:], cwd=tmp_path, env=env) as proxy:
                if command.split()[1] == "check":
                    assert proxy.wait_for_end() == 0
                    continue
                with RawClient(proxy.wait_until_started().where) as client:
                    assert client.get("/").status == 200
                proxy.out.wait_for(f"200 127.0.0.1:{upstream.port}")
    assert seen_by.stamps == ["through the proxy"]


class Keeps:
    """An upstream that keeps what it was asked."""

    def __init__(self) -> None:
        self.stamps: list[str | None] = []

    def __call__(self, connection: object) -> None:
        while True:
            self.stamps.append(connection.read_request().header("x-stamp"))  # type: ignore[attr-defined]
            connection.answer()  # type: ignore[attr-defined]


def test_the_problems_are_what_check_says(tmp_path: Path) -> None:
    (expected,) = blocks("text", PAGE.section("Settings"))
    path = stamp_in(tmp_path, **{'text = "through the proxy"': 'text = 5\ntxet = "x"'})
    with ProxyProcess("check", "--app-dir", ".", path.name, cwd=tmp_path) as proxy:
        assert proxy.wait_for_end() == 2
    assert proxy.err.text().splitlines() == expected.splitlines()


def test_the_handlers_answer(tmp_path: Path) -> None:
    """In the program that is shown, which runs as it is."""
    (tmp_path / "program.py").write_text(python("A handler"))
    argv = [sys.executable, "-u", "program.py"]
    with subprocess.Popen(argv, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE) as program:
        try:
            assert program.stdout is not None
            found = re.search(rb":(\d+)", program.stdout.readline())
            assert found
            with RawClient(("127.0.0.1", int(found[1]))) as client:
                assert client.get("/hello").body == b"hello, 127.0.0.1\n"
                client.send(request("POST", "/echo", body=b"some body"))
                assert client.read_response().body == b"some body"
        finally:
            program.kill()
            program.wait(DEADLINE)


@pytest.mark.parametrize("title", ["Changing the response", "Failures of your own"])
def test_the_other_pieces_run(title: str) -> None:
    """Everything that they name is there."""
    exec(compile(python(title), title, "exec"), {})


def test_the_test_that_is_shown_passes(tmp_path: Path) -> None:
    (tmp_path / "shown.py").write_text(python("Testing it"))
    argv = [sys.executable, "shown.py"]
    subprocess.run(argv, cwd=tmp_path, env=environment(), check=True, timeout=DEADLINE)


def test_its_links_lead_somewhere() -> None:
    headings = re.findall(r"^##+ (.*)$", PAGE.text, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE.text)) == anchors
    for file in re.findall(r"\]\(\.\./([^)#]*)\)", PAGE.text):
        assert (ROOT / file).is_file()


def test_the_names_of_the_contract_are_there() -> None:
    """The attributes that the table tells of."""
    table = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", PAGE.section("A middleware"), re.MULTILINE)
    named = {name: re.findall(r"`([a-z_ ]+)`", has) for name, has in table}
    classes = {"exchange": "Exchange", "request": "Request", "sink": "Sink"}
    import trio_proxy

    for name, cls in classes.items():
        words = " ".join(named[name]).split()
        assert words
        found = getattr(trio_proxy, cls)
        slots = {*getattr(found, "__slots__", ()), *dir(found)}
        assert set(words) <= slots, name
    assert ast.parse(python("A middleware"))
