"""The proxy as a process: its configuration, its log, its signals, its metrics."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from support.processes import DEADLINE, Process, wait_until

PROXY = (sys.executable, "-W", "always::ResourceWarning", "-m", "trio_proxy")


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

    def refused_reload(self) -> str:
        """SIGHUP, and the first line that says why it came to nothing."""
        start = len(self.err)
        self.signal(signal.SIGHUP)
        return self.err.wait_for("reload refused: (.*)", start=start)[1]

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
    workers: int | str = 1,
    **tables: Mapping[str, Any],
) -> str:
    """A configuration. An upstream is a port of 127.0.0.1, ``unix:/path`` or ``name:port``."""
    lines = [f"listen = {json.dumps(list(listen))}"]
    if metrics:
        lines.append('metrics_listen = "127.0.0.1:0"')
    if workers != 1:
        lines.append(f"workers = {json.dumps(workers)}")
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


def write_config(
    directory: Path, upstreams: Sequence[int | str | Mapping[str, Any]], **config: Any
) -> Path:
    """`config_text` as ``proxy.toml`` in this directory, whatever was there before."""
    path = directory / "proxy.toml"
    path.write_text(config_text(upstreams, **config))
    return path


@contextmanager
def running_proxy(
    tmp_path: Path,
    upstreams: Sequence[int | str | Mapping[str, Any]],
    *,
    prefix: Sequence[str] = (),
    **config: Any,
) -> Iterator[ProxyProcess]:
    """A proxy that has started, from ``tmp_path/proxy.toml``; stopped at the end."""
    path = write_config(tmp_path, upstreams, **config)
    with ProxyProcess("run", path, cwd=tmp_path, prefix=prefix) as proxy:
        yield proxy.wait_until_started()
