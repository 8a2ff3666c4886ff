"""Connections to the metrics port that do nothing: scrapers need the few places that there are."""

from __future__ import annotations

import pytest
import trio

from support.scenario import now_ms, only
from support.world import METRICS, settings_for, world
from trio_proxy.exchange.waits import Wait
from trio_proxy.handlers.metrics import MetricsHandler
from trio_proxy.server import build
from trio_proxy.settings import Limits, Timeouts


@pytest.mark.parametrize("timeouts", [Timeouts(), only(), Timeouts(idle_ms=2000)])
async def test_an_idle_connection_to_the_metrics_port_ends_soon(timeouts: Timeouts) -> None:
    """After 10 s, whatever `idle_ms` says of clients; or earlier, if that is less."""
    async with world(metrics_listen=METRICS, timeouts=timeouts) as w:
        idle = await w.client(address=METRICS)
        slow = await w.client(address=METRICS)
        await slow.send(b"GET /metrics HTTP/1.1\r\nHo")
        assert await idle.receive_all() == b""
        assert now_ms() == min(timeouts.idle_ms or 10_000, 10_000)
        assert (await slow.read_response()).status == 408
        await trio.sleep_until(10)
        assert now_ms() == 10_000


@pytest.mark.parametrize("limits", [Limits(), Limits(queue_ms=0)])
def test_no_wait_on_the_metrics_port_is_longer_than_10_seconds(limits: Limits) -> None:
    settings = settings_for(timeouts=only(head_ms=300), limits=limits)
    plan = build.metrics_plan(settings, MetricsHandler(lambda accept: (b"", "")))
    budgets = plan.budgets
    assert max(*budgets.waits, budgets.total, budgets.try_, budgets.idle) <= 10
    assert budgets.of(Wait.HEAD) == 0.3
