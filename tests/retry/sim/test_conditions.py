"""What lets a try be followed by another: failures by kind, and statuses, as far as listed.

The first upstream fails and the second is healthy. `Retry.on` either has the condition or all the
others.
"""

from __future__ import annotations

import pytest

from support.failing import (
    CLOSE,
    HANG,
    RESET,
    answer,
    errors_of_each,
    log_tail,
    outcomes,
    play,
    requests_of_each,
    send_slowly,
    steady,
)
from support.scenario import GET, OK, ending, now_ms, only, timeouts, until_ms
from support.world import World, world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.settings import RETRY_CONDITIONS, Retry

STATUSES = ("429", "500", "502", "503", "504")
HALF_A_HEAD = b"HTTP/1.1 200 OK\r\nContent-Le"
BUDGETS = only(connect_ms=300, read_ms=400)


def retry_on(*conditions: str, try_timeout_ms: int = 0) -> Retry:
    return Retry(on=conditions, try_timeout_ms=try_timeout_ms)


def others(condition: str) -> tuple[str, ...]:
    return tuple(each for each in RETRY_CONDITIONS if each != condition)


def fail_first(w: World, kind: str) -> None:
    """Let the first upstream fail in one way, and the second be healthy."""
    first, second = w.upstreams
    if kind == "refused":
        w.net.refuse(first.name)
    elif kind == "blackhole":
        w.net.blackhole(first.name)
    elif kind == "cut head":
        first.run(lambda peer: peer.send(HALF_A_HEAD))
    else:
        play(first, *{"reset": (RESET,), "close": (CLOSE,), "hang": (HANG,)}[kind])
    play(second)


#: What happens to the first try, its condition, its outcome and error counter, and when it is over.
KINDS = [
    ("refused", "connect", Reason.CONNECTION_REFUSED, "connection_refused", 0),
    ("blackhole", "connect", Reason.CONNECT_TIMEOUT, "timeout", 300),
    ("reset", "reset", Reason.CONNECTION_RESET, "other", 0),
    ("close", "reset", Reason.CONNECTION_RESET, "other", 0),
    ("cut head", "reset", Reason.CONNECTION_RESET, "other", 0),
    ("hang", "timeout", Reason.READ_TIMEOUT, "timeout", 400),
]


@pytest.mark.parametrize(("kind", "condition", "reason", "counter", "over_at"), KINDS)
async def test_a_failure_of_a_listed_kind_is_followed_by_another_try(
    kind: str, condition: str, reason: Reason, counter: str, over_at: int
) -> None:
    """The other upstream answers at once; log and metrics tell of both tries."""
    async with world(upstreams=steady(2), retry=retry_on(condition), timeouts=BUDGETS) as w:
        fail_first(w, kind)
        client = await w.client()
        assert (await client.ask(GET)).body == b"ok"
        assert now_ms() == over_at
        assert len(w.upstreams[1].requests) == 1
    (exchange,) = w.exchanges
    assert outcomes(exchange) == [(0, reason.slug), (1, "200")]
    assert log_tail(exchange) == (
        f"tries=2 phase=stream tried=10.1.0.1:9000:{reason.slug},10.1.0.2:9000:200"
    )
    assert w.proxy.stats.retries == {reason.slug: 1}
    assert requests_of_each(w) == [1, 1]
    assert errors_of_each(w) == [{counter: 1}, {}]
    assert timeouts(w) == {}, "those count exchanges, and this one was answered"


@pytest.mark.parametrize(("kind", "condition", "reason", "counter", "over_at"), KINDS)
async def test_a_failure_of_any_other_kind_is_final(
    kind: str, condition: str, reason: Reason, counter: str, over_at: int
) -> None:
    """It is told to the client; nobody else is asked, and the log names no obstacle."""
    retry = retry_on(*others(condition))
    async with world(upstreams=steady(2), retry=retry, timeouts=BUDGETS) as w:
        fail_first(w, kind)
        client = await w.client()
        assert (await client.ask(GET)).status == reason.status
        assert now_ms() == over_at
        assert w.upstreams[1].requests == []
    (exchange,) = w.exchanges
    assert ending(exchange)[:3] == (reason.status, reason, Source.UPSTREAM)
    assert outcomes(exchange) == [(0, reason.slug)]
    assert exchange.not_retried == ""
    assert w.proxy.stats.retries == {}
    assert errors_of_each(w) == [{counter: 1}, {}]


@pytest.mark.parametrize("kind", ["blackhole", "hang"])
async def test_a_try_that_takes_too_long_is_a_timeout(kind: str) -> None:
    """Dial, request and response head together have try_timeout_ms."""
    retry = retry_on("timeout", try_timeout_ms=250)
    async with world(upstreams=steady(2), retry=retry, timeouts=BUDGETS) as w:
        fail_first(w, kind)
        client = await w.client()
        assert (await client.ask(GET)).body == b"ok"
        assert now_ms() == 250
    assert outcomes(w.exchanges[0]) == [(0, "try_timeout"), (1, "200")]
    assert w.proxy.stats.retries == {"try_timeout": 1}
    assert errors_of_each(w) == [{"timeout": 1}, {}]


async def test_the_last_try_that_takes_too_long_names_its_deadline() -> None:
    """504 after two tries of 250 ms."""
    retry = retry_on("timeout", try_timeout_ms=250)
    async with world(upstreams=steady(2), retry=retry, timeouts=BUDGETS) as w:
        for upstream in w.upstreams:
            play(upstream, HANG)
        client = await w.client()
        response = await client.ask(GET)
        assert now_ms() == 500
        assert response[b"proxy-status"] == b"trio-proxy; error=http_response_timeout"
        assert response.body == b"504 Gateway Timeout: try deadline passed (phase: await_head)\n"
    failed = w.exchanges[0]
    assert ending(failed) == (504, Reason.TRY_TIMEOUT, Source.UPSTREAM, Phase.AWAIT_HEAD)
    assert failed.error is not None
    assert failed.error.detail == "try deadline of 250 ms passed"
    assert log_tail(failed).endswith(
        " not_retried=attempts tried=10.1.0.1:9000:try_timeout,10.1.0.2:9000:try_timeout"
    )
    assert timeouts(w) == {"try": 1}
    assert errors_of_each(w) == [{"timeout": 1}, {"timeout": 1}]


@pytest.mark.parametrize("head_at", [100, 240])
async def test_the_deadline_of_a_try_ends_with_the_head(head_at: int) -> None:
    """A head in time is passed on, however late its body comes."""
    retry = retry_on("timeout", try_timeout_ms=250)
    async with world(upstreams=steady(2), retry=retry, timeouts=only()) as w:
        client = await w.client()
        await client.send(GET)
        upstream = await w.upstreams[0].accept()
        await until_ms(head_at)
        await upstream.send(OK[:-2])
        assert (await client.read_head()).status == 200
        assert now_ms() <= 300
        await until_ms(5000)
        await upstream.send(b"ok")
        assert await client.receive_exactly(2) == b"ok"
        assert now_ms() == 5000
    assert outcomes(w.exchanges[0]) == [(0, "200")]


async def test_a_slow_head_within_the_deadlines_of_reads_is_cut_by_that_of_the_try() -> None:
    """A byte now and then keeps read_ms at bay, not try_timeout_ms."""
    retry = retry_on("timeout", try_timeout_ms=1000)
    async with world(upstreams=steady(2), retry=retry, timeouts=BUDGETS) as w:
        w.upstreams[0].run(lambda peer: send_slowly(peer, [b"H", b"T", b"T", b"P"] * 9, 0.3))
        play(w.upstreams[1])
        client = await w.client()
        assert (await client.ask(GET)).body == b"ok"
        assert now_ms() == 1000


@pytest.mark.parametrize("status", STATUSES)
async def test_a_listed_status_is_followed_by_another_try(status: str) -> None:
    """The client never sees it; the log and the metric do."""
    async with world(upstreams=steady(2), retry=retry_on(status), timeouts=BUDGETS) as w:
        play(w.upstreams[0], answer(int(status), b"sorry"))
        play(w.upstreams[1])
        client = await w.client()
        response = await client.ask(GET)
        assert (response.status, response.body) == (200, b"ok")
        assert now_ms() == 0
    assert outcomes(w.exchanges[0]) == [(0, status), (1, "200")]
    assert w.proxy.stats.retries == {status: 1}
    assert w.proxy.stats.responses[2] == 1
    assert w.proxy.stats.responses[int(status) // 100] == 0
    assert errors_of_each(w) == [{}, {}], "an answer is no failed try"


@pytest.mark.parametrize("status", STATUSES)
async def test_a_status_that_is_not_listed_is_an_answer(status: str) -> None:
    """It goes to the client with its body, and nobody else is asked."""
    retry = retry_on(*others(status))
    async with world(upstreams=steady(2), retry=retry, timeouts=BUDGETS) as w:
        play(w.upstreams[0], answer(int(status), b"sorry"))
        client = await w.client()
        response = await client.ask(GET)
        assert (response.status, response.body) == (int(status), b"sorry")
        assert b"proxy-status" not in response
    assert outcomes(w.exchanges[0]) == [(0, status)]
    assert log_tail(w.exchanges[0]) == "tries=1 phase=stream"


@pytest.mark.parametrize("step", [RESET, CLOSE, HANG])
async def test_failures_are_retried_by_default(step: str) -> None:
    """On another upstream, once."""
    async with world(upstreams=steady(2), retry=Retry(), timeouts=BUDGETS) as w:
        play(w.upstreams[0], step)
        play(w.upstreams[1])
        assert (await (await w.client()).ask(GET)).body == b"ok"
    assert requests_of_each(w) == [1, 1]


@pytest.mark.parametrize("status", STATUSES)
async def test_no_status_is_retried_by_default(status: str) -> None:
    """What an upstream answers is its answer."""
    async with world(upstreams=steady(2), retry=Retry(), timeouts=BUDGETS) as w:
        play(w.upstreams[0], answer(int(status)))
        assert (await (await w.client()).ask(GET)).status == int(status)
    assert requests_of_each(w) == [1, 0]


@pytest.mark.parametrize(
    ("step", "status"),
    [
        (b"nonsense\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 502),
    ],
)
async def test_an_answer_that_is_not_http_is_no_condition(step: bytes, status: int) -> None:
    """It is told to the client: whoever answers has acted upon the request."""
    async with world(upstreams=steady(2), retry=Retry(on=RETRY_CONDITIONS)) as w:
        play(w.upstreams[0], step)
        assert (await (await w.client()).ask(GET)).status == status
    assert outcomes(w.exchanges[0]) == [(0, "response_malformed")]
