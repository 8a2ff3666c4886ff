"""What the README shows is what there is."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
import trio

import trio_proxy.testing
from support.documents import Document, blocks, metric_labels
from support.examples import findable
from support.processes import ROOT
from support.proxy_process import ProxyProcess
from trio_proxy.settings import Settings
from trio_proxy.settings.load.toml import parse

PAGE = Document("README.md")
README = PAGE.text
FILES = [
    *("conf/proxy.toml", "conf/reference.toml", "conf/pools.toml"),
    *("docs/when-upstreams-fail.md", "docs/extending.md", "bench/README.md"),
    *("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"),
]


def test_the_configuration_loads() -> None:
    """With the values that it shows."""
    (text,) = blocks("toml", PAGE.section("A configuration"))
    settings = parse(text, source="README.md")
    assert [str(address) for address in settings.listen] == ["127.0.0.1:8080"]
    assert [upstream.port for upstream in settings.upstreams] == [9001, 9002]
    assert settings.upstreams[1].max_conns == 20
    assert settings.timeouts.total_ms == 30_000
    assert settings.limits.max_body_bytes == 10 * 1024 * 1024
    assert len(settings.headers.trusted_proxies) == 1


def test_the_pools_and_routes_load() -> None:
    """Nothing is left without a route."""
    (text,) = blocks("toml", PAGE.section("Several pools"))
    settings = parse(text, source="README.md")
    assert list(settings.every_pool) == ["default", "api"]
    assert [(route.path, route.pool) for route in settings.routes] == [
        ("/v1", "api"),
        ("/", "default"),
    ]
    assert not list(settings.remarks())


def test_the_middleware_is_the_example() -> None:
    (text,) = blocks("toml", PAGE.section("Extending it"))
    with findable():
        settings = parse(text, source="README.md")
    assert settings.routes[0].middlewares == ("keys",)


def test_the_problems_are_what_check_says(tmp_path: Path) -> None:
    """Line for line, for a file with that one mistake."""
    (expected,) = blocks("text", PAGE.section("A configuration"))
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "proxy.toml").write_text(
        '[[upstreams]]\nhost = "127.0.0.1"\nport = 9001\n'
        '[[upstreams]]\nhost = "127.0.0.1"\nprot = 9002\n'
    )
    with ProxyProcess("check", "conf/proxy.toml", cwd=tmp_path) as proxy:
        assert proxy.wait_for_end() == 2
    assert proxy.err.text().splitlines() == expected.splitlines()


def test_the_program_runs_up_to_its_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that it names is there."""
    program, _ = blocks("python", README)
    started = []
    monkeypatch.setattr(trio, "run", started.append)
    names: dict[str, object] = {}
    exec(compile(program, "README.md", "exec"), names)
    assert started == [names["main"]]
    assert inspect.iscoroutinefunction(names["main"])
    assert isinstance(names["settings"], Settings)


def test_the_example_of_the_simulated_network_compiles() -> None:
    """And `SimNet` has what it calls."""
    _, example = blocks("python", README)
    compile(example, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    called = set(re.findall(r"\bnet\.(\w+)\(", example))
    assert called
    assert all(hasattr(trio_proxy.testing.SimNet, name) for name in called)


def test_the_metrics_are_there() -> None:
    """Each by its name, and with the labels that are named."""
    labels = metric_labels()
    named = re.findall(r"`(proxy_[a-z_]+)(?:\{([a-z_,]+)\})?`", README)
    assert len(named) >= 8
    for name, shown in named:
        assert name in labels
        assert labels[name] == set(shown.split(",") if shown else ()), name


@pytest.mark.parametrize("file", FILES)
def test_the_files_that_it_names_are_there(file: str) -> None:
    assert f"`{file}`" in README or f"]({file})" in README
    assert (ROOT / file).is_file()
