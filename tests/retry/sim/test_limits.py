"""Where retries end: attempts and budget; the last answer, and the connections of the others."""

from __future__ import annotations

import json

import pytest

from support.failing import RESET, answer, log_tail, outcomes, play, requests_of_each, steady
from support.scenario import GET, connections, only, until_ms
from support.world import World, world
from trio_proxy.settings import Retry
from trio_proxy.telemetry.accesslog import format_access
from trio_proxy.telemetry.lines import LogFormat

ON = ("connect", "reset", "timeout", "429", "500", "502", "503", "504")
SORRY = answer(503, b"sorry")


def tries(count: int = 2, **more: int) -> Retry:
    return Retry(attempts=count, on=ON, **more)


# The last answer


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_the_last_answer_is_relayed_whatever_its_status(status: int) -> None:
    """With its fields and its body; it is the upstream's and not the proxy's."""
    async with world(upstreams=steady(2), retry=tries(), timeouts=only()) as w:
        play(w.upstreams[0], answer(status, b"first"))
        play(w.upstreams[1], answer(status, b"second", b"X-From: second\r\n"))
        client = await w.client()
        response = await client.ask(GET)
        assert (response.status, response.body) == (status, b"second")
        assert response[b"x-from"] == b"second"
        assert b"proxy-status" not in response
        assert (await client.ask(GET)).body == b"ok", "the connection goes on"
    assert log_tail(w.exchanges[0]) == (
        "tries=2 phase=stream not_retried=attempts"
        f" tried=10.1.0.1:9000:{status},10.1.0.2:9000:{status}"
    )
    assert w.proxy.stats.retries == {str(status): 1}


async def test_the_last_answer_can_be_chunked_and_slow() -> None:
    """It is streamed as any other."""
    async with world(upstreams=steady(2), retry=tries(), timeouts=only()) as w:
        play(w.upstreams[0], SORRY)
        client = await w.client()
        await client.send(GET)
        second = await w.upstreams[1].accept()
        await second.read_request()
        await second.send(b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        assert (await client.read_head()).status == 503
        assert await client.read_chunk() == b"abc"
        await until_ms(5000)
        await second.send(b"3\r\ndef\r\n0\r\nX-Sum: 1\r\n\r\n")
        assert await client.read_chunked() == (b"def", [(b"X-Sum", b"1")])


async def test_the_failure_of_the_last_try_is_what_the_client_is_told() -> None:
    """Not the 503 of the one before."""
    async with world(upstreams=steady(2), retry=tries(), timeouts=only()) as w:
        play(w.upstreams[0], SORRY)
        play(w.upstreams[1], RESET)
        response = await (await w.client()).ask(GET)
        assert response.status == 502
        assert response[b"proxy-status"] == b"trio-proxy; error=connection_terminated"
    assert outcomes(w.exchanges[0]) == [(0, "503"), (1, "connection_reset")]


async def test_the_json_line_has_every_try() -> None:
    """With its outcome and how long it took, and why there was no further one."""
    async with world(upstreams=steady(2), retry=tries(), timeouts=only()) as w:
        play(w.upstreams[0], SORRY)
        play(w.upstreams[1], RESET)
        await (await w.client()).ask(GET)
    line = json.loads(format_access(w.exchanges[0], LogFormat.JSON))
    assert line["tries"] == [
        {"upstream": "10.1.0.1:9000", "outcome": "503", "ms": 0.0},
        {"upstream": "10.1.0.2:9000", "outcome": "connection_reset", "ms": 0.0},
    ]
    assert line["not_retried"] == "attempts"
    assert (line["status"], line["error"]) == (502, "connection_reset")


# Connections of answers that were not passed on

CHUNKED = b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "is_kept"),
    [
        (SORRY, True),
        (answer(503), True),
        (CHUNKED + b"5\r\nsorry\r\n0\r\nX-Sum: 1\r\n\r\n", True),
        (answer(503, b"sorry", b"Connection: close\r\n"), False),
        (b"HTTP/1.0 503 No\r\nContent-Length: 5\r\n\r\nsorry", False),
        (b"HTTP/1.1 503 No\r\n\r\nsorry", False),
        (SORRY.replace(b": 5", b": 50"), False),
        (CHUNKED + b"5\r\nsorry\r\n", False),
        (CHUNKED + b"x\r\nsorry\r\n", False),
        (SORRY + b"HTTP/1.1 200 OK\r\n", False),
    ],
)
async def test_a_connection_is_kept_if_its_answer_was_complete(sent: bytes, is_kept: bool) -> None:
    """It serves a later request; else it is closed at once, whatever is still to come."""
    async with world(upstreams=steady(2), retry=tries(), timeouts=only()) as w:
        play(w.upstreams[0], sent)
        play(w.upstreams[1])
        client = await w.client()
        assert (await client.ask(GET)).body == b"ok"
        assert connections(w, 0) == (0, int(is_kept))
        assert connections(w, 1) == (0, 1)
        for _ in range(2):
            assert (await client.ask(GET)).body == b"ok"
        assert len(w.upstreams[0].peers) == (1 if is_kept else 2)


async def test_a_connection_is_kept_if_the_answer_to_head_was_complete() -> None:
    """Whatever length it announces."""
    async with world(upstreams=steady(2), retry=tries(), timeouts=only()) as w:
        play(w.upstreams[0], answer(503, b"sorry"))
        play(w.upstreams[1])
        client = await w.client()
        assert (await client.ask(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200
        assert connections(w, 0) == (0, 1)


async def test_a_long_retryable_answer_is_not_waited_for() -> None:
    """Its connection is closed in the middle; the other upstream is asked at once."""
    async with world(upstreams=steady(2), retry=tries(), timeouts=only()) as w:
        play(w.upstreams[0], answer(503, bytes(200_000)))
        play(w.upstreams[1])
        assert (await (await w.client()).ask(GET)).body == b"ok"
        assert connections(w, 0) == (0, 0)


# The budget


async def ask(w: World, count: int) -> list[int]:
    """How many tries each of so many requests got, one after the other on one connection."""
    client, before = await w.client(), len(w.exchanges)
    for _ in range(count):
        assert (await client.ask(GET)).status in (200, 503)
    client.close()
    return [len(each.tries) for each in w.exchanges[before:]]


async def test_ten_retries_in_ten_seconds_are_always_allowed() -> None:
    """The eleventh request gets the answer of its only try, and the log names the budget."""
    async with world(upstreams=steady(2), retry=tries(), timeouts=only()) as w:
        for upstream in w.upstreams:
            play(upstream, *[SORRY] * 100)
        assert await ask(w, 12) == [2] * 10 + [1] * 2
    assert sum(requests_of_each(w)) == 22
    assert log_tail(w.exchanges[10]).startswith("tries=1 phase=stream not_retried=budget tried=")
    assert w.exchanges[9].not_retried == "attempts"
    assert w.proxy.stats.retries == {"503": 10}


@pytest.mark.parametrize(("percent", "retries"), [(0, 10), (20, 40), (50, 100), (100, 200)])
async def test_more_are_allowed_as_a_share_of_the_requests(percent: int, retries: int) -> None:
    """Of 200 requests that all fail, so many are sent again."""
    async with world(
        upstreams=steady(2), retry=tries(budget_percent=percent), timeouts=only()
    ) as w:
        for upstream in w.upstreams:
            play(upstream, *[SORRY] * 400)
        assert sum(await ask(w, 200)) == 200 + retries
    assert sum(requests_of_each(w)) == 200 + retries
    assert w.proxy.stats.retries == {"503": retries}


async def test_the_tries_of_one_request_count_one_by_one() -> None:
    """Five tries each take four of the ten."""
    async with world(upstreams=steady(1), retry=tries(5), timeouts=only()) as w:
        play(w.upstreams[0], *[SORRY] * 100)
        assert await ask(w, 4) == [5, 5, 3, 1]


async def test_the_budget_is_whole_again_after_its_window() -> None:
    """Eleven seconds later ten more are allowed; after nine there were none."""
    async with world(upstreams=steady(2), retry=tries(), timeouts=only()) as w:
        for upstream in w.upstreams:
            play(upstream, *[SORRY] * 100)
        assert await ask(w, 11) == [2] * 10 + [1]
        await until_ms(9000)
        assert await ask(w, 1) == [1]
        await until_ms(11_000)
        assert await ask(w, 11) == [2] * 10 + [1]


async def test_healthy_traffic_pays_for_later_retries() -> None:
    """After 100 requests without a failure 20 may be sent again, and not only ten."""
    async with world(upstreams=steady(2), retry=tries(), timeouts=only()) as w:
        for upstream in w.upstreams:
            play(upstream, *[answer(200, b"ok")] * 50, *[SORRY] * 100)
        assert await ask(w, 100) == [1] * 100
        assert await ask(w, 29) == [2] * 25 + [1] * 4


async def test_requests_that_cannot_be_retried_cost_the_budget_nothing() -> None:
    """Neither the wrong method nor a last try."""
    async with world(upstreams=steady(2), retry=tries(), timeouts=only()) as w:
        for upstream in w.upstreams:
            play(upstream, *[SORRY] * 100)
        client = await w.client()
        for _ in range(20):
            await client.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        assert await ask(w, 11) == [2] * 10 + [1]
