"""`open_proxy` inside somebody else's program, on real sockets."""

from __future__ import annotations

import gc
import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from support.processes import DEADLINE
from support.rawhttp import Response, get
from trio_proxy import (
    LoggingSettings,
    Proxy,
    Settings,
    TcpAddress,
    Timeouts,
    UnixAddress,
    UpstreamSettings,
    open_proxy,
)
from trio_proxy.exchange.exchange import Exchange

ANY = TcpAddress("127.0.0.1", 0)


def settings_for(port: int, **more: object) -> Settings:
    upstream = UpstreamSettings(host="127.0.0.1", port=port)
    return Settings(**{"listen": (ANY,), "upstreams": (upstream,), **more})


async def ask(proxy: Proxy, target: str) -> Response:
    """One GET of a blocking client, in a thread."""
    address = proxy.address
    assert isinstance(address, TcpAddress)
    return await trio.to_thread.run_sync(get, (address.host, address.port), target)


def assert_nothing_is_held(proxy: Proxy) -> None:
    """No client, no upstream connection, no token, no lost exchange."""
    assert not proxy.service.connections
    assert proxy.client_limiter.borrowed_tokens == 0
    for member in proxy.pools["default"].members:
        assert member.limiter.borrowed_tokens == 0
        assert not member.leased
    assert proxy.pools["default"].queue_length == 0
    assert proxy.stats.client_connections == 0
    assert proxy.stats.requests_in_flight == 0
    assert proxy.stats.orphaned_upstreams == 0


@asynccontextmanager
async def tidy_proxy(settings: Settings, **more: object) -> AsyncIterator[Proxy]:
    """`open_proxy`, with the proof that it leaves nothing behind however the block ends."""
    proxy = None
    try:
        async with open_proxy(settings, **more) as proxy:
            with trio.fail_after(DEADLINE):
                yield proxy
    finally:
        if proxy is not None:
            assert_nothing_is_held(proxy)


async def until_asked(proxy: Proxy) -> None:
    """Wait for a request, by its count: what an exchange begins with can be seen nowhere else."""
    with trio.fail_after(DEADLINE):
        while not proxy.stats.requests_total:  # noqa: ASYNC110
            await trio.sleep(0.005)


async def test_serves_inside_a_block(echo_port: int) -> None:
    """Port 0 is answered with the real one, and ended exchanges are told to the caller."""
    seen: list[Exchange] = []
    async with tidy_proxy(settings_for(echo_port), on_exchange=seen.append) as proxy:
        assert proxy.address.port > 0
        assert proxy.url == f"http://{proxy.address}"
        assert proxy.metrics_address is None
        answer = await ask(proxy, "/embedded")
    assert json.loads(answer.body)["path"] == "/embedded"
    assert [(e.method, e.target, e.status) for e in seen] == [("GET", "/embedded", 200)]


async def test_two_proxies_in_one_process(echo_port: int) -> None:
    """They share nothing: one may even stand before the other."""
    async with tidy_proxy(settings_for(echo_port, metrics_listen=ANY)) as inner:
        async with tidy_proxy(settings_for(inner.address.port)) as outer:
            answer = await ask(outer, "/twice")
            assert inner.metrics_address != inner.address
        headers = json.loads(answer.body)["headers"]
        assert [value for name, value in headers if name == "via"] == ["1.1 trio-proxy"] * 2
        assert (inner.stats.requests_total, outer.stats.requests_total) == (1, 1)
        assert (await ask(inner, "/status/200")).status == 200
        assert outer.stats.requests_total == 1


async def test_in_the_nursery_of_the_caller(echo_port: int) -> None:
    """A task of the caller's holds it, and ends it by cancelling."""

    async def serve(task_status: trio.TaskStatus[Proxy]) -> None:
        async with tidy_proxy(settings_for(echo_port)) as proxy:
            task_status.started(proxy)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        first = await nursery.start(serve)
        second = await nursery.start(serve)
        assert first.address != second.address
        for proxy in (first, second):
            assert (await ask(proxy, "/status/200")).status == 200
        nursery.cancel_scope.cancel()
    with pytest.raises(ConnectionRefusedError):
        await ask(first, "/")


@pytest.mark.parametrize("exc", [KeyError("mine"), OSError(1, "mine"), KeyboardInterrupt()])
async def test_exception_in_the_block_comes_out_as_itself(
    echo_port: int, exc: BaseException
) -> None:
    """No group around it, and the same object."""

    async def fail_in_the_block() -> None:
        async with tidy_proxy(settings_for(echo_port)) as proxy:
            await ask(proxy, "/status/200")
            raise exc

    with pytest.raises(type(exc)) as caught:
        await fail_in_the_block()
    assert caught.value is exc
    gc.collect()


async def test_leaving_the_block_drains(echo_port: int) -> None:
    """A request under way is answered before the block is left."""
    answers = []

    async def slow_client(proxy: Proxy) -> None:
        answers.append(await ask(proxy, "/slow?ms=300"))

    async with trio.open_nursery() as nursery:
        async with tidy_proxy(settings_for(echo_port)) as proxy:
            nursery.start_soon(slow_client, proxy)
            await until_asked(proxy)
        assert proxy.stats.responses[2] == 1
    assert answers[0].status == 200


async def test_drain_is_bounded(echo_port: int) -> None:
    """An exchange that does not end is cut after `drain_ms`; its client sees the end."""

    async def client(proxy: Proxy) -> None:
        with pytest.raises((EOFError, ConnectionResetError)):
            await ask(proxy, "/stream?n=1000&delay_ms=50")

    settings = settings_for(echo_port, timeouts=Timeouts(drain_ms=100))
    async with trio.open_nursery() as nursery, tidy_proxy(settings) as proxy:
        nursery.start_soon(client, proxy)
        await until_asked(proxy)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def test_reload_by_hand(echo_port: int, taken_port: int, unix_path: Path) -> None:
    """`Proxy.reload` takes new settings, and refuses an address that is taken without a change."""
    path = UnixAddress(str(unix_path))
    async with tidy_proxy(settings_for(echo_port)) as proxy:
        before = proxy.address
        await proxy.reload(settings_for(echo_port, listen=(ANY, path)))
        assert proxy.addresses == [before, path]
        answer = await trio.to_thread.run_sync(get, path.path, "/status/200")
        assert answer.status == 200
        taken = settings_for(echo_port, listen=(ANY, TcpAddress("127.0.0.1", taken_port)))
        with pytest.raises(OSError, match="cannot listen on"):
            await proxy.reload(taken)
        assert proxy.addresses == [before, path]
        assert (await ask(proxy, "/status/200")).status == 200


async def test_taken_address_is_an_oserror(echo_port: int, taken_port: int) -> None:
    """What cannot be bound is told by the exception itself, and leaves nothing open."""
    taken = settings_for(echo_port, listen=(ANY, TcpAddress("127.0.0.1", taken_port)))
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{taken_port}: Address already"):
        async with tidy_proxy(taken):
            pytest.fail("it was bound")  # pragma: no cover


async def test_log_goes_to_the_application(
    echo_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Without `on_exchange` there is an access line in the application's own logging tree."""
    caplog.set_level(logging.INFO, logger="trio_proxy")
    async with tidy_proxy(settings_for(echo_port)) as proxy:
        await ask(proxy, "/logged")
    lines = [r.getMessage() for r in caplog.records if r.name == "trio_proxy.access"]
    assert len(lines) == 1
    assert '"GET /logged HTTP/1.1" 200' in lines[0]


async def test_access_log_can_be_off(echo_port: int, caplog: pytest.LogCaptureFixture) -> None:
    """`access = false` is obeyed."""
    caplog.set_level(logging.INFO, logger="trio_proxy")
    settings = settings_for(echo_port, logging=LoggingSettings(access=False))
    async with tidy_proxy(settings) as proxy:
        await ask(proxy, "/unlogged")
    assert not [r for r in caplog.records if r.name == "trio_proxy.access"]
