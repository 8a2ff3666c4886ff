"""Upstreams that break off: inside an answer, between head and body, at the first byte."""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from support.conversation import Speaker
from support.outages import (
    POST,
    ask,
    at,
    failures_at,
    open_load,
    outcomes_at,
    run_apps,
    statuses,
    tries,
)
from support.pools import A, metric, servers, told
from support.scenario import GET, all_at_once, ending, how_it_ends, now_ms
from support.world import World, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.settings import Retry
from trio_proxy.telemetry.accesslog import access_text

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TWO = servers({}, {})
#: More than one try is allowed, and each kind of failure may be retried.
EAGER = Retry(attempts=3, on=("connect", "reset", "timeout", "500", "502", "503", "504"))


async def first_upstream_of(w: World, client: Speaker, request: bytes = GET) -> Speaker:
    """The connection on which the first upstream has read the client's request."""
    await client.send(request)
    upstream = await w.upstreams[0].accept()
    await upstream.read_request()
    return upstream


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize(
    ("answer", "seen"),
    [(LENGTH + b"half", b"half"), (CHUNKED + b"4\r\nhalf\r\n", b"4\r\nhalf\r\n")],
    ids=["length", "chunked"],
)
async def test_killed_in_the_middle_of_its_answer(how: str, answer: bytes, seen: bytes) -> None:
    """The client sees that it is cut off; the request is sent to nobody else."""
    async with world(upstreams=TWO, retry=EAGER) as w:
        client = await w.client()
        upstream = await first_upstream_of(w, client)
        await upstream.send(answer)
        assert (await client.read_head()).status == 200
        assert await client.receive_exactly(len(seen)) == seen
        getattr(upstream, how)()
        assert await how_it_ends(client) == (b"", "eof")
        assert w.upstreams[1].listener.waiting == 0
        assert metric(w, "proxy_upstream_errors_total", A, type="other") == 1
        assert metric(w, "proxy_upstream_up", A) == 1
    (cut,) = w.exchanges
    assert ending(cut) == (200, Reason.RESPONSE_TRUNCATED, Source.UPSTREAM, Phase.STREAM)
    assert len(cut.tries) == 1
    assert " tries=1 phase=stream error=response_truncated " in access_text(cut)


async def test_killed_between_head_and_body() -> None:
    """Nothing of the head has gone out in that moment, so the other upstream answers."""
    async with world(upstreams=TWO, retry=Retry()) as w:
        w.upstreams[1].serve()
        client = await w.client()
        upstream = await first_upstream_of(w, client)
        await upstream.send(LENGTH)
        await trio.sleep(0.01)
        upstream.abort()
        assert (await client.read_response()).body == b"ok"
        assert now_ms() == 10
    (exchange,) = w.exchanges
    assert [one.outcome for one in exchange.tries] == ["connection_reset", "200"]


async def test_killed_long_after_its_head() -> None:
    """A head is not held back for long; once it is out the request is lost."""
    async with world(upstreams=TWO, retry=EAGER) as w:
        client = await w.client()
        upstream = await first_upstream_of(w, client)
        await upstream.send(LENGTH)
        assert (await client.read_head()).status == 200
        assert now_ms() <= 50
        await trio.sleep(1)
        upstream.abort()
        assert await how_it_ends(client) == (b"", "eof")
    (exchange,) = w.exchanges
    assert len(exchange.tries) == 1


async def drip(peer: Speaker) -> None:
    """Answer each request with ten times 1000 bytes in a second."""
    while True:
        await peer.read_request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        for _ in range(10):
            await peer.send(bytes(1000))
            await trio.sleep(0.1)


async def test_thirty_downloads_from_three_of_which_one_dies() -> None:
    """Ten are cut off, twenty are whole; nothing is sent twice, and later requests are well."""
    async with world(upstreams=servers({}, {}, {}), retry=EAGER) as w:
        for upstream in w.upstreams:
            upstream.run(drip)

        def kill() -> None:
            w.net.refuse(A)
            for peer in w.upstreams[0].peers:
                peer.stream.cut_after(0, reset=True)

        async def download(_: int) -> int:
            async with await w.client() as client:
                await client.send(GET)
                await client.read_head()
                size = 0
                while size < 10_000 and (data := await client.receive_some()):
                    size += len(data)
                return size

        at(w, 550, kill)
        assert Counter(await all_at_once(30, download)) == {10_000: 20, 6000: 10}
        assert tries(w) == 30
        assert Counter(await all_at_once(9, download)) == {10_000: 9}
    assert failures_at(w, 0).keys() == {"response_truncated", "connection_refused"}
    assert outcomes_at(w, 0)["response_truncated"] == len(w.upstreams[0].peers) == 10


async def test_an_upstream_that_resets_each_connection() -> None:
    """It is asked once in 10 s, and no GET is lost."""
    async with world(upstreams=servers({}, {}, {}), retry=Retry()) as w:
        apps = run_apps(w)
        apps[0].reset_everybody()
        answers = await open_load(w, per_second=20, seconds=15)
        assert (
            told(w)
            == [f"upstream {A} down: connection_reset (max_fails=1 within 10 s), not used for 10 s"]
            * 2
        )
    assert statuses(answers) == {200: 300}
    assert outcomes_at(w, 0) == {"connection_reset": 2}
    assert len(w.upstreams[0].peers) == 2


async def test_an_upstream_that_resets_each_connection_may_have_got_a_post() -> None:
    """One is lost in 10 s: the proxy cannot know what became of it."""
    async with world(upstreams=servers({}, {}, {}), retry=Retry()) as w:
        apps = run_apps(w)
        apps[0].reset_everybody()
        answers = await open_load(w, per_second=20, seconds=8, requests=[POST])
    assert statuses(answers) == {200: 159, 502: 1}
    assert outcomes_at(w, 0) == {"connection_reset": 1}


async def test_the_only_upstream_resets_each_connection() -> None:
    """502 after two tries with a pause between; never ejected, so it is back at once."""
    async with world(upstreams=1, retry=Retry()) as w:
        w.proxy.pools["default"].random = lambda: 0.8
        (app,) = run_apps(w)
        app.reset_everybody()
        at(w, 2005, app.start)
        answers = await open_load(w, per_second=5, seconds=4)
    assert [answer.status for answer in answers] == [502] * 11 + [200] * 9
    assert [answer.took_ms for answer in answers] == [20] * 10 + [0] + [10] * 9
    assert outcomes_at(w, 0) == {"connection_reset": 21, "200": 9}
    assert told(w) == ["pool default: retry.budget_percent reached, not retrying"]


@pytest.mark.parametrize("attempts", [1, 2, 3])
async def test_a_request_that_kills_whoever_reads_it(attempts: int) -> None:
    """It takes as many of five upstreams with it as it has tries; nobody else loses a request."""
    async with world(upstreams=servers(*[{}] * 5), retry=Retry(attempts=attempts)) as w:
        apps = run_apps(w)
        for app in apps:
            app.deadly = b"/deadly"
        client = await w.client()
        at(w, 1010, lambda: w.helpers.start_soon(ask, client, GET.replace(b"/", b"/deadly", 1)))
        answers = await open_load(w, per_second=20, seconds=3)
        client.close()
    assert sum(app.is_up for app in apps) == 5 - attempts
    assert statuses(answers) == {200: 60}
    (deadly,) = [each for each in w.exchanges if each.target == "/deadly"]
    assert deadly.status == 502
    dead = {one.upstream for one in deadly.tries}
    assert dead == {app.name for app in apps if not app.is_up}
