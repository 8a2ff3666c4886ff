"""Listeners and connections as such: caps, failures to accept, unix sockets, isolation."""

from __future__ import annotations

import errno

import pytest
import trio
from attrs import evolve

from support.world import GET, PROXY, world
from trio_proxy.settings import Limits


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_out_of_files_backs_off_and_recovers(code: int) -> None:
    """Ten failures to accept cost a second and one warning, and then the client is served."""
    async with world() as w:
        w.upstreams[0].serve()
        w.net.fail_accept(PROXY, code, times=10)
        client = await w.client()
        start = trio.current_time()
        assert (await client.ask(GET)).status == 200
        assert trio.current_time() - start == pytest.approx(1.0)
        warnings = [line for line in w.messages() if "cannot accept" in line]
        assert 1 <= len(warnings) <= 2


async def test_a_connection_that_died_in_the_backlog_costs_nothing() -> None:
    async with world() as w:
        w.upstreams[0].serve()
        w.net.fail_accept(PROXY, errno.ECONNABORTED)
        client = await w.client()
        assert (await client.ask(GET)).status == 200


async def test_further_clients_wait_in_the_backlog() -> None:
    """With max_client_conns 2 the third is not accepted before one of the first two leaves."""
    async with world(limits=Limits(max_client_conns=2)) as w:
        w.upstreams[0].serve()
        first, second, third = [await w.client() for _ in range(3)]
        assert (await first.ask(GET)).status == 200
        assert (await second.ask(GET)).status == 200
        await third.send(GET)
        await trio.sleep(10)
        assert len(w.proxy.service.connections) == 2
        assert w.proxy.stats.requests_total == 2
        first.close()
        assert (await third.read_response()).status == 200
        assert any("max_client_conns (2)" in line for line in w.messages())


async def test_the_cap_is_shared_by_all_listeners() -> None:
    limits = Limits(max_client_conns=1)
    async with world(listen=["10.0.0.1:80", "10.0.0.1:8080"], limits=limits) as w:
        w.upstreams[0].serve()
        one = await w.client()
        other = await w.client(address="10.0.0.1:8080")
        assert (await one.ask(GET)).status == 200
        await other.send(GET)
        await trio.sleep(10)
        assert w.proxy.stats.requests_total == 1
        one.close()
        assert (await other.read_response()).status == 200


async def test_a_unix_socket_listener_serves() -> None:
    """There is no client address to forward, and none is invented."""
    async with world(listen=["unix:/run/proxy.sock"]) as w:
        w.upstreams[0].serve()
        client = await w.client()
        assert (await client.ask(GET)).status == 200
    assert w.exchanges[0].client_ip == "unix:"


async def test_a_unix_socket_upstream_is_used() -> None:
    async with world(upstreams=["unix:/run/app.sock"]) as w:
        w.upstreams[0].serve(b"from a file")
        client = await w.client()
        assert (await client.ask(GET)).body == b"from a file"
        assert (await client.ask(GET)).body == b"from a file"
        assert len(w.upstreams[0].peers) == 1
    assert w.exchanges[0].upstream == "unix:/run/app.sock"


async def test_a_broken_connection_costs_its_neighbours_nothing() -> None:
    """Garbage, resets and half heads around a client that goes on being answered."""
    async with world() as w:
        w.upstreams[0].serve()
        good = await w.client()
        for rubbish in (b"\x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\n", b"", b"\r\n" * 100, GET * 3):
            bad = await w.client()
            await bad.send(rubbish)
            assert (await good.ask(GET)).body == b"ok"
            bad.abort()
            assert (await good.ask(GET)).body == b"ok"


async def test_an_internal_error_costs_one_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the proxy itself is a 500 and a traceback in the log; nobody else notices."""
    async with world(errors_in_log=True) as w:
        w.upstreams[0].serve()
        good = await w.client()
        assert (await good.ask(GET)).status == 200
        handler = w.proxy.service.plan.handler
        with monkeypatch.context() as patch:
            patch.setattr(type(handler), "handle", explode)
            response = await (await w.client()).ask(GET)
        assert response.status == 500
        assert b"secret" not in response.body
        assert (await good.ask(GET)).status == 200
        assert any(record.exc_info for record in w.log)
    assert sorted(exchange.status for exchange in w.exchanges) == [200, 200, 500]


async def explode(*args: object) -> None:
    raise RuntimeError("secret")


class Exploding:
    """Budgets that nobody can read."""

    @property
    def idle(self) -> float:
        raise RuntimeError("secret")


async def test_an_error_in_a_connection_does_not_end_the_server() -> None:
    """Not even one that is met before there is an exchange."""
    async with world(errors_in_log=True) as w:
        w.upstreams[0].serve()
        service = w.proxy.service
        plan, service.plan = service.plan, evolve(service.plan, budgets=Exploding())
        broken = await w.client()
        assert await broken.receive_all() == b""
        service.plan = plan
        assert (await (await w.client()).ask(GET)).status == 200
        assert any("error in a client connection" in line for line in w.messages())
