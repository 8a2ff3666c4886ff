"""What becomes of a client's connection when one of its requests is refused."""

from __future__ import annotations

import pytest
import trio

from support.limiting import get, limit, rate_fields, stand, status_of, statuses
from support.scenario import (
    GET,
    SWITCH,
    UPGRADE,
    connections,
    ending,
    how_it_ends,
    now_ms,
    only,
    post,
    send_quietly,
    started,
    until_ms,
)
from support.world import CLIENT, World, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.testing import SimNet

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def used_up(w: World) -> None:
    """Let `CLIENT` take the one token that there is."""
    w.upstreams[0].serve()
    assert await status_of(w, CLIENT) == 200


async def test_a_kept_connection_survives_a_refusal() -> None:
    """The next request on it is answered."""
    async with world(rate_limit=limit(1), timeouts=only()) as w:
        await used_up(w)
        async with await w.client() as client:
            for token in range(1, 4):
                refused = await client.ask(GET)
                assert (refused.status, b"connection" in refused) == (429, False)
                await until_ms(token * 10_000)
                assert (await client.ask(GET)).body == b"ok"


async def test_a_refused_connection_that_was_to_be_closed_is_closed() -> None:
    """After the whole of the answer."""
    async with world(rate_limit=limit(1)) as w:
        await used_up(w)
        async with await w.client() as client:
            answer = await client.ask(get(b"Connection: close"))
            assert (answer.status, answer[b"connection"]) == (429, b"close")
            assert await how_it_ends(client) == (b"", "eof")


@pytest.mark.parametrize(
    ("fields", "outcome"), [(b"Connection: keep-alive\r\n", b"keep-alive"), (b"", b"close")]
)
async def test_an_http10_client_is_refused_as_it_can_understand(
    fields: bytes, outcome: bytes
) -> None:
    """Its connection is kept if it asked for that."""
    async with world(rate_limit=limit(1)) as w:
        await used_up(w)
        async with await w.client() as client:
            for _ in range(2 if fields else 1):
                answer = await client.ask(b"GET / HTTP/1.0\r\nHost: a\r\n" + fields + b"\r\n")
                assert answer.status == 429
                assert answer[b"connection"].lower() == outcome
            if not fields:
                assert await how_it_ends(client) == (b"", "eof")


async def test_pipelined_requests_are_counted_one_by_one_and_answered_in_order() -> None:
    """Of five in one piece the first two are let in; a slow answer delays the refusals behind."""
    async with world(rate_limit=limit(2)) as w:
        w.upstreams[0].serve(delay=0.2)
        async with await w.client() as client:
            await client.send(GET * 5)
            answers = [await client.read_response() for _ in range(5)]
            assert [answer.status for answer in answers] == [200, 200, 429, 429, 429]
            assert now_ms() == 400
            assert [stand(answer)[1] for answer in answers] == [1, 0, 0, 0, 0]
        assert len(w.upstreams[0].requests) == 2


async def test_a_refused_request_in_the_middle_is_passed_over() -> None:
    """Behind it on the wire comes one that has a token of its own."""
    async with world(rate_limit=limit(1, key="header:X-User")) as w:
        w.upstreams[0].serve()
        async with await w.client() as client:
            one, other = get(b"X-User: 1"), get(b"X-User: 2")
            await client.send(one + one + other)
            answers = [await client.read_response() for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 429, 200]


async def test_a_refused_upload_is_told_so_at_once_and_can_be_sent_to_its_end() -> None:
    """The client reads the whole 429 though it sends on, and no reset takes it away."""
    async with world(rate_limit=limit(1), network=SimNet(latency=0.01)) as w:
        await used_up(w)
        client = await w.client()
        started = now_ms()
        w.helpers.start_soon(send_quietly, client, post(1_000_000) + bytes(1_000_000))
        answer = await client.read_response(b"POST")
        assert now_ms() == started + 20
        assert (answer.status, answer[b"connection"]) == (429, b"close")
        assert stand(answer) == (1, 0, 10)
        assert await how_it_ends(client) == (b"", "eof")
        client.close()
        assert len(w.upstreams[0].requests) == 1


async def test_a_refused_request_whose_small_body_came_along_is_answered() -> None:
    """With a whole answer; what was pipelined behind the body is never taken for a request."""
    async with world(rate_limit=limit(1)) as w:
        await used_up(w)
        async with await w.client() as client:
            await client.send(post(len(GET)) + GET)
            assert (await client.read_response(b"POST")).status == 429
            rest, how = await how_it_ends(client)
            assert (rest.count(b"HTTP/1.1"), how) == (0, "eof")
    assert [exchange.method for exchange in w.exchanges] == ["GET", "POST"]


async def test_a_refused_request_with_an_empty_body_keeps_its_connection() -> None:
    """There is nothing to wait for."""
    async with world(rate_limit=limit(1)) as w:
        await used_up(w)
        async with await w.client() as client:
            answer = await client.ask(post(0))
            assert (answer.status, b"connection" in answer) == (429, False)
            assert await statuses(client, 1) == [429]


async def test_a_client_that_waits_for_100_continue_is_refused_instead() -> None:
    """It never sends its body, and is told that the connection ends."""
    async with world(rate_limit=limit(1)) as w:
        await used_up(w)
        async with await w.client() as client:
            await client.send(post(1_000_000, b"Expect: 100-continue\r\n"))
            answer = await client.read_head()
            assert (answer.start, answer[b"connection"]) == (
                b"HTTP/1.1 429 Too Many Requests",
                b"close",
            )
            await client.receive_exactly(int(answer[b"content-length"]))
            assert now_ms() == 0
            client.send_eof()
            assert await how_it_ends(client) == (b"", "eof")
        assert len(w.upstreams[0].requests) == 1


async def test_a_client_that_is_let_in_gets_its_100_continue_without_the_fields() -> None:
    """They belong to the final answer."""
    async with world(rate_limit=limit(2)) as w:
        client = await w.client()
        await client.send(post(2, b"Expect: 100-continue\r\n"))
        upstream = await w.upstreams[0].accept()
        await upstream.read_head()
        await upstream.send(CONTINUE)
        interim = await client.read_head()
        assert (interim.status, rate_fields(interim)) == (100, {})
        await client.send(b"hi")
        assert await upstream.receive_exactly(2) == b"hi"
        await upstream.respond()
        assert stand(await client.read_response(b"POST")) == (2, 1, 10)
        client.close()


async def test_an_upgrade_that_is_refused_switches_nothing() -> None:
    """The client stays with HTTP on its connection, and may try again."""
    async with world(rate_limit=limit(1), timeouts=only()) as w:
        await used_up(w)
        w.proxy.pools["default"].close_idle()
        client = await w.client()
        refused = await client.ask(UPGRADE)
        assert (refused.status, b"upgrade" in refused) == (429, False)
        assert connections(w) == (0, 0)
        await until_ms(10_000)
        assert (await client.ask(UPGRADE)).status == 200
        client.close()


async def test_an_upgrade_costs_one_token_and_its_bytes_none() -> None:
    """The 101 says how the bucket stands; the tunnel is nobody's business."""
    async with world(rate_limit=limit(3)) as w:
        client, upstream = await started(w, UPGRADE)
        await upstream.send(SWITCH)
        switched = await client.read_head()
        assert (switched.status, stand(switched)) == (101, (3, 2, 10))
        for _ in range(10):
            await client.send(GET)
            assert await upstream.receive_exactly(len(GET)) == GET
        client.close()
        assert await upstream.receive_all() == b""
        async with await w.client() as client:
            await client.send(GET)
            await (await w.upstreams[0].accept()).respond()
            assert stand(await client.read_response()) == (3, 1, 20)


async def test_a_client_that_hangs_up_has_spent_its_token() -> None:
    """Nobody saves tokens by not waiting for the answer."""
    async with world(rate_limit=limit(2), timeouts=only()) as w:
        for _ in range(2):
            client = await w.client()
            await client.send(GET)
            await w.upstreams[0].accept()
            client.abort()
            await trio.sleep(0.001)
        assert await status_of(w, CLIENT) == 429
    assert [exchange.status for exchange in w.exchanges] == [499, 499, 429]


async def test_a_client_that_does_not_read_its_refusals_is_cut_off() -> None:
    """At write_ms, as with any answer: refusals are no way to hold connections."""
    async with world(
        rate_limit=limit(1), timeouts=only(write_ms=500), network=SimNet(buffer=4096)
    ) as w:
        await used_up(w)
        client = await w.client()
        w.helpers.start_soon(send_quietly, client, GET * 1000)
        await trio.sleep(2)
        assert not w.proxy.service.connections
        client.close()
    stalled = w.exchanges[-1]
    assert stalled.error is not None
    assert ending(stalled)[1:] == (Reason.RATE_LIMITED, Source.CLIENT, Phase.REQUEST_FILTER)


async def test_refusals_go_on_in_a_drain_and_end_their_connection() -> None:
    """A request that comes with the drain is answered, and told that it was the last."""
    async with world(rate_limit=limit(1), timeouts=only(drain_ms=5000)) as w:
        await used_up(w)
        client = await w.client()
        await client.send(GET[:-2])
        await trio.sleep(0.1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.proxy.drain)
            await trio.sleep(0.1)
            await client.send(GET[-2:])
            answer = await client.read_response()
            assert (answer.status, answer[b"connection"]) == (429, b"close")
            assert await how_it_ends(client) == (b"", "eof")
            client.close()
        assert now_ms() == 200
