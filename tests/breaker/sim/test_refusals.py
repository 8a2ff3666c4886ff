"""An open breaker with nobody else to ask, and breakers together with retries and checks."""

from __future__ import annotations

import pytest
import trio

from support.pools import A, B, answer, ask, is_up, outcomes, serve, servers, statuses, told, tries
from support.scenario import GET, ending, now_ms, only, refusal, until_ms
from support.world import world
from trio_proxy.http.errors import Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.settings import BreakerSettings, Health, Retry

ONE_ERROR = BreakerSettings(min_requests=1, open_ms=2500, half_open_requests=1)
TWO = servers({}, {}, max_fails=0)


async def test_the_only_upstream_is_left_alone() -> None:
    """503 at once; Retry-After is the rest of its time in whole seconds, rounded up."""
    async with world(timeouts=only(), breaker=ONE_ERROR) as w:
        (server,) = serve(w)
        server.status = 500
        assert (await answer(w)).status == 500
        for at, seconds in ((0, b"3"), (499, b"3"), (500, b"2"), (1500, b"1"), (2499, b"1")):
            await until_ms(at)
            refused = await answer(w)
            assert refused[b"retry-after"] == seconds
            assert refusal(refused) == (
                503,
                b"trio-proxy; error=destination_unavailable",
                b"503 Service Unavailable: no upstream available: breaker open (phase: pick)\n",
            )
            assert now_ms() == at
        assert len(server.requests) == 1
        server.status = 200
        await until_ms(2500)
        assert (await answer(w)).status == 200
        assert (await answer(w)).status == 200
        failed, *refusals = w.exchanges[:6]
        assert ending(failed)[:2] == (500, None)
        expected = (503, Reason.BREAKER_OPEN, Source.PROXY, Phase.PICK)
        assert {ending(each) for each in refusals} == {expected}
        assert [each.tries for each in refusals] == [[]] * 5
        assert w.proxy.stats.rejected[Reason.BREAKER_OPEN] == 5


async def test_who_comes_while_the_probes_are_under_way() -> None:
    """503 as well: nobody knows when they end, so it is told to come in a second."""
    async with world(timeouts=only(), breaker=ONE_ERROR) as w:
        (server,) = serve(w)
        server.status = 500
        assert (await answer(w)).status == 500
        server.status, server.delay = 200, 1.0
        await until_ms(2500)
        probe = await w.client()
        await probe.send(GET)
        await trio.sleep(0.1)
        refused = await answer(w)
        assert (refused.status, refused[b"retry-after"]) == (503, b"1")
        assert (await probe.read_response()).status == 200
        assert (await answer(w)).status == 200
        assert server.most == 1


async def test_the_earliest_of_several_is_told() -> None:
    """Of two that open a second apart the first."""
    async with world(upstreams=TWO, timeouts=only(), breaker=ONE_ERROR) as w:
        one, other = serve(w)
        one.status = other.status = 500
        assert await statuses(w, 1) == [500]
        await until_ms(1000)
        assert await statuses(w, 1) == [500]
        refused = await answer(w)
        assert (refused.status, refused[b"retry-after"]) == (503, b"2")
        assert tries(w) == ["a", "b", ""]


async def test_an_upstream_that_is_out_is_better_than_one_that_is_open() -> None:
    """Failed requests are forgiven before a breaker is."""
    tables = servers({"max_fails": 0}, {"max_fails": 1})
    breaker = BreakerSettings(min_requests=2, error_percent=100)
    async with world(upstreams=tables, timeouts=only(), breaker=breaker) as w:
        one, other = serve(w)
        one.status = 500
        other.fault = "reset"
        assert sorted(await statuses(w, 3)) == [500, 500, 502]
        assert not is_up(w, B)
        other.fault = ""
        assert await ask(w, 2) == b"bb"
        assert len(one.requests) == 2


async def test_a_backup_while_the_primary_is_open() -> None:
    """Its breaker makes the primary unavailable."""
    tables = servers({"max_fails": 0}, {"backup": True})
    async with world(upstreams=tables, timeouts=only(), breaker=ONE_ERROR) as w:
        serve(w)[0].status = 500
        assert await statuses(w, 3) == [500, 200, 200]
        assert tries(w) == ["a", "b", "b"]


@pytest.mark.parametrize("on", [("connect", "reset", "timeout"), ("502", "503")])
async def test_the_try_that_opens_the_only_breaker_is_told_as_it_was(on: tuple[str, ...]) -> None:
    """There is nobody to retry at: the client gets that 502, not the breaker's 503."""
    async with world(timeouts=only(), breaker=ONE_ERROR, retry=Retry(on=on)) as w:
        serve(w)[0].fault = "reset"
        failed = await answer(w)
        assert (failed.status, now_ms()) == (502, 0)
        assert failed[b"proxy-status"] == b"trio-proxy; error=connection_terminated"
        assert tries(w) == ["a"]
        assert outcomes(w) == ["connection_reset"]
        assert w.exchanges[0].error is not None
        assert w.exchanges[0].error.reason is Reason.CONNECTION_RESET


async def test_the_answer_that_opens_the_only_breaker_is_passed_on() -> None:
    """With its own body, though a retry was configured for its status."""
    async with world(timeouts=only(), breaker=ONE_ERROR, retry=Retry(on=("503",))) as w:
        (server,) = serve(w)
        server.status, server.body = 503, b"please come again"
        passed = await answer(w)
        assert (passed.status, passed.body) == (503, b"please come again")
        assert outcomes(w) == ["503"]
        assert len(server.requests) == 1


async def test_a_retry_while_the_other_is_open() -> None:
    """An upstream that is open is not the next to try; the same one is, after a pause."""
    breaker = BreakerSettings(min_requests=3, open_ms=60_000)
    async with world(upstreams=TWO, timeouts=only(), breaker=breaker, retry=Retry()) as w:
        one, other = serve(w)
        other.status = 500
        one.fields = b"Connection: close\r\n"  # else a pooled connection is tried first
        assert sorted(await statuses(w, 6)) == [200] * 3 + [500] * 3
        one.fault = "reset"
        assert await statuses(w, 1) == [502]
        assert tries(w)[-1] == "aa"
        assert len(other.requests) == 3


async def test_retries_open_breakers_as_first_tries_do() -> None:
    """Each try is one outcome at its own upstream."""
    breaker = BreakerSettings(min_requests=3, open_ms=60_000)
    async with world(upstreams=TWO, timeouts=only(), breaker=breaker, retry=Retry()) as w:
        one, other = serve(w)
        one.fault = "reset"
        assert await statuses(w, 8) == [200] * 8
        assert len(one.requests) == 3
        assert len(other.requests) == 8
        assert told(w)[0].startswith(f"upstream {A}: breaker open for 60 s")


async def test_a_probe_is_retried_elsewhere() -> None:
    """Who finds that the upstream still fails does not pay for it."""
    async with world(upstreams=TWO, timeouts=only(), breaker=ONE_ERROR, retry=Retry()) as w:
        one, _ = serve(w)
        one.fault = "reset"
        for at in (0, 2500, 5000):
            await until_ms(at)
            assert await statuses(w, 4) == [200] * 4
        assert len(one.requests) == 3
        assert sorted(tries(w)) == sorted(["ab"] * 3 + ["b"] * 9)


async def test_checks_have_no_say_in_it() -> None:
    """An upstream whose checks pass while its requests fail stays open for its time."""
    checks = Health(path="/up", interval_ms=100)
    async with world(upstreams=TWO, timeouts=only(), breaker=ONE_ERROR, health=checks) as w:
        one, _ = serve(w)
        one.status = 500
        await statuses(w, 2)
        one.status = 200
        await until_ms(2499)
        assert await ask(w, 3) == b"bbb"
        assert is_up(w, A)
        await until_ms(2500)
        assert sorted(await ask(w, 2)) == sorted(b"ab")


async def test_max_fails_and_breaker_together() -> None:
    """An upstream that is out by failures and open needs both to end: the later one counts."""
    breaker = BreakerSettings(min_requests=1, open_ms=3000, half_open_requests=1)
    tables = servers({}, {}, fail_timeout_ms=1000)
    async with world(upstreams=tables, timeouts=only(), breaker=breaker) as w:
        one, _ = serve(w)
        one.fault = "reset"
        assert await statuses(w, 2) == [502, 200]
        one.fault = ""
        await until_ms(2999)
        assert await ask(w, 3) == b"bbb"
        await until_ms(3000)
        assert sorted(await ask(w, 2)) == sorted(b"ab")
        assert is_up(w, A)
        assert told(w)[2:] == [
            f"upstream {A}: breaker half_open",
            f"upstream {A} up: a request succeeded",
            f"upstream {A}: breaker closed",
        ]
