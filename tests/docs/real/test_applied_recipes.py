"""The recipes of ARCHITECTURE.md that change the source, carried out on a copy of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.documents import Document, blocks
from support.processes import ROOT

PAGE = Document("ARCHITECTURE.md")
RECIPES = ("A balancing policy", "A setting", "A metric")


def carry_out(recipe: str, house: Path) -> None:
    """Write its files, and make its changes, each in the one place where its old lines are."""
    for code in blocks("python", PAGE.section(recipe)):
        name, _, _ = code.removeprefix("# ").partition("\n")
        assert not (house / name).exists()
        (house / name).write_text(code)
    for change in blocks("diff", PAGE.section(recipe)):
        first, *lines = change.splitlines(keepends=True)
        path = house / first.removeprefix("--- ").strip()
        old = "".join(line[1:] for line in lines if line[0] != "+")
        new = "".join(line[1:] for line in lines if line[0] != "-")
        source = path.read_text()
        assert source.count(old) == 1, f"{recipe}: {path.name} has not exactly one of\n{old}"
        path.write_text(source.replace(old, new))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package in which all the recipes have been carried out."""
    copy = tmp_path_factory.mktemp("house")
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "trio_proxy", copy / "trio_proxy", ignore=ignored)
    for recipe in RECIPES:
        carry_out(recipe, copy)
    return copy


def run_there(house: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with that copy in place of the package."""
    path = os.pathsep.join([str(house), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=house,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def prove(house: Path, program: str) -> None:
    """Run a program there that asserts something."""
    where = f"import trio_proxy\nassert trio_proxy.__file__.startswith({str(house)!r})\n"
    done = run_there(house, "-c", where + program)
    assert done.returncode == 0, done.stderr


def test_they_heed_the_floors(house: Path) -> None:
    """The house with them is as much in order as the one without."""
    tests = str(ROOT / "tests/house/test_floors.py")
    names = "floors_or_its_own or lower_floors or in_a_circle"
    options = ["-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    done = run_there(house, "-m", "pytest", *options, tests, "-k", names)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^[1-9] passed", done.stdout, re.MULTILINE), done.stdout


def check(house: Path, text: str) -> subprocess.CompletedProcess[str]:
    """``trio-proxy check`` of a configuration with one upstream."""
    upstream = '[[upstreams]]\nhost = "127.0.0.1"\nport = 9001\n'
    (house / "proxy.toml").write_text(upstream + text)
    return run_there(house, "-m", "trio_proxy", "check", "proxy.toml")


def test_the_policy_can_be_configured(house: Path) -> None:
    """And is among what is named where another is refused."""
    assert check(house, '[balance]\npolicy = "first"\n').returncode == 0
    assert '"first"' in check(house, '[balance]\npolicy = "last"\n').stderr


def test_the_policy_balances(house: Path) -> None:
    """The first upstream is filled up before the second gets anything."""
    prove(
        house,
        """
from support.world import GET, run, world
from trio_proxy.settings import Balance, Limits

async def main():
    one = Limits(max_conns_per_upstream=1)
    async with world(upstreams=2, balance=Balance(policy="first"), limits=one) as w:
        first, second = w.upstreams
        first.serve(delay=1.0)
        second.serve()
        clients = [await w.client() for _ in range(2)]
        for client in clients:
            await client.send(GET)
        for client in clients:
            assert (await client.read_response()).status == 200
        assert (await clients[0].ask(GET)).status == 200
        assert (len(first.requests), len(second.requests)) == (2, 1)

run(main)
""",
    )


def test_the_setting_is_checked(house: Path) -> None:
    """Its type and range are explained as those of any other."""
    assert check(house, "[limits]\nmax_passes = 3\n").returncode == 0
    refused = check(house, "[limits]\nmax_passes = 0\n")
    expected = "proxy.toml: limits.max_passes: is 0 (expected an integer from 1 to 100)\n"
    assert (refused.returncode, refused.stderr) == (2, expected)


def test_the_setting_takes_effect(house: Path) -> None:
    """One pass fewer than it says is let through."""
    prove(
        house,
        """
from support.world import run, world
from trio_proxy.settings import Limits

def passed(times):
    via = b"Via: 1.1 trio-proxy\\r\\n" * times
    return b"GET / HTTP/1.1\\r\\nHost: a\\r\\n" + via + b"\\r\\n"

async def main():
    async with world(limits=Limits(max_passes=2)) as w:
        w.upstreams[0].serve()
        client = await w.client()
        assert (await client.ask(passed(1))).status == 200
        assert (await client.ask(passed(2))).status == 508

run(main)
""",
    )


def test_the_metric_counts_and_is_rendered(house: Path) -> None:
    """Of one process, and of several together."""
    prove(
        house,
        """
from support.exchanges import exchange_with
from trio_proxy.telemetry.merging import combined
from trio_proxy.telemetry.metrics import build_registry, render
from trio_proxy.telemetry.stats import Stats

stats = Stats()
for status in (101, 200, 101):
    stats.request_started()
    stats.exchange_ended(exchange_with(status=status, is_complete=True))
assert b"proxy_switched_total 2.0" in render(build_registry(stats), "")[0]
assert combined(stats, stats).switched == 4
""",
    )
