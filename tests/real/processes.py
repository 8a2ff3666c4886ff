"""Real processes: the proxy, uvicorn, and what they write, with a deadline on each wait."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

import pytest
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]

#: Seconds after which something that should happen at once counts as not happening: generous,
#: because the machine may be busy, and never waited for where all is well.
DEADLINE = 20.0

#: Set where every tool has been installed, so that a missing one is a mistake.
IN_CI = bool(os.environ.get("TRIO_PROXY_CI"))

PROXY = (sys.executable, "-W", "always::ResourceWarning", "-m", "trio_proxy")

#: Runs curl with the given arguments.
Curl = Callable[..., subprocess.CompletedProcess[bytes]]

#: Variables that configure the proxy; a test sets what it needs.
OWN_VARIABLES = ("UPSTREAM_HOSTS", "CONFIG_PATH", "LOG_LEVEL", "PROXY_LISTEN", "METRICS_LISTEN")


def lacking(what: str) -> NoReturn:
    """Skip the test for want of a tool, or fail it where the tool was promised."""
    if IN_CI:
        pytest.fail(f"{what}, although TRIO_PROXY_CI is set")
    pytest.skip(what)


def wait_until(predicate: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """The first true value of the predicate, which is asked again and again."""
    end = time.monotonic() + seconds
    while not (value := predicate()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.005)
    return value


class Lines:
    """What a process writes into a pipe, gathered by a thread, for tests to wait for."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for line in self._pipe:
            with self._news:
                self._lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def __len__(self) -> int:
        return len(self._lines)

    def wait_for(self, pattern: str, *, start: int = 0, seconds: float = DEADLINE) -> re.Match[str]:
        """The first match in a line from number ``start`` on."""
        end = time.monotonic() + seconds
        with self._news:
            while True:
                for line in self._lines[start:]:
                    if match := re.search(pattern, line):
                        return match
                left = end - time.monotonic()
                if left <= 0 or self._ended:
                    why = "the process closed it" if self._ended else f"{seconds} s passed"
                    raise AssertionError(f"no line with {pattern!r}, {why}:\n{self.text()}")
                self._news.wait(left)

    def matching(self, pattern: str) -> list[str]:
        """Every line so far in which the pattern is found."""
        return [line for line in self._lines if re.search(pattern, line)]

    def text(self) -> str:
        return "\n".join(self._lines)

    def close(self) -> None:
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "somebody still holds the pipe"
        self._pipe.close()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's variables without those that configure the proxy, and some more."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(OWN_VARIABLES)}
    return {**kept, **(extra or {})}


class Process:
    """A child process with both of its outputs gathered; a context manager that ends it."""

    def __init__(
        self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.popen = subprocess.Popen(
            argv,
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        self.out = Lines(self.popen.stdout)
        self.err = Lines(self.popen.stderr)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.wait()

    @property
    def pid(self) -> int:
        return self.popen.pid

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def wait(self, seconds: float = DEADLINE) -> int:
        """The exit status, and all of the output read."""
        code = self.popen.wait(seconds)
        self.out.close()
        self.err.close()
        return code


class ProxyProcess(Process):
    """``python -m trio_proxy …``. Leaving the block stops it and demands a clean end."""

    def __init__(
        self,
        *args: str | Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        super().__init__([*prefix, *PROXY, *map(str, args)], cwd=cwd, env=env)

    def __enter__(self) -> ProxyProcess:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc: object) -> None:
        if exc_type is not None:
            super().__exit__()
            sys.stderr.write(self.err.text()[-5000:])
            return
        if self.popen.returncode is None:
            self.signal(signal.SIGTERM)
            assert self.wait_for_end() == 0, self.err.text()

    def wait_for_end(self, seconds: float = DEADLINE) -> int:
        """The exit status of a process that had nothing to say about Python."""
        try:
            code = self.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.wait()
            raise
        assert "Traceback" not in self.err.text()
        assert "Warning:" not in self.err.text()
        return code

    def wait_until_started(self) -> ProxyProcess:
        self.err.wait_for("started from")
        return self

    @property
    def port(self) -> int:
        """The port of the first TCP listener."""
        return int(self.err.wait_for(r"listening on http://\S*?:(\d+)\b")[1])

    @property
    def where(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def metrics_port(self) -> int:
        return int(self.err.wait_for(r"metrics on http://127.0.0.1:(\d+)/metrics")[1])

    def metrics(self) -> dict[str, float]:
        """Every sample as ``name`` or ``name{label="value",…}``, by Prometheus's own parser."""
        return parse_metrics(http_get(self.metrics_port, "/metrics"))

    def reload(self) -> None:
        """SIGHUP, and wait until the log says that it is done."""
        start = len(self.err)
        self.signal(signal.SIGHUP)
        self.err.wait_for("Config reloaded from", start=start)

    def rss(self) -> int:
        """Resident memory in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def wait_until_quiet(self) -> None:
        """Nobody connected, nothing under way, nothing lost sight of."""
        wait_until(self._is_quiet, "the proxy comes to rest")

    def _is_quiet(self) -> bool:
        values = self.metrics()
        assert values["proxy_orphaned_upstreams"] == 0
        active = [n for key, n in values.items() if 'state="active"' in key]
        return not any(
            [values["proxy_client_connections"], values["proxy_requests_in_flight"], *active]
        )


def http_get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()
    finally:
        connection.close()


def parse_metrics(text: str) -> dict[str, float]:
    values = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            values[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return values


def config_text(
    upstreams: Sequence[int | str | Mapping[str, Any]],
    *,
    listen: Sequence[str] = ("127.0.0.1:0",),
    metrics: bool = True,
    pid_file: str | None = None,
    **tables: Mapping[str, Any],
) -> str:
    """A configuration. An upstream is a port of 127.0.0.1, ``unix:/path`` or ``name:port``."""
    lines = [f"listen = {json.dumps(list(listen))}"]
    if metrics:
        lines.append('metrics_listen = "127.0.0.1:0"')
    if pid_file is not None:
        lines.append(f"pid_file = {json.dumps(pid_file)}")
    for upstream in upstreams:
        lines += ["[[upstreams]]", *_pairs(_upstream(upstream))]
    for name, table in tables.items():
        lines += [f"[{name}]", *_pairs(table)]
    return "\n".join(lines) + "\n"


def _upstream(upstream: int | str | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(upstream, int):
        return {"host": "127.0.0.1", "port": upstream}
    if not isinstance(upstream, str):
        return upstream
    if upstream.startswith("unix:"):
        return {"unix": upstream.removeprefix("unix:")}
    host, _, port = upstream.rpartition(":")
    return {"host": host, "port": int(port)}


def _pairs(table: Mapping[str, Any]) -> list[str]:
    # JSON's strings, numbers, booleans and arrays are TOML's too.
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]


@contextmanager
def running_proxy(
    tmp_path: Path,
    upstreams: Sequence[int | str | Mapping[str, Any]],
    *,
    prefix: Sequence[str] = (),
    **config: Any,
) -> Iterator[ProxyProcess]:
    """A proxy that has started, from ``tmp_path/proxy.toml``; stopped at the end."""
    path = tmp_path / "proxy.toml"
    path.write_text(config_text(upstreams, **config))
    with ProxyProcess("run", path, cwd=tmp_path, prefix=prefix) as proxy:
        yield proxy.wait_until_started()


@contextmanager
def running_uvicorn(*args: str) -> Iterator[Process]:
    """``tests/echo_app.py`` on uvicorn; ``err`` says where it listens."""
    argv = [sys.executable, "-m", "uvicorn", "tests.echo_app:app", "--no-access-log", *args]
    # Its tasks do not notice that their client has gone, and it waits for them.
    argv += ["--timeout-graceful-shutdown", "1"]
    with Process(argv, cwd=ROOT) as process:
        process.err.wait_for("Uvicorn running on")
        yield process
        process.signal(signal.SIGINT)
        process.popen.wait(DEADLINE)


@contextmanager
def echo_on_port() -> Iterator[int]:
    """The port of a uvicorn of its own."""
    with running_uvicorn("--port", "0") as process:
        yield int(process.err.wait_for(r"running on http://127.0.0.1:(\d+)")[1])


def children() -> set[int]:
    """Process ids of this process's children, zombies included."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        if int(after_name[1]) == os.getpid():
            found.add(int(stat.parent.name))
    return found


def open_descriptors() -> dict[int, str]:
    """This process's open files, by number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the directory itself
            continue
    return found
