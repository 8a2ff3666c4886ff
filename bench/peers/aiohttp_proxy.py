"""A reverse proxy of aiohttp's server and client, on uvloop if it is installed.

Usage: aiohttp_proxy.py PORT UPSTREAM_PORT UPSTREAM_CONNECTIONS IDLE_SECONDS

It streams both ways, keeps upstream connections, adds to X-Forwarded-* and logs each request. It is
what a careful user of aiohttp would write, not more: no retries, no limits of its own.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

try:
    from uvloop import new_event_loop
except ImportError:
    from asyncio import new_event_loop

HOP_BY_HOP = (
    "Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
)


class ReverseProxy:
    def __init__(self, upstream_port: int, connections: int, idle_seconds: float) -> None:
        self._origin = f"http://127.0.0.1:{upstream_port}"
        self._connections = connections
        self._idle_seconds = idle_seconds
        self._session: aiohttp.ClientSession

    async def keep_session(self, _app: web.Application) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(
            limit=self._connections, keepalive_timeout=self._idle_seconds
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            timeout=aiohttp.ClientTimeout(total=30, sock_connect=1, sock_read=15),
        ) as self._session:
            yield

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._relay_messages(request)
        try:
            upstream = await self._session.request(
                request.method,
                URL(self._origin + request.raw_path, encoded=True),
                headers=_forwarded(request),
                data=request.content if request.can_read_body else None,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise web.HTTPBadGateway from exc
        async with upstream:
            response = web.StreamResponse(
                status=upstream.status,
                reason=upstream.reason,
                headers=_end_to_end(upstream.headers),
            )
            await response.prepare(request)
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    async def _relay_messages(self, request: web.Request) -> web.WebSocketResponse:
        """aiohttp gives no access to the bytes after an upgrade, only to messages."""
        url = URL(self._origin + request.raw_path, encoded=True)
        async with self._session.ws_connect(url, max_msg_size=0) as upstream:
            client = web.WebSocketResponse(max_msg_size=0)
            await client.prepare(request)
            uploading = asyncio.create_task(_pass_messages(client, upstream))
            try:
                await _pass_messages(upstream, client)
            finally:
                uploading.cancel()
            return client


async def _pass_messages(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    target: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)
        else:
            await target.send_bytes(message.data)
    await target.close()


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    kept = headers.copy()
    for option in headers.get("Connection", "").split(","):
        kept.popall(option.strip(), None)
    for name in HOP_BY_HOP:
        kept.popall(name, None)
    return kept


def _forwarded(request: web.Request) -> CIMultiDict[str]:
    headers = _end_to_end(request.headers)
    before = headers.get("X-Forwarded-For")
    client = request.remote or "unknown"
    headers["X-Forwarded-For"] = f"{before}, {client}" if before else client
    headers["X-Forwarded-Proto"] = request.scheme
    headers["X-Forwarded-Host"] = request.host
    return headers


def main(port: int, upstream_port: int, connections: int, idle_seconds: float) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    proxy = ReverseProxy(upstream_port, connections, idle_seconds)
    app = web.Application()
    app.cleanup_ctx.append(proxy.keep_session)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    loop: asyncio.AbstractEventLoop = new_event_loop()
    options: dict[str, Any] = {"keepalive_timeout": idle_seconds, "backlog": 4096}
    web.run_app(app, host="127.0.0.1", port=port, loop=loop, print=None, **options)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]))
