"""Upstreams that are found by DNS, and move: the proxy process, and a DNS server of the test.

Two upstreams listen on one port of 127.0.0.1 and 127.0.0.2; names are looked up each 100 ms.
"""

from __future__ import annotations

import http.client
import itertools
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from support.dns_server import DnsServer
from support.processes import DEADLINE, wait_until
from support.proxy_process import ProxyProcess, running_proxy, write_config
from support.rawhttp import RawClient, get
from support.upstreams import ScriptedUpstream, named

ONE, TWO = "127.0.0.1", "127.0.0.2"
SERVICE = "_http._tcp.app.test"


@frozen
class Upstreams:
    """``port`` is that of both; each answers with ``one`` or ``two``."""

    one: ScriptedUpstream
    two: ScriptedUpstream

    @property
    def port(self) -> int:
        return self.one.port

    def name(self, host: str) -> str:
        """An upstream as logs and metrics show it."""
        return f"{host}:{self.port}"


@pytest.fixture
def upstreams() -> Iterator[Upstreams]:
    with ExitStack() as stack:
        one = stack.enter_context(ScriptedUpstream(named(b"one")))
        two = stack.enter_context(ScriptedUpstream(named(b"two"), (TWO, one.port)))
        yield Upstreams(one, two)


def asking(*servers: DnsServer, refresh_ms: int = 100) -> dict[str, Any]:
    """The ``[dns]`` table."""
    return {"nameservers": [each.where for each in servers], "refresh_ms": refresh_ms}


def bodies(proxy: ProxyProcess, count: int = 4) -> list[bytes]:
    with RawClient(proxy.where) as client:
        return sorted(client.get("/").body for _ in range(count))


def shown(proxy: ProxyProcess) -> set[str]:
    """The upstreams in the metrics."""
    prefix = 'proxy_upstream_up{pool="default",upstream="'
    return {key.removeprefix(prefix)[:-2] for key in proxy.metrics() if key.startswith(prefix)}


def wait_until_shown(proxy: ProxyProcess, *names: str) -> None:
    wait_until(lambda: shown(proxy) == set(names), f"the metrics show {names} and no others")


def wait_until_asked(nameserver: DnsServer) -> None:
    """Until a question comes that was not there before."""
    nameserver.was_asked.clear()
    assert nameserver.was_asked.wait(DEADLINE)


def test_a_name_moves(tmp_path: Path, nameserver: DnsServer, upstreams: Upstreams) -> None:
    """From one address to both and to the other; through a failure of DNS; and nobody is lost."""
    nameserver.records["app.test"] = {"A": [ONE]}
    name = f"app.test:{upstreams.port}"
    one, two = upstreams.name(ONE), upstreams.name(TWO)
    with running_proxy(tmp_path, [name], dns=asking(nameserver)) as proxy:
        assert shown(proxy) == {one}
        assert bodies(proxy) == [b"one"] * 4
        nameserver.records["app.test"] = {"A": [ONE, TWO]}
        wait_until_shown(proxy, one, two)
        assert bodies(proxy) == [b"one", b"one", b"two", b"two"]
        nameserver.records["app.test"] = {"A": [TWO]}
        proxy.err.wait_for(f"upstream {one} removed, 0 exchanges left")
        wait_until_shown(proxy, two)
        assert bodies(proxy) == [b"two"] * 4
        nameserver.fail("app.test")
        kept = f"SERVFAIL; what was known of {name} before is kept"
        proxy.err.wait_for(rf"dns: cannot resolve app\.test: .*{kept}")
        assert bodies(proxy) == [b"two"] * 4
        nameserver.heal()
        nameserver.records["app.test"] = {"A": [ONE]}
        proxy.err.wait_for(f"dns: {name} is found again")
        wait_until_shown(proxy, one)
        assert bodies(proxy) == [b"one"] * 4
        assert len(proxy.err.matching("dns: ")) == 2
        assert (
            proxy.metrics()[f'proxy_upstream_requests_total{{pool="default",upstream="{one}"}}']
            == 4
        )


def test_a_service_moves(tmp_path: Path, nameserver: DnsServer, upstreams: Upstreams) -> None:
    """Weights share the load, priorities make backups, and both are heeded when they change."""
    nameserver.records["one.test"], nameserver.records["two.test"] = {"A": [ONE]}, {"A": [TWO]}
    port, two = upstreams.port, upstreams.name(TWO)
    nameserver.records[SERVICE] = {"SRV": [f"0 3 {port} one.test.", f"0 1 {port} two.test."]}
    with running_proxy(tmp_path, [{"srv": SERVICE}], dns=asking(nameserver)) as proxy:
        assert bodies(proxy, 8) == [b"one"] * 6 + [b"two"] * 2
        nameserver.records[SERVICE] = {"SRV": [f"1 3 {port} one.test.", f"0 9 {port} two.test."]}
        weight = f'proxy_upstream_weight{{pool="default",upstream="{two}"}}'
        wait_until(lambda: proxy.metrics()[weight] == 9, "the new weight is known")
        assert bodies(proxy) == [b"two"] * 4
        nameserver.records[SERVICE] = {"SRV": [f"1 3 {port} one.test."]}
        wait_until_shown(proxy, upstreams.name(ONE))
        assert bodies(proxy) == [b"one"] * 4


def test_nobody_notices_a_server_that_moves_all_the_time(
    tmp_path: Path, nameserver: DnsServer, upstreams: Upstreams
) -> None:
    """Four clients ask without a pause while the address changes ten times: 200 for each."""
    nameserver.records["app.test"] = {"A": [ONE]}
    name, dns = f"app.test:{upstreams.port}", asking(nameserver, refresh_ms=20)
    answers: Counter[tuple[int, bytes]] = Counter()
    over = threading.Event()

    def ask(port: int) -> None:
        connection = http.client.HTTPConnection(ONE, port, timeout=DEADLINE)
        while not over.is_set():
            connection.request("GET", "/")
            answer = connection.getresponse()
            answers[answer.status, answer.read()] += 1
        connection.close()

    with running_proxy(tmp_path, [name], dns=dns, logging={"access": False}) as proxy:
        clients = [threading.Thread(target=ask, args=(proxy.port,)) for _ in range(4)]
        for client in clients:
            client.start()
        for host in itertools.islice(itertools.cycle((TWO, ONE)), 10):
            nameserver.records["app.test"] = {"A": [host]}
            wait_until_shown(proxy, upstreams.name(host))
        over.set()
        for client in clients:
            client.join(DEADLINE)
        line = f"upstream {upstreams.name(TWO)} added"
        wait_until(lambda: len(proxy.err.matching(line)) == 5, "each move is logged")
    assert set(answers) == {(200, b"one"), (200, b"two")}


def test_a_name_that_is_not_known_at_the_start(
    tmp_path: Path, nameserver: DnsServer, upstreams: Upstreams
) -> None:
    """The proxy starts, says that DNS is to blame, and serves as soon as it has an answer."""
    name = f"app.test:{upstreams.port}"
    with running_proxy(tmp_path, [name], dns=asking(nameserver)) as proxy:
        proxy.err.wait_for(r"dns: cannot resolve app\.test: there is no such name")
        answer = get(proxy.where, "/")
        assert (answer.status, answer.header("proxy-status")) == (
            502,
            "trio-proxy; error=dns_error",
        )
        nameserver.records["app.test"] = {"A": [TWO]}
        wait_until_shown(proxy, upstreams.name(TWO))
        assert bodies(proxy) == [b"two"] * 4


def test_a_server_that_is_silent_at_the_start(
    tmp_path: Path, nameserver: DnsServer, upstreams: Upstreams
) -> None:
    """It costs the start a second, and neither requests nor the stop anything."""
    nameserver.silent = {("app.test", "A"), ("app.test", "AAAA")}
    names = [upstreams.port, f"app.test:{upstreams.port}"]
    with running_proxy(tmp_path, names, dns=asking(nameserver)) as proxy:
        proxy.err.wait_for("dns: no answer within 1 s for app.test")
        with RawClient(proxy.where) as client:
            assert client.get("/").body == b"one"
        wait_until_asked(nameserver)
        began = time.monotonic()
    assert time.monotonic() - began < 4, "a stop does not wait for the look-up, which takes 5 s"


def test_a_reload_changes_the_servers(
    tmp_path: Path, nameserver: DnsServer, other_nameserver: DnsServer, upstreams: Upstreams
) -> None:
    """What the new one says counts, and the old one is asked no more."""
    nameserver.records["app.test"] = {"A": [ONE]}
    other_nameserver.records["app.test"] = {"A": [TWO]}
    names = [f"app.test:{upstreams.port}"]
    with running_proxy(tmp_path, names, dns=asking(nameserver)) as proxy:
        assert bodies(proxy) == [b"one"] * 4
        assert other_nameserver.asked == []
        write_config(tmp_path, names, dns=asking(other_nameserver))
        proxy.reload()
        wait_until_shown(proxy, upstreams.name(TWO))
        assert bodies(proxy) == [b"two"] * 4
        nameserver.asked.clear()
        wait_until_asked(other_nameserver)
        assert nameserver.asked == []


def test_other_servers_are_asked_at_once(
    tmp_path: Path, nameserver: DnsServer, other_nameserver: DnsServer, upstreams: Upstreams
) -> None:
    """Not only after refresh_ms, which may be long, or never."""
    nameserver.records["app.test"] = {"A": [ONE]}
    other_nameserver.records["app.test"] = {"A": [TWO]}
    names = [f"app.test:{upstreams.port}"]
    with running_proxy(tmp_path, names, dns=asking(nameserver, refresh_ms=0)) as proxy:
        assert bodies(proxy) == [b"one"] * 4
        write_config(tmp_path, names, dns=asking(other_nameserver, refresh_ms=0))
        proxy.reload()
        assert bodies(proxy) == [b"two"] * 4


def test_a_refused_reload_keeps_the_servers(
    tmp_path: Path, nameserver: DnsServer, other_nameserver: DnsServer, upstreams: Upstreams
) -> None:
    """Nothing has changed, so nobody else is asked."""
    nameserver.records["app.test"] = {"A": [ONE]}
    other_nameserver.records["app.test"] = {"A": [TWO]}
    names = [f"app.test:{upstreams.port}"]
    with running_proxy(tmp_path, names, dns=asking(nameserver)) as proxy:
        taken = ["127.0.0.1:0", f"127.0.0.1:{upstreams.port}"]
        write_config(tmp_path, names, listen=taken, dns=asking(other_nameserver))
        start = len(proxy.err)
        proxy.signal(signal.SIGHUP)
        proxy.err.wait_for("reload refused: .*cannot listen on", start=start)
        wait_until_asked(nameserver)  # nothing that began in between is under way any more
        other_nameserver.asked.clear()
        wait_until_asked(nameserver)
        assert bodies(proxy) == [b"one"] * 4
        assert other_nameserver.asked == []
