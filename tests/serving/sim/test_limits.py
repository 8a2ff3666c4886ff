"""The limits on clients and bodies, and that one connection's trouble stays its own."""

from __future__ import annotations

import errno

import trio

from support.scenario import (
    GET,
    connections,
    ending,
    how_it_ends,
    now_ms,
    only,
    post,
    refusal,
    upstream_errors,
)
from support.world import settings_for, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.settings import Limits

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_clients_beyond_the_limit_wait_in_the_backlog() -> None:
    """They are served in the order in which they came, as others leave."""
    served: list[int] = []
    async with world(timeouts=only(), limits=Limits(max_client_conns=2)) as w:
        w.upstreams[0].serve()

        async def visit(number: int) -> None:
            await trio.sleep(number / 1000)
            client = await w.client()
            assert (await client.ask(GET)).body == b"ok"
            served.append(number)
            await trio.sleep(1)
            client.close()

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(visit, number)
            for _ in range(45):
                await trio.sleep(0.1)
                assert w.proxy.stats.client_connections <= 2
        assert now_ms() == 4500
    assert served == list(range(8))


async def test_the_limit_on_clients_can_be_moved() -> None:
    """Raised, those who wait come in at once; lowered, nobody is thrown out."""
    async with world(timeouts=only(), limits=Limits(max_client_conns=1)) as w:
        w.upstreams[0].serve()
        clients = [await w.client() for _ in range(3)]
        for client in clients:
            await client.send(GET)
        await trio.sleep(1)
        assert w.proxy.stats.client_connections == 1
        await w.reload(settings_for(timeouts=only(), limits=Limits(max_client_conns=3)))
        for client in clients:
            assert (await client.read_response()).body == b"ok"
        assert now_ms() == 1000
        await w.reload(settings_for(timeouts=only(), limits=Limits(max_client_conns=1)))
        for client in clients:
            assert (await client.ask(GET)).body == b"ok"
        late = await w.client()
        await late.send(GET)
        for client in clients:
            await trio.sleep(1)
            assert not late.stream.is_readable()
            client.close()
        assert (await late.read_response()).body == b"ok"
        assert now_ms() == 4000


async def test_accept_backs_off_when_the_system_has_no_more_files() -> None:
    """EMFILE is logged once, the client is served when there are files again."""
    async with world(timeouts=only()) as w:
        w.upstreams[0].serve()
        w.net.fail_accept(w.proxy.address, errno.EMFILE, times=30)
        client = await w.client()
        assert (await client.ask(GET)).body == b"ok"
        assert 2000 <= now_ms() <= 4000
        (complaint,) = [line for line in w.messages() if "cannot accept" in line]
        assert "Too many open files" in complaint


async def test_a_body_that_says_that_it_is_too_large() -> None:
    """413 before any upstream is asked."""
    async with world(timeouts=only(), limits=Limits(max_body_bytes=100)) as w:
        client = await w.client()
        status, proxy_status, text = refusal(await client.ask(post(101)))
        assert (status, proxy_status) == (413, b"trio-proxy; error=http_request_denied")
        assert text.endswith(b": request body too large (phase: read_head)\n")
        assert await how_it_ends(client) == (b"", "eof")
        assert w.upstreams[0].listener.waiting == 0
    assert ending(w.exchanges[0])[1:3] == (Reason.BODY_TOO_LARGE, Source.CLIENT)
    assert w.proxy.stats.rejected[Reason.BODY_TOO_LARGE] == 1


async def test_a_body_that_is_just_small_enough() -> None:
    """The limit itself is allowed, with either framing."""
    async with world(timeouts=only(), limits=Limits(max_body_bytes=100)) as w:
        w.upstreams[0].serve()
        client = await w.client()
        assert (await client.ask(post(100) + bytes(100))).status == 200
        chunks = b"32\r\n" + bytes(50) + b"\r\n"
        assert (await client.ask(CHUNKED + chunks * 2 + b"0\r\n\r\n")).status == 200
        assert [len(request.body) for request in w.upstreams[0].requests] == [100, 100]


async def test_a_chunked_body_that_grows_too_large() -> None:
    """413 when it does; the upstream sees no end of a body, and is not to blame."""
    async with world(timeouts=only(), limits=Limits(max_body_bytes=100)) as w:
        client = await w.client()
        await client.send(CHUNKED + b"64\r\n" + bytes(100))
        upstream = await w.upstreams[0].accept()
        await trio.sleep(1)
        await client.send(b"\r\n1\r\nx\r\n")
        response = await client.read_response()
        assert (response.status, response[b"connection"]) == (413, b"close")
        received, end = await how_it_ends(upstream)
        assert not received.endswith(b"0\r\n\r\n")
        assert end == "eof"
        assert connections(w) == (0, 0)
    assert w.proxy.stats.rejected[Reason.BODY_TOO_LARGE] == 1
    assert ending(w.exchanges[0])[2] is Source.CLIENT
    assert upstream_errors(w) == {}


async def test_a_chunked_body_that_is_too_large_from_the_start() -> None:
    """413 as well, and its connection goes on, for the request was read to its end."""
    async with world(timeouts=only(), limits=Limits(max_body_bytes=100)) as w:
        client = await w.client()
        response = await client.ask(CHUNKED + b"65\r\n" + bytes(101) + b"\r\n0\r\n\r\n")
        assert response.status == 413
        assert connections(w) == (0, 0)
        w.upstreams[0].serve()
        assert (await client.ask(GET)).status == 200
    assert upstream_errors(w) == {}


async def test_the_rest_of_a_refused_body_does_not_destroy_the_answer() -> None:
    """The client may send all of it before it reads."""
    async with world(timeouts=only(), limits=Limits(max_body_bytes=100)) as w:
        client = await w.client()
        await client.send(post(500_000) + bytes(500_000))
        assert (await client.read_response()).status == 413


async def test_errors_stay_where_they_are() -> None:
    """Broken requests, resets and refused dials cost nobody else anything."""

    async with world(upstreams=1, timeouts=only()) as w:
        w.upstreams[0].serve(delay=0.01)
        good = await w.client()
        for number in range(30):
            bad = await w.client()
            await bad.send(
                (b"\0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n")[number % 3]
            )
            if number % 2:
                bad.abort()
            assert (await good.ask(GET)).body == b"ok"
            bad.close()
        assert len(w.upstreams[0].peers) == 1
        assert w.proxy.stats.responses[2] == 30
