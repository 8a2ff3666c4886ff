"""``trio-proxy demo``: two echo upstreams and a proxy before them, in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import click
import trio

from trio_proxy.front.acceptor import Acceptor
from trio_proxy.front.plan import Plan
from trio_proxy.front.service import Service
from trio_proxy.handlers.echo import EchoHandler
from trio_proxy.http.addresses import Address, TcpAddress
from trio_proxy.net.dial import SocketNetwork
from trio_proxy.server.build import budgets
from trio_proxy.server.metrics_port import Unobserved
from trio_proxy.server.proxy import Proxy
from trio_proxy.server.run import serve
from trio_proxy.settings import DEFAULT_POOL, Settings, Timeouts, UpstreamSettings
from trio_proxy.telemetry.logwriter import LogWriter

ANY_PORT = TcpAddress("127.0.0.1", 0)

#: Connections to one echo upstream.
MAX_ECHO_CONNS = 1000


def proxy_settings(upstreams: tuple[TcpAddress, ...] = (TcpAddress("127.0.0.1", 1),)) -> Settings:
    """The demo's configuration, with every port chosen by the system."""
    return Settings(
        listen=(ANY_PORT,),
        metrics_listen=ANY_PORT,
        timeouts=Timeouts(total_ms=0),  # somebody may watch a stream
        upstreams=tuple(UpstreamSettings(host=one.host, port=one.port) for one in upstreams),
    )


@asynccontextmanager
async def echo_upstream(network: SocketNetwork, name: str) -> AsyncIterator[Address]:
    """An upstream that answers with what it was sent, for as long as the block lasts."""
    plan = Plan(handler=EchoHandler(name), budgets=budgets(proxy_settings()))
    service = Service(plan, Unobserved())
    listener = await network.listen(ANY_PORT)
    async with trio.open_nursery() as nursery:
        acceptor = Acceptor(service, trio.CapacityLimiter(MAX_ECHO_CONNS), nursery)
        nursery.start_soon(service.timers.run)
        nursery.start_soon(acceptor.run, listener)
        try:
            yield listener.address
        finally:
            listener.close()
            nursery.cancel_scope.cancel()


async def run(writer: LogWriter) -> None:
    """Serve the demo until it is stopped by a signal. Raises OSError."""
    network = SocketNetwork()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.run)
        async with echo_upstream(network, "one") as one, echo_upstream(network, "two") as two:
            addresses = [one, two]
            tcp = tuple(address for address in addresses if isinstance(address, TcpAddress))
            settings = proxy_settings(tcp)
            await serve(
                settings,
                source="the demo",
                load=lambda: settings,
                writer=writer,
                started=lambda proxy: click.echo(_advice(proxy)),
            )
        nursery.cancel_scope.cancel()
    network.close()


def _advice(proxy: Proxy) -> str:
    members = proxy.pools[DEFAULT_POOL].members
    upstreams = " and ".join(member.name for member in members)
    return f"""
trio-proxy is running on {proxy.url}, before two echo upstreams on {upstreams}.
Try, in another terminal:

    curl {proxy.url}/hello                  # answered by each upstream in turn
    curl -d 'some body' {proxy.url}/form
    curl -N {proxy.url}/events              # server-sent events, one a second, unbuffered
    curl http://{proxy.metrics_address}/metrics

Stop it with Ctrl-C.
"""
