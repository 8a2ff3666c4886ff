"""Several pools in the program: the example that is shipped, workers, reloads."""

from __future__ import annotations

import re
from pathlib import Path

from support.crews import clients_of_all, pids_of
from support.dns_server import DnsServer
from support.processes import ROOT, wait_until
from support.proxy_process import ProxyProcess
from support.rawhttp import RawClient, get
from support.traffic import Traffic
from support.upstreams import ScriptedUpstream, named

HEAD = 'listen = "127.0.0.1:0"\nmetrics_listen = "127.0.0.1:0"\n'


def pool(name: str, path: str, *ports: int, more: str = "") -> str:
    """A pool, and the route to it."""
    upstreams = "".join(
        f'[[pools.{name}.upstreams]]\nhost = "127.0.0.1"\nport = {port}\n' for port in ports
    )
    return f'[[routes]]\npath = "{path}"\npool = "{name}"\n{upstreams}{more}'


def requests_of(proxy: ProxyProcess, name: str, port: int) -> float | None:
    labels = f'pool="{name}",upstream="127.0.0.1:{port}"'
    return proxy.metrics().get(f"proxy_upstream_requests_total{{{labels}}}")


def test_the_example_is_served_as_it_says(tmp_path: Path) -> None:
    """Word for word, on other ports."""
    text = (ROOT / "conf" / "pools.toml").read_text()
    with (
        ScriptedUpstream(named(b"api")) as one,
        ScriptedUpstream(named(b"api")) as two,
        ScriptedUpstream(named(b"site")) as site,
    ):
        for before, after in (("9001", one), ("9002", two), ("9003", site)):
            text = text.replace(f"port = {before}", f"port = {after.port}")
        text = re.sub(r"127\.0\.0\.1:808[01]", "127.0.0.1:0", text)
        path = tmp_path / "pools.toml"
        path.write_text(text)
        with ProxyProcess("run", path, cwd=tmp_path) as proxy:
            proxy.wait_until_started()
            answers = {each: get(proxy.where, each).body for each in ("/", "/v1", "/v1/x", "/v1x")}
            assert answers == {"/": b"site", "/v1": b"api", "/v1/x": b"api", "/v1x": b"site"}
            up = {
                key: n for key, n in proxy.metrics().items() if key.startswith("proxy_upstream_up")
            }
            assert up == {
                f'proxy_upstream_up{{pool="{name}",upstream="127.0.0.1:{each.port}"}}': 1
                for name, each in (("api", one), ("api", two), ("site", site))
            }
            assert not proxy.err.matching("no route leads")


def test_check_mentions_a_pool_that_no_route_leads_to(tmp_path: Path) -> None:
    """It is no problem, so the status is that of a good file; the program says it, too."""
    path = tmp_path / "x.toml"
    with ScriptedUpstream(named(b"web")) as web:
        unused = '[[pools.old.upstreams]]\nhost = "127.0.0.1"\nport = 1\n'
        path.write_text(HEAD + pool("web", "/", web.port) + unused)
        with ProxyProcess("check", path, cwd=tmp_path) as proxy:
            assert proxy.wait_for_end() == 0
        assert proxy.err.text() == f"{path}: pools.old: no route leads to it\n".strip()
        assert proxy.out.text() == f"{path}: ok"
        with ProxyProcess("run", path, cwd=tmp_path) as proxy:
            proxy.wait_until_started()
            proxy.err.wait_for("WARNING - pools.old: no route leads to it")
            assert get(proxy.where, "/").body == b"web"


def test_workers_serve_two_pools_and_take_a_third(tmp_path: Path) -> None:
    """The metrics are sums for each pool; a pool that is taken away goes from all of them."""
    path = tmp_path / "x.toml"
    times = "[timeouts]\nhead_ms = 300\n"
    with (
        ScriptedUpstream(named(b"api")) as api,
        ScriptedUpstream(named(b"web")) as web,
        ScriptedUpstream(named(b"new")) as new,
    ):
        limits = "[pools.api.limits]\nmax_conns_per_upstream = 1\n"
        web_text = pool("web", "/", web.port)
        head = HEAD + "workers = 2\n"
        path.write_text(head + pool("api", "/v1", api.port, more=limits) + web_text + times)
        with ProxyProcess("run", path, cwd=tmp_path) as proxy:
            proxy.wait_until_started()
            proxy.err.wait_for(r"pools.api.limits.max_conns_per_upstream is 1: each of 2 workers")
            with clients_of_all(proxy) as clients:
                for client in clients.values():
                    assert client.get("/v1").body == b"api"
                    assert [client.get("/").body for _ in range(2)] == [b"web"] * 2
                assert requests_of(proxy, "api", api.port) == 2
                assert requests_of(proxy, "web", web.port) == 4
                assert proxy.metrics()['proxy_queue_length{pool="api"}'] == 0
                pids = pids_of(proxy)
                path.write_text(head + pool("new", "/v1", new.port) + web_text + times)
                proxy.reload()
                for client in clients.values():
                    assert client.get("/v1").body == b"new"
                    assert client.get("/").body == b"web"
                assert pids_of(proxy) == pids
                assert requests_of(proxy, "web", web.port) == 6
                wait_until(
                    lambda: not any('pool="api"' in key for key in proxy.metrics()),
                    "the pool that was taken away is forgotten by both",
                )
                assert requests_of(proxy, "new", new.port) == 2


def test_a_route_moves_to_another_pool_under_traffic(tmp_path: Path) -> None:
    """From blue to green and back, again and again: no request fails."""
    path = tmp_path / "x.toml"
    with (
        ScriptedUpstream(named(b"blue")) as blue,
        ScriptedUpstream(named(b"green")) as green,
    ):
        texts = [HEAD + pool("blue", "/", blue.port), HEAD + pool("green", "/", green.port)]
        path.write_text(texts[0])
        with ProxyProcess("run", path, cwd=tmp_path) as proxy:
            proxy.wait_until_started()
            with RawClient(proxy.where) as client:

                def ask() -> None:
                    assert client.get("/").body in (b"blue", b"green")

                def ask_anew() -> None:
                    assert get(proxy.where, "/").status == 200

                with Traffic(ask) as kept, Traffic(ask_anew) as fresh:
                    for number in range(6):
                        path.write_text(texts[(number + 1) % 2])
                        proxy.reload()
                        kept.wait_for_more(10)
                        fresh.wait_for_more(3)
                assert kept.failures == fresh.failures == []
            proxy.wait_until_quiet()


def test_each_pool_asks_its_own_name_servers(
    tmp_path: Path, nameserver: DnsServer, other_nameserver: DnsServer
) -> None:
    """One name is two servers, and a pool that is told to ask the other one moves alone."""
    nameserver.records["app.test"] = {"A": ["127.0.0.1"]}
    other_nameserver.records["app.test"] = {"A": ["127.0.0.2"]}
    path = tmp_path / "x.toml"

    def write(api: DnsServer, web: DnsServer) -> None:
        path.write_text(
            HEAD
            + "".join(
                f'[[routes]]\npath = "/{name}"\npool = "{name}"\n'
                f'[[pools.{name}.upstreams]]\nhost = "app.test"\nport = {one.port}\n'
                f'[pools.{name}.dns]\nnameservers = ["{server.where}"]\n'
                for name, server in (("api", api), ("web", web))
            )
        )

    with (
        ScriptedUpstream(named(b"one")) as one,
        ScriptedUpstream(named(b"two"), ("127.0.0.2", one.port)),
    ):
        write(nameserver, other_nameserver)
        with ProxyProcess("run", path, cwd=tmp_path) as proxy:
            proxy.wait_until_started()
            assert get(proxy.where, "/api").body == b"one"
            assert get(proxy.where, "/web").body == b"two"
            write(nameserver, nameserver)
            proxy.reload()
            assert get(proxy.where, "/api").body == b"one"
            assert get(proxy.where, "/web").body == b"one"
