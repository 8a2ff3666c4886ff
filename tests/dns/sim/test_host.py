"""What Host says to an upstream that was found by DNS: its name, not its address."""

from __future__ import annotations

import pytest

from support.naming import (
    A_IP,
    APP,
    B_IP,
    HOST,
    OTHER,
    OTHER_HOST,
    SERVICE,
    NamedNet,
    named_settings,
    named_world,
    service,
)
from support.pools import A, ask, serve
from support.scenario import until_ms
from trio_proxy.settings import HeaderSettings, Health

OF_UPSTREAM = HeaderSettings(host="upstream")


async def test_the_host_that_an_upstream_is_told_is_the_name() -> None:
    """``host = "upstream"`` sends what the file says (nginx: $proxy_host), not what DNS says."""
    async with named_world(NamedNet(A_IP), headers=OF_UPSTREAM) as w:
        one = serve(w)[0]
        await ask(w, 1)
        assert one.requests[0][b"host"] == APP.encode()


async def test_the_host_of_a_service_is_that_of_its_record() -> None:
    """The target and port of the SRV record by which it was found."""
    net = NamedNet(A_IP)
    net.service(SERVICE, (HOST, 9000, 0, 0))
    async with named_world(net, [service()], headers=OF_UPSTREAM) as w:
        one = serve(w)[0]
        await ask(w, 1)
        assert one.requests[0][b"host"] == APP.encode()


async def test_the_host_of_a_health_check_is_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual host that goes by its name would answer nothing else."""
    monkeypatch.setattr("random.random", lambda: 0.5)
    async with named_world(NamedNet(A_IP), health=Health(path="/up", interval_ms=1000)) as w:
        one = serve(w)[0]
        await until_ms(501)
        assert one.requests[0][b"host"] == APP.encode()


async def test_the_default_port_goes_unsaid() -> None:
    """As a browser would have it."""
    net = NamedNet(A_IP)
    async with named_world(net, ["app.test:80"], servers=[f"{A_IP}:80"], headers=OF_UPSTREAM) as w:
        one = serve(w)[0]
        await ask(w, 1)
        assert one.requests[0][b"host"] == b"app.test"


async def test_an_address_that_goes_from_one_name_to_another() -> None:
    """The first name that has it counts, so it changes with DNS; the connection stays."""
    net = NamedNet(A_IP, B_IP)
    net.name(OTHER_HOST, A_IP)
    async with named_world(net, [APP, OTHER], headers=OF_UPSTREAM) as w:
        one = serve(w)[0]
        await ask(w, 2)
        net.name(HOST, B_IP)
        await until_ms(30_001)
        await ask(w, 2)
        assert [request[b"host"] for request in one.requests] == [APP.encode(), OTHER.encode()]
        assert len(w.upstreams[0].peers) == 1


async def test_a_reload_that_renames_an_upstream() -> None:
    """By a name, by another, by its address: the next request is told what the file says."""
    net = NamedNet(A_IP)
    net.name(OTHER_HOST, A_IP)
    async with named_world(net, headers=OF_UPSTREAM) as w:
        one = serve(w)[0]
        await ask(w, 1)
        for name in (OTHER, A):
            await w.reload(named_settings([name], headers=OF_UPSTREAM))
            await ask(w, 1)
        hosts = [request[b"host"].decode() for request in one.requests]
        assert hosts == [APP, OTHER, A]
        assert len(w.upstreams[0].peers) == 1
