"""The laws of the rate limit, through the whole proxy, whoever comes and when."""

from __future__ import annotations

import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.conversation import Message
from support.limiting import limit, stand, statuses
from support.scenario import GET, only
from support.world import run, settings_for, world
from trio_proxy.policy.token_bucket import ROUNDING

RATES = st.sampled_from([0.001, 0.1, 0.3, 1 / 3, 0.5, 0.9, 1, 1.7, 3, 10, 250, 12_345.6])


@settings(max_examples=60, deadline=None)
@given(RATES, st.integers(1, 5), st.lists(st.floats(0, 3), min_size=1, max_size=8))
@example(0.1, 1, [0.0])
@example(1, 1, [0.0])
@example(3, 5, [0.3])
def test_whoever_waits_as_long_as_told_is_let_in(
    rate: float, burst: int, pauses: list[float]
) -> None:
    """And Retry-After is true to the second: a whole second less would not have been enough."""

    async def converse() -> None:
        async with world(rate_limit=limit(burst, rate), timeouts=only()) as w:
            w.upstreams[0].serve()
            async with await w.client() as client:
                for pause in pauses:
                    await trio.sleep(pause / rate)
                    answer = await client.ask(GET)
                    while answer.status == 200:
                        answer = await client.ask(GET)
                    seconds = told_to_wait(answer)
                    too_early = seconds - 1 - 2 * ROUNDING / rate
                    if too_early > 0:
                        await trio.sleep(too_early)
                        assert await statuses(client, 1) == [429]
                    await trio.sleep(seconds - max(0, too_early))
                    assert await statuses(client, 1) == [200]

    run(converse)


def told_to_wait(answer: Message) -> int:
    """Seconds by Retry-After, with which the other fields must agree."""
    assert answer.status == 429
    _, remaining, reset = stand(answer)
    assert remaining == 0
    assert answer[b"retry-after"] == b"%d" % reset
    assert answer[b"ratelimit"] == b'"trio-proxy";r=0;t=%d' % reset
    return reset


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([0.1, 1 / 3, 2, 10]),
    st.integers(1, 4),
    st.lists(st.tuples(st.floats(0, 2), st.integers(0, 2)), max_size=40),
)
def test_no_client_gets_more_than_rate_and_burst_or_less_than_its_due(
    rate: float, burst: int, requests: list[tuple[float, int]]
) -> None:
    """Three clients in any order: each is let in exactly when a bucket of its own has a token."""

    async def converse() -> None:
        tokens, seen = [float(burst)] * 3, [0.0] * 3
        async with world(rate_limit=limit(burst, rate), timeouts=only()) as w:
            w.upstreams[0].serve()
            clients = [await w.client(f"198.51.100.{number}") for number in range(3)]
            for pause, number in requests:
                await trio.sleep(pause / rate)
                now = trio.current_time()
                tokens[number] += (now - seen[number]) * rate
                tokens[number], seen[number] = min(burst, tokens[number]), now
                status = (await clients[number].ask(GET)).status
                if abs(tokens[number] - 1) > 2 * ROUNDING:  # on the very edge floats decide
                    assert status == (200 if tokens[number] > 1 else 429)
                tokens[number] -= status == 200
            for client in clients:
                client.close()
            let_in = sum(exchange.status == 200 for exchange in w.exchanges)
            assert len(w.upstreams[0].requests) == let_in

    run(converse)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5),
    st.lists(
        st.tuples(st.floats(0, 2), st.sampled_from([0.1, 0.5, 2, 10]), st.floats(0, 2)), max_size=20
    ),
)
def test_over_reloads_of_the_rate_a_bucket_keeps_its_tokens(
    burst: int, steps: list[tuple[float, float, float]]
) -> None:
    """It gains them at the rate in force, whether the reload comes before or after a request."""

    async def converse() -> None:
        rate, tokens = 1.0, float(burst)
        async with world(rate_limit=limit(burst, rate), timeouts=only()) as w:
            w.upstreams[0].serve()
            async with await w.client() as client:
                for before, new_rate, after in steps:
                    await trio.sleep(before / rate)
                    tokens = min(burst, tokens + before)
                    await w.reload(settings_for(rate_limit=limit(burst, new_rate), timeouts=only()))
                    rate = new_rate
                    await trio.sleep(after / rate)
                    tokens = min(burst, tokens + after)
                    status = (await client.ask(GET)).status
                    if abs(tokens - 1) > 5 * ROUNDING:  # on the very edge floats decide
                        assert status == (200 if tokens > 1 else 429)
                    tokens -= status == 200

    run(converse)
