"""What is counted, and the law of histograms."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.exchanges import exchange_with
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.telemetry.stats import DURATION_BUCKETS, MAX_RETRY_REASONS, Histogram, Stats


def ended(reason: Reason | None = None, phase: Phase = Phase.STREAM, **facts: Any) -> Exchange:
    error = ProxyError(Source.PROXY, phase, reason) if reason else None
    facts.setdefault("status", reason.status if reason else 200)
    return exchange_with(ended_at=0.02, error=error, **facts)


def counted(exchange: Exchange) -> Stats:
    stats = Stats()
    stats.request_started()
    stats.exchange_ended(exchange)
    assert stats.requests_in_flight == 0
    return stats


def test_completed_exchange() -> None:
    stats = counted(ended(bytes_sent=310, bytes_received=78))
    assert stats.requests_total == 1
    assert stats.responses[2] == sum(stats.responses) == 1
    assert (stats.bytes_sent, stats.bytes_received) == (310, 78)
    assert stats.duration.sum == 0.02


def test_client_that_left_before_an_answer_is_a_disconnect_and_no_response() -> None:
    stats = counted(ended(Reason.CLIENT_GONE, Phase.AWAIT_HEAD))
    assert stats.disconnects[Phase.AWAIT_HEAD] == sum(stats.disconnects.values()) == 1
    assert sum(stats.responses) == 0


def test_client_that_left_during_an_answer_is_both() -> None:
    stats = counted(ended(Reason.CLIENT_GONE, status=200, head_sent=True))
    assert stats.disconnects[Phase.STREAM] == 1
    assert stats.responses[2] == 1


@pytest.mark.parametrize("name", ["connect", "read", "write", "total"])
def test_timeout_by_budget(name: str) -> None:
    stats = counted(ended(Reason[f"{name.upper()}_TIMEOUT"]))
    assert stats.timeouts[name] == sum(stats.timeouts.values()) == 1
    assert stats.responses[5] == 1


@pytest.mark.parametrize(
    "reason", [Reason.BODY_TOO_LARGE, Reason.HEAD_TOO_LARGE, Reason.QUEUE_FULL]
)
def test_rejected_by_reason(reason: Reason) -> None:
    stats = counted(ended(reason))
    assert stats.rejected[reason] == sum(stats.rejected.values()) == 1


def test_a_response_cut_by_a_drain_was_not_rejected() -> None:
    stats = counted(ended(Reason.SHUTTING_DOWN, status=200, head_sent=True))
    assert sum(stats.rejected.values()) == 0


def test_upstream_failures_by_type() -> None:
    upstream = Stats().upstream("default", "a:1")
    for reason in (Reason.READ_TIMEOUT, Reason.CONNECTION_REFUSED, Reason.CONNECTION_RESET):
        upstream.failed(reason)
    assert upstream.errors == {"timeout": 1, "connection_refused": 1, "other": 1}


def test_upstream_is_made_once_and_starts_over_after_it_was_forgotten() -> None:
    stats = Stats()
    first = stats.upstream("default", "a:1")
    assert stats.upstream("default", "a:1") is first
    stats.forget_upstream("default", "a:1")
    stats.forget_upstream("default", "never seen")
    assert stats.upstream("default", "a:1") is not first


def test_retry_reasons_are_bounded() -> None:
    stats = Stats()
    for number in range(10 * MAX_RETRY_REASONS):
        stats.retried(f"reason{number}")
    assert len(stats.retries) == MAX_RETRY_REASONS + 1
    assert sum(stats.retries.values()) == 10 * MAX_RETRY_REASONS


@given(st.lists(st.floats(0, 1000) | st.sampled_from(DURATION_BUCKETS)))
def test_histogram_law(observations: list[float]) -> None:
    histogram = Histogram()
    for seconds in observations:
        histogram.observe(seconds)
    pairs = histogram.cumulative()
    assert [bound for bound, _ in pairs] == [*DURATION_BUCKETS, float("inf")]
    for bound, count in pairs:
        assert count == sum(seconds <= bound for seconds in observations)
    assert histogram.sum == pytest.approx(sum(observations))
