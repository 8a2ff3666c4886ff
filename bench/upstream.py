"""The upstream that all proxies share: one nginx worker, on the core of the load."""

from __future__ import annotations

import http.client
import os
import pwd
import shutil
from collections.abc import Sequence
from pathlib import Path

from processes import Bench, Process

MIB = 1024 * 1024
SMALL = "0123456789abcde " * 8

#: Sizes of the files under /body/, in bytes.
BODIES = (0, 1024, 65536, MIB, 10 * MIB, 100 * MIB)

#: How many addresses it can be reached at, for proxies that have so many upstreams.
MAX_ADDRESSES = 1000

_CONFIG = """
{user}
worker_processes 1;
worker_rlimit_nofile {files};
daemon off;
pid {directory}/upstream.pid;
error_log {directory}/upstream-error.log;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_timeout 300s;
    keepalive_requests 100000000;
    client_max_body_size 0;
    client_body_buffer_size 2m;
    client_body_temp_path {directory}/upstream-body;
    large_client_header_buffers 8 64k;
    open_file_cache max=20;
    default_type text/plain;
    # Who comes second waits a minute, who comes third two: nobody of them is ever answered.
    limit_req_zone $server_name zone=never:1m rate=1r/m;
    server {{
        server_name upstream;
        {listens}
        location / {{
            add_header Cache-Control "no-cache";
            add_header Vary "Accept-Encoding";
            return 200 "{small}";
        }}
        # What the proxy sent, to see that all proxies do the same work.
        location = /seen {{
            return 200 "$http_x_forwarded_for|$connection_requests|$server_protocol";
        }}
        location = /big {{ alias {directory}/big; }}
        location /body/ {{ alias {directory}/body/; }}
        # The mirror makes nginx read the whole body before it answers; a plain return would not.
        location = /upload {{
            mirror /discard;
            error_page 405 =200 /stored;
            alias {directory}/big;
        }}
        location = /stored {{ internal; return 200 "stored"; }}
        location = /discard {{ internal; return 204; }}
        # For clients that leave: no answer, and one that is slow.
        location = /never {{ limit_req zone=never burst=1000000; alias {directory}/big; }}
        location = /slow {{ limit_rate 16k; alias {directory}/big; }}
        location = /status {{ stub_status; }}
    }}
}}
"""


class Upstream:
    """nginx, and how many requests it has had."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port
        self._status = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._asked = 0

    def addresses(self, count: int) -> list[str]:
        """``HOST:PORT`` so many times, each different, all of them this upstream."""
        return [f"{host}:{self.port}" for host in _hosts(count)]

    def requests(self) -> int:
        """How many requests it has had so far, these questions not counted."""
        self._status.request("GET", "/status")
        numbers = self._status.getresponse().read().split(b"\n")[2].split()
        self._asked += 1
        return int(numbers[2]) - self._asked


def _hosts(count: int) -> list[str]:
    more = (f"127.1.{number // 250}.{number % 250 + 1}" for number in range(count - 1))
    return ["127.0.0.1", *more]


def user_line() -> str:
    """As root, nginx would drop to a user that cannot read our directory."""
    return f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""


def start(bench: Bench, port: int, files: int) -> Upstream:
    """Start it; ``files`` is how many it may open."""
    _write_files(bench.directory, BODIES)
    path = bench.directory / "upstream.conf"
    listens = (f"listen {host}:{port} backlog=4096;" for host in _hosts(MAX_ADDRESSES))
    path.write_text(
        _CONFIG.format(
            user=user_line(),
            directory=bench.directory,
            listens="\n        ".join(listens),
            small=SMALL,
            files=files,
            connections=files - 100,  # two proxies may keep 5,000 idle ones each
        )
    )
    command = [str(shutil.which("nginx")), "-e", "stderr", "-p", str(bench.directory)]
    output = bench.directory / "upstream.out"
    process = bench.start([*command, "-c", str(path)], output=output, cores=[bench.load_core])
    return Upstream(process, port)


def _write_files(directory: Path, sizes: Sequence[int]) -> None:
    (directory / "big").write_bytes(os.urandom(MIB))
    (directory / "body").mkdir()
    for size in sizes:
        path = directory / "body" / str(size)
        path.touch()
        os.truncate(path, size)  # sparse: it fills the page cache, not the disk
