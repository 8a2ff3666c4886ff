"""`run`, `check` and `demo` as processes: sources, flags, exit statuses, one clear line."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.processes import Curl, wait_until
from support.proxy_process import ProxyProcess, config_text, http_get, parse_metrics, write_config
from support.rawhttp import get

EPHEMERAL = {"PROXY_LISTEN_PORT": "0"}


def serves(proxy: ProxyProcess) -> bool:
    return get(proxy.wait_until_started().where, "/status/204").status == 204


def ends(*args: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit status and stderr of a command that should end by itself."""
    with ProxyProcess(*args, cwd=cwd, env=env) as proxy:
        code = proxy.wait_for_end()
    assert proxy.out.text() == ""
    return code, proxy.err.text()


@pytest.mark.parametrize("how", ["argument", "variable", "default file"])
def test_run_finds_its_file(tmp_path: Path, echo_port: int, how: str) -> None:
    """CONFIG wins over $CONFIG_PATH, that over conf/proxy.toml, and a file over the variables."""
    good, wrong = config_text([echo_port]), "this is no TOML"
    (tmp_path / "conf").mkdir()
    default = tmp_path / "conf" / "proxy.toml"
    default.write_text(good if how == "default file" else wrong)
    other = tmp_path / "other.toml"
    other.write_text(good)
    env = {"UPSTREAM_HOSTS": "127.0.0.1:1", "PROXY_LISTEN_PORT": "1", "LOG_LEVEL": "nonsense"}
    if how == "variable":
        env["CONFIG_PATH"] = str(other)
    elif how == "argument":
        env["CONFIG_PATH"] = str(default)
    args = ["run", str(other)] if how == "argument" else ["run"]
    with ProxyProcess(*args, cwd=tmp_path, env=env) as proxy:
        assert serves(proxy)
        source = "conf/proxy.toml" if how == "default file" else str(other)
        proxy.err.wait_for(rf"started from {re.escape(source)} \(pid {proxy.pid}\)")


def test_run_from_the_environment_alone(tmp_path: Path, echo_port: int) -> None:
    """Without a file the variables say it all."""
    env = {
        "UPSTREAM_HOSTS": f"127.0.0.1:{echo_port},localhost:{echo_port}",
        "PROXY_LISTEN_HOST": "127.0.0.1",
        "METRICS_LISTEN_HOST": "127.0.0.1",
        "METRICS_LISTEN_PORT": "0",
        "LOG_LEVEL": "DEBUG",
        **EPHEMERAL,
    }
    with ProxyProcess("run", cwd=tmp_path, env=env) as proxy:
        assert serves(proxy)
        assert "proxy_requests_total" in http_get(proxy.metrics_port, "/metrics")
        proxy.err.wait_for("started from the environment")


def test_flags_win_over_the_file(tmp_path: Path, unix_path: Path, echo_port: int) -> None:
    """`--listen` replaces the listeners, `--log-level` the level, also after a reload."""
    path = tmp_path / "proxy.toml"
    text = config_text([echo_port], listen=["127.0.0.1:1"], metrics=False)
    path.write_text(f'metrics_listen = "unix:{unix_path}"\n{text}')
    flags = ("--listen", "127.0.0.1:0", "--log-level", "warning")

    def reloaded() -> bool:
        values = parse_metrics(get(str(unix_path), "/metrics").body.decode())
        return values['proxy_config_reloads_total{result="success"}'] == 1

    with ProxyProcess("run", path, *flags, cwd=tmp_path) as proxy:
        # At this level nothing says which port it was.
        port = _port_of(proxy)
        assert get(("127.0.0.1", port), "/status/204").status == 204
        proxy.signal(signal.SIGHUP)
        wait_until(reloaded, "the reload")
        assert get(("127.0.0.1", port), "/after").status == 200
        proxy.err.wait_for('"GET /after HTTP/1.1" 200 ')
    assert not proxy.err.matching(r"trio_proxy\.server - INFO")


def _port_of(proxy: ProxyProcess) -> int:
    """The TCP port that a process listens on, asked from the kernel."""
    return wait_until(lambda: _listening_port(proxy.pid), "the proxy listens")


def _listening_port(pid: int) -> int:
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            inodes.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            continue
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]
    return int(listening[0][1].rpartition(":")[2], 16) if len(listening) == 1 else 0


def test_check_accepts_what_is_right(tmp_path: Path) -> None:
    """A good file: one line on stdout, status 0. The files that we ship are good."""
    root = Path(__file__).parents[3]
    for file in ("conf/proxy.toml", "conf/reference.toml", "conf/pools.toml"):
        with ProxyProcess("check", root / file, cwd=tmp_path) as proxy:
            assert proxy.wait_for_end() == 0
        assert proxy.out.text() == f"{root / file}: ok"
        assert proxy.err.text() == ""


def test_check_lists_every_problem(tmp_path: Path) -> None:
    """A bad file: each problem on a line with file, key path and expectation, status 2."""
    path = tmp_path / "bad.toml"
    path.write_text(
        'lisen = "127.0.0.1:8080"\nmetrics_listen = "nowhere"\n'
        '[[upstreams]]\nhost = "127.0.0.1"\nport = 99999\n'
        "[[upstreams]]\nport = 1\n"
        "[timeouts]\nread_ms = -1\nconect_ms = 5\n"
        '[retry]\nattempts = 0\n[logging]\nlevel = "loud"\n'
    )
    code, text = ends("check", path, cwd=tmp_path)
    assert code == 2
    lines = text.splitlines()
    assert all(re.match(rf"{re.escape(str(path))}: [\w.\[\]]+: .+ \(.+\)$", x) for x in lines), text
    found = {line.removeprefix(f"{path}: ").partition(": ")[0] for line in lines}
    assert found == {
        *("lisen", "metrics_listen", "upstreams[0].port", "upstreams[1].host"),
        *("timeouts.read_ms", "timeouts.conect_ms", "retry.attempts", "logging.level"),
    }
    assert "did you mean" in next(line for line in lines if ": lisen:" in line)
    assert "connect_ms" in next(line for line in lines if "conect_ms" in line)


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize("content", ["listen = [", None, "", "\0"])
def test_unusable_file_is_status_2(tmp_path: Path, command: str, content: str | None) -> None:
    """No TOML, no file, nothing in it: status 2 and one line."""
    path = tmp_path / "bad.toml"
    if content is not None:
        path.write_text(content)
    code, text = ends(command, path, cwd=tmp_path)
    assert code == 2
    assert len(text.splitlines()) == 1
    assert text.startswith(f"{path}: ")


def test_run_without_any_configuration_is_status_2(tmp_path: Path) -> None:
    """It says which variable is missing."""
    code, text = ends("run", cwd=tmp_path)
    assert code == 2
    assert "UPSTREAM_HOSTS" in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("flags", [("--listen", "nowhere"), ("--log-level", "loud")])
def test_bad_flag_is_status_2(tmp_path: Path, flags: tuple[str, str]) -> None:
    """A flag is blamed by its name."""
    path = write_config(tmp_path, [1])
    code, text = ends("run", path, *flags, cwd=tmp_path)
    assert code == 2
    assert flags[0] in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("args", [("frobnicate",), ("run", "--nope"), ("check",)])
def test_wrong_usage_is_status_2(tmp_path: Path, args: tuple[str, ...]) -> None:
    """A wrong command line says how to do it right."""
    code, text = ends(*args, cwd=tmp_path)
    assert code == 2
    assert "Usage:" in text


@pytest.mark.parametrize("which", ["listen", "metrics"])
def test_taken_port_is_status_1(tmp_path: Path, which: str) -> None:
    """One line says which address cannot be bound, and why."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = tmp_path / "proxy.toml"
        if which == "listen":
            path.write_text(config_text([1], listen=["127.0.0.1:0", f"127.0.0.1:{port}"]))
        else:
            path.write_text(
                f'metrics_listen = "127.0.0.1:{port}"\n' + config_text([1], metrics=False)
            )
        code, text = ends("run", path, "--log-level", "error", cwd=tmp_path)
    assert code == 1
    assert len(text.splitlines()) == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in text


def test_unwritable_pid_file_is_status_1(tmp_path: Path) -> None:
    """So is a pid file in a folder that is not there."""
    path = write_config(tmp_path, [1], pid_file=str(tmp_path / "missing" / "proxy.pid"))
    code, text = ends("run", path, cwd=tmp_path)
    assert code == 1
    last = text.splitlines()[-1]
    assert last.startswith("trio-proxy: ")
    assert "proxy.pid" in last, "the line does not say which file"


def test_pid_file(tmp_path: Path, echo_port: int) -> None:
    """It holds the process id while the proxy runs, and is gone afterwards."""
    file = tmp_path / "proxy.pid"
    path = write_config(tmp_path, [echo_port], pid_file=str(file))
    with ProxyProcess("run", path, cwd=tmp_path) as proxy:
        proxy.wait_until_started()
        assert int(file.read_text()) == proxy.pid
    assert not file.exists()


def test_version_and_help(tmp_path: Path) -> None:
    """Both go to stdout with status 0."""
    for flag in ("--version", "--help", "-h"):
        with ProxyProcess(flag, cwd=tmp_path) as proxy:
            assert proxy.wait_for_end() == 0
        assert "trio-proxy" in proxy.out.text() or "Usage:" in proxy.out.text()


def test_demo(tmp_path: Path, curl: Curl) -> None:
    """Each curl line that the demo prints works, on a machine with nothing else running."""
    with ProxyProcess("demo", cwd=tmp_path) as proxy:
        proxy.out.wait_for("Stop it")
        lines = [line.partition("#")[0].strip() for line in proxy.out.matching(r"^\s+curl ")]
        assert len(lines) == 4
        for line in lines:
            if "/events" in line:
                _first_event(line)
                continue
            done = curl("--fail", *shlex.split(line)[1:])
            assert done.returncode == 0, (line, done.stderr)
            assert done.stdout
        both = [curl(f"http://127.0.0.1:{proxy.port}/x").stdout for _ in range(2)]
        assert {b'"upstream": "one"' in body for body in both} == {True, False}


def _first_event(line: str) -> None:
    with subprocess.Popen(["curl", "-q", "-sS", *shlex.split(line)[1:]], stdout=-1) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith(b"data: event 0")
        finally:
            process.kill()


def test_demo_ends_by_ctrl_c(tmp_path: Path) -> None:
    """SIGINT is a graceful stop."""
    with ProxyProcess("demo", cwd=tmp_path) as proxy:
        proxy.out.wait_for("Stop it")
        proxy.signal(signal.SIGINT)
        assert proxy.wait_for_end() == 0
