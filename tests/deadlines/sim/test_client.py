"""Deadlines of the client's side: head, body, write and idle, and the wait for a 100."""

from __future__ import annotations

import trio

from support.scenario import (
    GET,
    OK,
    connections,
    drip,
    ending,
    how_it_ends,
    now_ms,
    only,
    post,
    refusal,
    send_for_ever,
    timeouts,
    until_ms,
    upstream_errors,
)
from support.world import world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_a_head_that_drips() -> None:
    """408 at head_ms after the first byte, however often another one came; then the end."""
    async with world(timeouts=only(head_ms=3500)) as w:
        client = await w.client()
        await trio.sleep(0.5)
        drip(w, client, b"G", 1)
        assert refusal(await client.read_response()) == (
            408,
            b"trio-proxy; error=http_request_error",
            b"408 Request Timeout: request head took too long (phase: read_head)\n",
        )
        assert now_ms() == 4000
        assert await how_it_ends(client) == (b"", "eof")
    assert ending(w.exchanges[0]) == (408, Reason.HEAD_TIMEOUT, Source.CLIENT, Phase.READ_HEAD)
    assert w.exchanges[0].tries == []


async def test_a_second_head_that_drips() -> None:
    """The same on a connection that has served a request before."""
    async with world(timeouts=only(head_ms=2000)) as w:
        w.upstreams[0].serve()
        client = await w.client()
        await client.send(GET + GET[:5])
        assert (await client.read_response()).body == b"ok"
        assert (await client.read_response()).status == 408
        assert now_ms() == 2000


async def test_what_is_measured_of_a_head_that_took_too_long() -> None:
    """The exchange ended when it was answered, not when the client at last went away."""
    async with world(timeouts=only(head_ms=2000)) as w:
        client = await w.client()
        await client.send(b"GET /")
        assert (await client.read_response()).status == 408
        await trio.sleep(1)
        client.close()
        await trio.sleep(5)
        assert round(w.exchanges[0].ended_at - w.exchanges[0].started_at, 6) == 2


async def test_a_body_that_stalls() -> None:
    """408 at body_ms after the last piece; the upstream's connection is closed, without blame."""
    async with world(timeouts=only(body_ms=700, read_ms=500)) as w:
        client = await w.client()
        await client.send(post(10) + b"1")
        upstream = await w.upstreams[0].accept()
        await trio.sleep(0.6)
        await client.send(b"2")
        await trio.sleep(0.6)
        await client.send(b"3")
        assert refusal(await client.read_response()) == (
            408,
            b"trio-proxy; error=http_request_error",
            b"408 Request Timeout: request body took too long (phase: send)\n",
        )
        assert now_ms() == 1900
        assert (await upstream.read_head()).start == b"POST / HTTP/1.1"
        assert await how_it_ends(upstream) == (b"123", "eof")
        assert connections(w) == (0, 0)
    assert ending(w.exchanges[0]) == (408, Reason.BODY_TIMEOUT, Source.CLIENT, Phase.SEND)
    assert [one.outcome for one in w.exchanges[0].tries] == ["body_timeout"]
    assert upstream_errors(w) == {}
    assert timeouts(w) == {}


async def test_a_chunked_body_that_stalls() -> None:
    """A half chunk is no body: 408, and no last chunk goes to the upstream."""
    async with world(timeouts=only(body_ms=700)) as w:
        client = await w.client()
        await client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"
        )
        upstream = await w.upstreams[0].accept()
        await upstream.read_head()
        assert (await client.read_response()).status == 408
        assert now_ms() == 700
        received, end = await how_it_ends(upstream)
        assert end == "eof"
        assert not received.endswith(b"0\r\n\r\n")


async def test_read_does_not_run_while_the_client_uploads() -> None:
    """A slow upload is not the upstream's fault; read_ms runs from its end."""
    async with world(timeouts=only(read_ms=200)) as w:
        client = await w.client()
        await client.send(post(4))
        upstream = await w.upstreams[0].accept()
        for byte in b"1234":
            await trio.sleep(1)
            await client.send(bytes((byte,)))
        assert (await upstream.read_request()).body == b"1234"
        response = await client.read_response()
        assert b"read deadline passed (phase: await_head)" in response.body
        assert now_ms() == 4200
        await client.send(GET)  # the body was complete, so the connection goes on
        await (await w.upstreams[0].accept()).send(OK)
        assert (await client.read_response()).status == 200


async def test_read_runs_while_the_client_waits_for_a_100() -> None:
    """It is the upstream's turn to say go on: 504 at read_ms."""
    async with world(timeouts=only(read_ms=200, body_ms=100)) as w:
        client = await w.client()
        await client.send(post(4, b"Expect: 100-continue\r\n"))
        upstream = await w.upstreams[0].accept()
        assert (await upstream.read_head())[b"expect"] == b"100-continue"
        response = await client.read_response()
        assert b"read deadline passed (phase: await_head)" in response.body
        assert now_ms() == 200
    assert ending(w.exchanges[0]) == (504, Reason.READ_TIMEOUT, Source.UPSTREAM, Phase.AWAIT_HEAD)
    assert upstream_errors(w) == {"timeout": 1}


async def test_the_body_deadline_starts_with_the_100() -> None:
    """Not before: a client that was not told to go on is not late."""
    async with world(timeouts=only(read_ms=1000, body_ms=100)) as w:
        client = await w.client()
        await client.send(post(4, b"Expect: 100-continue\r\n"))
        upstream = await w.upstreams[0].accept()
        await trio.sleep(0.8)
        await upstream.send(CONTINUE)
        assert (await client.read_head()).status == 100
        assert now_ms() == 800
        assert (await client.read_response()).status == 408
        assert now_ms() == 900
    assert ending(w.exchanges[0])[:3] == (408, Reason.BODY_TIMEOUT, Source.CLIENT)


async def test_a_100_in_time_and_then_the_body() -> None:
    """Neither deadline strikes, and read_ms runs again from the end of the body."""
    async with world(timeouts=only(read_ms=300, body_ms=100)) as w:
        client = await w.client()
        await client.send(post(2, b"Expect: 100-continue\r\n"))
        upstream = await w.upstreams[0].accept()
        await upstream.read_head()
        await until_ms(250)
        await upstream.send(CONTINUE)
        assert (await client.read_head()).status == 100
        await until_ms(340)
        await client.send(b"1")
        await until_ms(430)
        await client.send(b"2")
        assert await upstream.receive_exactly(2) == b"12"
        await until_ms(720)
        await upstream.send(OK)
        assert (await client.read_response()).body == b"ok"
    assert ending(w.exchanges[0])[:2] == (200, None)


async def test_a_client_that_takes_nothing() -> None:
    """Its connection is reset at write_ms, and the upstream is not to blame."""
    async with world(timeouts=only(write_ms=600)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n")
        await send_for_ever(upstream, bytes(10_000), 0)  # ends when the proxy hangs up
        assert now_ms() == 600
        assert await how_it_ends(client) == (b"", "reset")
        assert connections(w) == (0, 0)
    assert ending(w.exchanges[0]) == (200, Reason.CLIENT_STALLED, Source.CLIENT, Phase.STREAM)
    assert timeouts(w) == {"write": 1}
    assert upstream_errors(w) == {}


async def test_a_client_that_takes_a_little_now_and_then() -> None:
    """Each wait has write_ms of its own."""
    async with world(timeouts=only(write_ms=600)) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n")
        drip(w, upstream, bytes(10_000), 0)
        await trio.sleep(0.1)
        for _ in range(5):
            await client.receive_some()
            await trio.sleep(0.5)
        await client.receive_some()
        assert now_ms() == 2600
        await until_ms(3199.999)
        assert w.exchanges == []
        await until_ms(3200.001)
        assert len(w.exchanges) == 1
    assert ending(w.exchanges[0])[:2] == (200, Reason.CLIENT_STALLED)


async def test_idle_before_the_first_request() -> None:
    """A silent connection is closed at idle_ms, without a word or an exchange."""
    async with world(timeouts=only(idle_ms=5000, head_ms=100)) as w:
        client = await w.client()
        assert await how_it_ends(client) == (b"", "eof")
        assert now_ms() == 5000
    assert w.exchanges == []


async def test_idle_between_requests() -> None:
    """idle_ms runs from the end of the last answer."""
    async with world(timeouts=only(idle_ms=5000)) as w:
        w.upstreams[0].serve(delay=8)
        client = await w.client()
        await trio.sleep(4.999)
        assert (await client.ask(GET)).body == b"ok"
        await trio.sleep(4.999)
        assert (await client.ask(GET)).body == b"ok"
        ended_at = now_ms()
        assert await how_it_ends(client) == (b"", "eof")
        assert now_ms() == ended_at + 5000
    assert len(w.exchanges) == 2
