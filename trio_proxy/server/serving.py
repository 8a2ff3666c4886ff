"""Serving for as long as a block of the program lasts.

The nursery of the client connections lies inside that of everything that serves them (accept
loops, hang-up watch, reaper, log writer), so that a stop ends the accept loops first, drains the
connections, and only then takes the helpers away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from trio_proxy.exchange.contract import Handler, Middleware
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.net.dial import SocketNetwork
from trio_proxy.net.network import Network
from trio_proxy.server.plugins import Plugins
from trio_proxy.server.proxy import Proxy, check_settings
from trio_proxy.settings import Settings
from trio_proxy.telemetry.logwriter import LogWriter
from trio_proxy.telemetry.outputs import LoggingSink


@asynccontextmanager
async def open_proxy(
    settings: Settings,
    *,
    network: Network | None = None,
    on_exchange: Callable[[Exchange], None] | None = None,
    handlers: Mapping[str, Handler] | None = None,
    middlewares: Sequence[Middleware] | Mapping[str, Middleware] = (),
) -> AsyncIterator[Proxy]:
    """Serve inside an ``async with`` block: ``async with open_proxy(settings) as proxy: ...``.

    Leaving the block normally drains the proxy; an exception or a cancellation stops it at once.
    ``network`` replaces the operating system's (see `trio_proxy.testing.SimNet`); its ``run`` is
    then the caller's business. ``on_exchange`` is called with each ended exchange, instead of an
    access log through the logger ``trio_proxy.access``; if it raises, that is logged, and the proxy
    goes on. ``settings.workers`` is for the program: here it is one event loop in any case.

    ``handlers`` are those that routes can name: ``RouteSettings(path="/hello", handler="hello")``.
    ``middlewares`` stand in front of every route, the first of them outermost; or, as a mapping, in
    front of those routes that name them. Both are instances, which go on through every reload.

    Raises OSError if an address cannot be bound, `ConfigError` for a name in a route that nothing
    has and for a middleware of the settings that cannot be made, TypeError for what is no instance.
    """
    check_settings(settings)
    plugins = Plugins(handlers, middlewares)
    own_network = SocketNetwork() if network is None else None
    writer = None
    if on_exchange is None:
        writer = LogWriter(LoggingSink())
        on_exchange = writer.put
    used: Network = own_network or network  # type: ignore[assignment] # one of them is there
    proxy = Proxy(settings, used, on_exchange, plugins=plugins)
    helpers = [each.run for each in (own_network, writer) if each is not None]
    try:
        async with serving(proxy, *helpers):
            yield proxy
    finally:
        if writer is not None:
            await writer.flush()
        if own_network is not None:
            own_network.close()


@asynccontextmanager
async def serving(proxy: Proxy, *helpers: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Bind, and serve for as long as the block lasts; ``helpers`` are tasks that outlast a drain.

    See `open_proxy`.
    """
    failure: BaseException | None = None
    try:
        await proxy.bind()
        async with trio.open_nursery() as background:
            for helper in helpers:
                background.start_soon(helper)
            async with trio.open_nursery() as connections:
                proxy.start(background, connections)
                try:
                    yield
                    await proxy.drain()
                except BaseException as exc:  # noqa: BLE001 - raised again below
                    # Kept out of the nurseries, so that the caller gets it back as it was raised.
                    failure = exc
                proxy.close_listeners()  # a token that comes free now must not let another one in
                connections.cancel_scope.cancel(reason="the proxy is closing")
            background.cancel_scope.cancel(reason="the proxy is closing")
        if failure is not None:
            raise failure
    finally:
        proxy.close_listeners()
        proxy.close_idle()
