"""Fixtures of the tests on real sockets: other servers, curl, and the proof of tidiness."""

from __future__ import annotations

import gc
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.dns_server import DnsServer, running_dns
from support.processes import (
    DEADLINE,
    Curl,
    children,
    echo_on_port,
    lacking,
    open_descriptors,
    wait_until,
)
from support.proxy_process import ProxyProcess, running_proxy
from support.redis_server import RedisServer, need_coredis
from trio_proxy.net.dial import SocketNetwork
from trio_proxy.net.dns import nameservers as dns
from trio_proxy.net.dns import resolver


@pytest.fixture(scope="session", autouse=True)
def signals_are_heeded() -> None:
    """Child processes heed SIGINT and SIGHUP, also where ``&`` or ``nohup`` has pytest ignore them.

    What is ignored is inherited, a handler is not.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test in a `real` folder: no new child process and no new open file."""
    if "real" not in request.path.parts:
        yield
        return
    before, files = children(), set(open_descriptors().items())
    yield
    wait_until(lambda: children() <= before, "the child processes end")
    wait_until(lambda: not _left(files), f"open files are closed: {_left(files)}")


def _left(before: set[tuple[int, str]]) -> set[tuple[int, str]]:
    """What has been opened since; a thread that was given up may close its files a little later."""
    gc.collect()
    return set(open_descriptors().items()) - before


@pytest.fixture
def unix_path() -> Iterator[Path]:
    """Where a unix socket may be made.

    Its path takes at most 107 bytes, and `tmp_path` may be longer already where TMPDIR is.
    """
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="proxy-") as directory:
        yield Path(directory) / "x.sock"


@pytest.fixture(scope="session")
def echo_port() -> Iterator[int]:
    """The port of a uvicorn that serves ``tests/support/echo_app.py``."""
    with echo_on_port() as port:
        yield port


@pytest.fixture(scope="module")
def shared_proxy(
    echo_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxyProcess]:
    """A proxy process before `echo_port`, for all tests of a module that leave it as it is."""
    with running_proxy(tmp_path_factory.mktemp("proxy"), [echo_port]) as proxy:
        yield proxy


@pytest.fixture
def proxy(shared_proxy: ProxyProcess) -> Iterator[ProxyProcess]:
    """The shared proxy; after the test nothing of it is left in there."""
    yield shared_proxy
    shared_proxy.wait_until_quiet()


@pytest.fixture
def nameserver() -> Iterator[DnsServer]:
    """A DNS server with nothing in it."""
    with running_dns() as server:
        yield server


@pytest.fixture
def other_nameserver() -> Iterator[DnsServer]:
    """One more."""
    with running_dns() as server:
        yield server


@pytest.fixture
def network(patient_dns: None, nameserver: DnsServer) -> Iterator[SocketNetwork]:
    """Asks the nameserver, and nobody else."""
    network = SocketNetwork(nameservers=[nameserver.where])
    yield network
    network.close()


@pytest.fixture
def patient_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no reason to ask again or to go without an answer."""
    monkeypatch.setattr(dns, "ATTEMPT_SECONDS", DEADLINE)
    monkeypatch.setattr(dns, "GRACE_SECONDS", DEADLINE)
    monkeypatch.setattr(dns, "LIFETIME_SECONDS", 2 * DEADLINE)
    monkeypatch.setattr(resolver, "LIFETIME_SECONDS", 2 * DEADLINE)


@pytest.fixture
def impatient_dns(patient_dns: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up may take a fraction of a second."""
    monkeypatch.setattr(dns, "LIFETIME_SECONDS", 0.2)
    monkeypatch.setattr(resolver, "LIFETIME_SECONDS", 0.2)


@pytest.fixture(scope="session")
def coredis() -> None:
    """For tests of what is done by it."""
    need_coredis()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server of the test's own."""
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture(scope="session")
def curl() -> Curl:
    """Runs curl with the given arguments; its output is bytes, its failure is left to the test."""
    path = shutil.which("curl")
    if path is None:
        lacking("curl is not installed")

    def run(*args: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        argv = [path, "-q", "-sS", "--noproxy", "*", "--max-time", str(DEADLINE), *map(str, args)]
        return subprocess.run(argv, input=stdin, capture_output=True, check=False)

    return run
