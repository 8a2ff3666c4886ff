"""The upstream that all proxies share: one nginx worker, on the core of the load."""

from __future__ import annotations

import os
import pwd
import shutil

from processes import Bench, Process

MIB = 1024 * 1024
SMALL = "0123456789abcde " * 8

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
    open_file_cache max=10;
    default_type text/plain;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
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
        # The mirror makes nginx read the whole body before it answers; a plain return would not.
        location = /upload {{
            mirror /discard;
            error_page 405 =200 /stored;
            alias {directory}/big;
        }}
        location = /stored {{ internal; return 200 "stored"; }}
        location = /discard {{ internal; return 204; }}
    }}
}}
"""


def user_line() -> str:
    """As root, nginx would drop to a user that cannot read our directory."""
    return f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""


def start(bench: Bench, port: int, files: int) -> Process:
    (bench.directory / "big").write_bytes(os.urandom(MIB))
    path = bench.directory / "upstream.conf"
    path.write_text(
        _CONFIG.format(
            user=user_line(),
            directory=bench.directory,
            port=port,
            small=SMALL,
            files=files,
            connections=min(4096, files - 100),
        )
    )
    command = [str(shutil.which("nginx")), "-e", "stderr", "-p", str(bench.directory)]
    return bench.start("upstream", [*command, "-c", str(path)], core=bench.load_core)
