"""A pooled connection that dies as a request is sent: what may be sent again, and what may not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from support.conversation import Speaker
from support.scenario import GET, OK, connections, ending, only, pooled, post, upstream_errors
from support.world import World, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.testing import SimStream

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def at_next_send(w: World, action: Callable[[Callable[[], int]], int]) -> None:
    """Run the action in place of the next send on the pooled connection, which it may do."""
    (stream,) = [s for s in w.proxy_streams() if s.remote == w.upstreams[0].name]

    def send_nowait(data: bytes) -> int:
        del stream.send_nowait  # type: ignore[method-assign]
        return action(lambda: SimStream.send_nowait(stream, data))

    stream.send_nowait = send_nowait  # type: ignore[method-assign,assignment]


def dies_before(w: World, upstream: Speaker) -> None:
    """A reset comes just before the next send, which fails: nothing of it was taken."""

    def action(send: Callable[[], int]) -> int:
        upstream.abort()
        return send()

    at_next_send(w, action)


def dies_after(w: World, upstream: Speaker) -> None:
    """A reset comes just after the next send: it was taken, by whomever."""

    def action(send: Callable[[], int]) -> int:
        count = send()
        upstream.abort()
        return count

    at_next_send(w, action)


@pytest.mark.parametrize("request_bytes", [post(0), post(3) + b"abc", CHUNKED + b"0\r\n\r\n"])
async def test_a_post_of_which_nothing_was_taken_is_sent_again(request_bytes: bytes) -> None:
    """On a fresh connection, whole, and the client notices nothing."""
    async with world(timeouts=only()) as w:
        client, upstream = await pooled(w)
        dies_before(w, upstream)
        await client.send(request_bytes)
        fresh = await w.upstreams[0].accept()
        request = await fresh.read_request()
        assert request.start == b"POST / HTTP/1.1"
        assert request.body == (b"abc" if b"abc" in request_bytes else b"")
        await fresh.send(OK)
        assert (await client.read_response()).body == b"ok"
        assert connections(w) == (0, 1)
    assert [one.outcome for one in w.exchanges[1].tries] == ["stale", "200"]
    assert w.proxy.stats.retries == {"stale": 1}
    assert upstream_errors(w) == {}


@pytest.mark.parametrize("chunked", [False, True])
async def test_so_is_a_post_whose_body_has_only_begun(chunked: bool) -> None:
    """What had come of the body goes out again, and the rest behind it as it comes."""
    pieces = (b"3\r\nabc\r\n", b"3\r\ndef\r\n0\r\n\r\n") if chunked else (b"abc", b"def")
    async with world(timeouts=only()) as w:
        client, upstream = await pooled(w)
        dies_before(w, upstream)
        await client.send((CHUNKED if chunked else post(6)) + pieces[0])
        fresh = await w.upstreams[0].accept()
        await fresh.read_head()
        await trio.sleep(1)
        await client.send(pieces[1])
        if chunked:
            assert await fresh.read_chunked() == (b"abcdef", [])
        else:
            assert await fresh.receive_exactly(6) == b"abcdef"
        await fresh.send(OK)
        assert (await client.read_response()).body == b"ok"
    assert [one.outcome for one in w.exchanges[1].tries] == ["stale", "200"]


@pytest.mark.parametrize("request_bytes", [post(0), post(3) + b"abc", post(6) + b"abc"])
async def test_a_post_that_was_taken_is_not_sent_again(request_bytes: bytes) -> None:
    """502: who took it may have acted on it."""
    async with world(timeouts=only()) as w:
        client, upstream = await pooled(w)
        dies_after(w, upstream)
        await client.send(request_bytes)
        response = await client.read_response()
        assert response.status == 502
        assert response[b"proxy-status"] == b"trio-proxy; error=connection_terminated"
        assert not w.upstreams[0].listener.waiting
    failed = ending(w.exchanges[1])
    assert failed[:3] == (502, Reason.CONNECTION_RESET, Source.UPSTREAM)
    assert failed[3] in (Phase.SEND, Phase.AWAIT_HEAD)
    assert w.proxy.stats.retries == {}
    assert upstream_errors(w) == {"other": 1}


async def test_a_get_that_was_taken_is() -> None:
    """It does no harm twice."""
    async with world(timeouts=only()) as w:
        client, upstream = await pooled(w)
        dies_after(w, upstream)
        await client.send(GET)
        await (await w.upstreams[0].accept()).send(OK)
        assert (await client.read_response()).body == b"ok"
    assert w.proxy.stats.retries == {"stale": 1}


async def test_only_once() -> None:
    """The fresh connection takes the POST and dies: 502, and no third try."""
    async with world(timeouts=only()) as w:
        client, upstream = await pooled(w)
        dies_before(w, upstream)
        await client.send(post(0))
        fresh = await w.upstreams[0].accept()
        await fresh.read_request()
        fresh.abort()
        assert (await client.read_response()).status == 502
        assert not w.upstreams[0].listener.waiting
    assert [one.outcome for one in w.exchanges[1].tries] == ["stale", "connection_reset"]
