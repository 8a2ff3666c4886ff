"""The deadlines of an exchange: which budget ends a wait, and what it is then called."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from support.world import run
from trio_proxy.exchange.deadlines import Budgets, Deadlines
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.timers import Timers
from trio_proxy.exchange.waits import Wait
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.phases import Phase

SECONDS = st.one_of(st.just(math.inf), st.floats(0.001, 1e5))


@asynccontextmanager
async def exchange_with(seconds: Mapping[str, float]) -> AsyncIterator[Exchange]:
    """An exchange whose total budget runs, with somebody who looks at its deadlines."""
    timers = Timers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        await trio.testing.wait_all_tasks_blocked()
        exchange = Exchange(timers.now(), 0.0, "192.0.2.1")
        exchange.deadlines = Deadlines(timers, Budgets(seconds))
        exchange.deadlines.restart(exchange, Budgets(seconds))
        exchange.deadlines.start_total(timers.now())
        with exchange.deadlines:
            yield exchange
        nursery.cancel_scope.cancel()


async def wait_for_ever(exchange: Exchange, wait: Wait | None) -> tuple[float, ProxyError | None]:
    """How long it took until that ended, and why it did."""
    began = trio.current_time()
    with exchange.deadlines.open_scope():
        if wait is None:
            await trio.sleep_forever()
        with exchange.wait(wait):
            await trio.sleep_forever()
    return trio.current_time() - began, exchange.deadlines.why_over()


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(Wait), SECONDS, st.floats(0.001, 1e5))
def test_a_wait_ends_with_the_nearer_of_its_own_budget_and_the_total(
    wait: Wait, own: float, total: float
) -> None:
    """And the error says which of the two it was, and whose fault that is."""

    async def check() -> None:
        async with exchange_with({wait.value: own, "total": total}) as exchange:
            took, error = await wait_for_ever(exchange, wait)
            assert took == pytest.approx(min(own, total))
            assert error is not None
            assert error.reason is (Reason.TOTAL_TIMEOUT if total <= own else wait.reason)
            assert error.source is wait.source

    run(check)


async def test_without_any_wait_the_total_ends_an_exchange_all_the_same() -> None:
    """It is the real deadline of its scope, and nobody's fault but ours."""
    async with exchange_with({"total": 5.0}) as exchange:
        with exchange.deadlines.open_scope():
            assert trio.current_effective_deadline() == trio.current_time() + 5.0
            with exchange.wait(Wait.READ):
                assert trio.current_effective_deadline() == trio.current_time() + 5.0
        took, error = await wait_for_ever(exchange, None)
        assert took == 5.0
        assert error is not None
        assert (error.reason, error.source) == (Reason.TOTAL_TIMEOUT, Source.PROXY)
        assert error.detail == "total deadline of 5000 ms passed"


async def test_the_error_names_the_phase_and_the_budget_that_ran_out() -> None:
    """In whole milliseconds."""
    async with exchange_with({"body": 0.25}) as exchange:
        exchange.phase = Phase.SEND
        _, error = await wait_for_ever(exchange, Wait.BODY)
        assert str(error) == "body_timeout (client, send): body deadline of 250 ms passed"


async def test_a_block_that_is_left_puts_back_what_was_before() -> None:
    """No deadline of a wait that is over ends anything later; that of one around it still does."""
    async with exchange_with({"head": 1.0, "body": 5.0}) as exchange:
        with exchange.deadlines.open_scope() as scope:
            with exchange.wait(Wait.HEAD):
                await trio.sleep(0.9)
            await trio.sleep(1.0)
            with exchange.wait(Wait.BODY):
                with exchange.wait(Wait.HEAD):
                    await trio.sleep(0.5)
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(1.9 + 5.0)
        error = exchange.deadlines.why_over()
        assert error is not None
        assert error.reason is Reason.BODY_TIMEOUT


async def test_two_tasks_of_an_exchange_wait_each_within_its_own_budget() -> None:
    """Whoever is later neither prolongs the other's wait nor takes its name."""
    async with exchange_with({"body": 2.0, "client_write": 3.0}) as exchange:
        ended: list[Wait] = []

        async def wait(kind: Wait, seconds: float) -> None:
            with exchange.wait(kind):
                await trio.sleep(seconds)
            ended.append(kind)

        with exchange.deadlines.open_scope():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, Wait.BODY, 1.5)
                nursery.start_soon(wait, Wait.CLIENT_WRITE, 4.0)
        assert trio.current_time() == 3.0
        assert ended == [Wait.BODY]
        error = exchange.deadlines.why_over()
        assert error is not None
        assert error.reason is Reason.CLIENT_STALLED


async def test_while_a_wait_is_suspended_only_the_total_counts() -> None:
    """And when it begins again it has its whole budget."""
    async with exchange_with({"read": 1.0, "total": 60.0}) as exchange:
        with exchange.deadlines.open_scope(), exchange.wait(Wait.READ) as block:
            block.suspend()
            await trio.sleep(30)
            block.begin()
            await trio.sleep_forever()
        assert trio.current_time() == 31.0


async def test_what_comes_in_the_step_in_which_time_is_up_comes_too_late() -> None:
    """Whichever of the two the event loop takes up first."""
    async with exchange_with({"read": 1.0}) as exchange:
        with exchange.deadlines.open_scope() as scope, exchange.wait(Wait.READ) as block:
            await trio.sleep(1.0)
            if block.is_late:
                await block.too_late()
        assert scope.cancelled_caught


class OneTry:
    """A try that notes why it was ended."""

    is_over = False

    def __init__(self) -> None:
        self.errors: list[ProxyError] = []

    def fail(self, error: ProxyError) -> None:
        self.errors.append(error)


@pytest.mark.parametrize("wait", Wait)
async def test_a_budget_of_the_upstreams_ends_the_try_and_any_other_the_exchange(
    wait: Wait,
) -> None:
    """The total always ends the exchange."""
    async with exchange_with({wait.value: 1.0, "total": 2.0}) as exchange:
        attempt = exchange.deadlines.try_under_way = OneTry()
        took, error = await wait_for_ever(exchange, wait)
        if wait in (Wait.CONNECT, Wait.WRITE, Wait.READ):
            assert [one.reason for one in attempt.errors] == [wait.reason]
            assert took == 2.0
            assert error is not None
            assert error.reason is Reason.TOTAL_TIMEOUT
        else:
            assert attempt.errors == []
            assert took == 1.0


async def test_the_budget_of_a_try_runs_while_it_is_the_upstreams_turn() -> None:
    """Not in a wait for the client."""
    async with exchange_with({"try": 1.0, "total": 10.0}) as exchange:
        attempt = exchange.deadlines.try_under_way = OneTry()
        exchange.deadlines.try_at = trio.current_time() + 1.0
        with exchange.deadlines.open_scope():
            with exchange.wait(Wait.CLIENT_WRITE):
                await trio.sleep(3.0)
            assert attempt.errors == []
            with exchange.wait(Wait.READ):
                await trio.sleep(0.1)
        assert [one.reason for one in attempt.errors] == [Reason.TRY_TIMEOUT]


@settings(max_examples=100, deadline=None)
@given(SECONDS, st.none() | st.floats(0, 1e6))
def test_an_inherited_budget_can_shorten_the_total_and_never_lengthen_it(
    total: float, at_most: float | None
) -> None:
    """Whatever a caller asks for, the configured bound stays; zero is a budget, too."""

    async def check() -> None:
        async with exchange_with({"total": total}) as exchange:
            deadlines = exchange.deadlines
            deadlines.start_total(trio.current_time(), at_most)
            expected = total if at_most is None else min(total, at_most)
            assert deadlines.remaining() == pytest.approx(expected)
            assert deadlines.is_inherited == (at_most is not None and at_most < total)

    run(check)


async def test_the_total_can_be_taken_away_for_a_tunnel() -> None:
    """Also while its scope is under way."""
    async with exchange_with({"total": 5.0}) as exchange:
        with exchange.deadlines.open_scope() as scope:
            exchange.deadlines.stop_total()
            await trio.sleep(50)
        assert not scope.cancelled_caught
        assert exchange.deadlines.remaining() == math.inf


async def test_the_first_reason_to_end_an_exchange_stays() -> None:
    """Also when it comes before the exchange has begun to run."""
    gone, late = (
        ProxyError(Source.CLIENT, Phase.ROUTE, reason)
        for reason in (Reason.CLIENT_GONE, Reason.SHUTTING_DOWN)
    )
    async with exchange_with({"total": 5.0}) as exchange:
        exchange.abort(gone)
        exchange.abort(late)
        took, error = await wait_for_ever(exchange, Wait.READ)
        assert (took, error) == (0.0, gone)


async def test_a_scope_serves_one_exchange_after_the_other() -> None:
    """Each has its own deadline; that of one that is over ends neither the next nor the pause."""
    async with exchange_with({"total": 5.0}) as exchange:
        deadlines = exchange.deadlines
        for _ in range(3):
            deadlines.start_total(trio.current_time())
            with deadlines.open_scope() as scope:
                await trio.sleep(4.0)
            assert not scope.cancelled_caught
            deadlines.let_go()
            try:
                await trio.sleep(60.0)
            except trio.Cancelled as exc:
                absorbed = deadlines.absorb(exc)
            assert absorbed
            deadlines.restart(exchange, deadlines.budgets)
        assert trio.current_time() == 3 * (4.0 + 1.0)


async def test_a_cancellation_from_outside_is_not_absorbed() -> None:
    """Somebody stops all of it between two exchanges."""
    absorbed = True
    async with exchange_with({"total": 5.0}) as exchange:
        deadlines = exchange.deadlines
        with trio.move_on_after(1.0) as outside, deadlines:
            with deadlines.open_scope():
                pass
            try:
                await trio.sleep_forever()
            except trio.Cancelled as exc:
                absorbed = deadlines.absorb(exc)
                raise
        assert outside.cancelled_caught
    assert not absorbed
