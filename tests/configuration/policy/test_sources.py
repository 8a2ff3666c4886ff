"""Where settings come from: files, environment variables, flags, and which of them wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.config_documents import UPSTREAM, load
from trio_proxy.http.addresses import TcpAddress
from trio_proxy.settings import LoggingSettings
from trio_proxy.settings.load.toml import (
    MAX_FILE_BYTES,
    ConfigError,
    Problem,
    find_and_load,
    from_environment,
    load_file,
    override,
)


def refused_environment(**environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        from_environment(environ)
    return str(caught.value).splitlines()


# Files


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"listen = \n", "line 1, column 10: is not valid TOML: Invalid value (expected TOML 1.0)"),
        (b"a = 1\nb = '\xff'", "line 2: is not UTF-8: invalid start byte (expected UTF-8)"),
        (b"#" * (MAX_FILE_BYTES + 1), "is too large (expected at most 1048576 bytes)"),
        (b"a = " + b"[" * 100_000, "is nested too deeply (expected tables and keys)"),
        (b"a = " + b"1" * 5000, "has an integer of too many digits (expected integers of 64 bits)"),
    ],
)
def test_an_unreadable_document_is_a_problem_like_any(
    tmp_path: Path, raw: bytes, problem: str
) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError) as caught:
        load_file(path)
    assert str(caught.value) == f"{path}: {problem}"


@pytest.mark.parametrize("name", ["missing.toml", ".", "a\0b"])
def test_a_file_that_cannot_be_read_is_a_problem_too(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r": cannot be read: .* \(expected a TOML file\)$"):
        load_file(tmp_path / name)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "bom.toml"
    path.write_text(UPSTREAM, encoding="utf-8-sig")
    assert load_file(path) == load("")


# Where settings come from


def test_environment_variables_alone_are_enough() -> None:
    settings = from_environment(
        {
            "UPSTREAM_HOSTS": "127.0.0.1:9001, app:80,[::1]:9",
            "PROXY_LISTEN_HOST": "::",
            "PROXY_LISTEN_PORT": "0",
            "METRICS_LISTEN_HOST": "localhost",
            "METRICS_LISTEN_PORT": "8081",
            "LOG_LEVEL": "WARNING",
        }
    )
    upstreams = [str(each.address) for each in settings.upstreams]
    assert upstreams == ["127.0.0.1:9001", "app:80", "[::1]:9"]
    assert settings.listen == (TcpAddress("::", 0),)
    assert settings.metrics_listen == TcpAddress("localhost", 8081)
    assert settings.logging.level == "warning"


def test_an_empty_variable_is_as_good_as_none_and_hosts_default_to_loopback() -> None:
    environ = {"UPSTREAM_HOSTS": "127.0.0.1:9001", "LOG_LEVEL": "", "METRICS_LISTEN_HOST": ""}
    assert from_environment(environ) == load("")
    settings = from_environment({**environ, "METRICS_LISTEN_PORT": "1"})
    assert settings.metrics_listen == TcpAddress("127.0.0.1", 1)


def test_a_metrics_host_without_a_port_is_not_ignored() -> None:
    assert refused_environment(UPSTREAM_HOSTS="a:1", METRICS_LISTEN_HOST="::1") == [
        "environment: METRICS_LISTEN_HOST: is given without METRICS_LISTEN_PORT (expected both)"
    ]


def test_problems_of_the_environment_name_their_variables() -> None:
    assert refused_environment() == [
        "environment: UPSTREAM_HOSTS: is not set"
        " (expected host:port,host:port, or a configuration file)"
    ]
    assert refused_environment(
        UPSTREAM_HOSTS="a:1,b:0,,a:1",
        PROXY_LISTEN_HOST="a b",
        PROXY_LISTEN_PORT="x",
        METRICS_LISTEN_PORT="65536",
        LOG_LEVEL="loud",
    ) == [
        'environment: PROXY_LISTEN_HOST: is "a b" (expected a host name or an IP address)',
        'environment: PROXY_LISTEN_PORT: is "x" (expected an integer from 0 to 65535)',
        'environment: METRICS_LISTEN_PORT: is "65536" (expected an integer from 0 to 65535)',
        'environment: UPSTREAM_HOSTS[1]: is "b:0" (expected a port from 1 to 65535)',
        'environment: UPSTREAM_HOSTS[2]: is "" (expected host:port or unix:/path)',
        'environment: LOG_LEVEL: is "loud" (expected "debug", "info", "warning" or "error")',
        "environment: UPSTREAM_HOSTS[3]: a:1 is there already, at index 0"
        " (expected each address once)",
    ]
    assert refused_environment(UPSTREAM_HOSTS="a:1", METRICS_LISTEN_PORT="8080") == [
        "environment: METRICS_LISTEN_PORT: 127.0.0.1:8080 is both listen and metrics_listen"
        " (expected different addresses)"
    ]


def test_a_file_in_force_wins_over_variables(tmp_path: Path) -> None:
    """CONFIG, else $CONFIG_PATH, else conf/proxy.toml, else the environment."""
    cwd = str(tmp_path)
    environ = {"UPSTREAM_HOSTS": "env:1", "LOG_LEVEL": "loud"}
    (tmp_path / "conf").mkdir()
    for name in ("argument.toml", "variable.toml", "conf/proxy.toml"):
        (tmp_path / name).write_text(f"pid_file = '{name}'\n{UPSTREAM}")

    settings, path = find_and_load(None, environ, cwd=cwd)
    assert (settings.pid_file, path) == ("conf/proxy.toml", f"{cwd}/conf/proxy.toml")
    environ["CONFIG_PATH"] = "variable.toml"
    settings, path = find_and_load(None, environ, cwd=cwd)
    assert (settings.pid_file, path) == ("variable.toml", f"{cwd}/variable.toml")
    settings, path = find_and_load(f"{cwd}/argument.toml", environ, cwd="/")
    assert (settings.pid_file, path) == ("argument.toml", f"{cwd}/argument.toml")


def test_without_a_file_the_environment_decides_alone(tmp_path: Path) -> None:
    settings, path = find_and_load(None, {"UPSTREAM_HOSTS": "env:1"}, cwd=str(tmp_path))
    assert path is None
    assert settings.upstreams[0].address == TcpAddress("env", 1)


def test_a_file_that_was_asked_for_and_is_missing_is_not_passed_over(tmp_path: Path) -> None:
    environ = {"UPSTREAM_HOSTS": "env:1", "CONFIG_PATH": "gone.toml"}
    with pytest.raises(ConfigError, match=r"gone\.toml: cannot be read: No such file"):
        find_and_load(None, environ, cwd=str(tmp_path))


def test_flags_win_over_settings() -> None:
    before = load("listen = ['a:1', 'b:1']\nlogging.format = 'json'")
    after = override(before, listen="127.0.0.1:0", log_level="debug")
    assert after.listen == (TcpAddress("127.0.0.1", 0),)
    assert after.logging == LoggingSettings(level="debug", format="json")
    assert override(before, listen=None, log_level=None) == before


def test_problems_of_flags_name_the_flags() -> None:
    with pytest.raises(ConfigError) as caught:
        override(load("metrics_listen = 'a:1'"), listen="a:1", log_level="loud")
    assert [(each.file, each.path) for each in caught.value.problems] == [
        ("command line", "--listen"),
        ("command line", "--log-level"),
    ]


def test_a_problem_prints_as_one_line_with_or_without_a_path() -> None:
    assert (
        str(Problem("f", "a[1].b", "is wrong", "expected c")) == "f: a[1].b: is wrong (expected c)"
    )
    assert str(Problem("f", "", "is wrong", "expected c")) == "f: is wrong (expected c)"
