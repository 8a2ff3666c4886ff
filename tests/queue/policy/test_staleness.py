"""What a queue knows of holding times may be late, but not by much."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from trio_proxy.policy.queueing import LEAST_SAMPLES, MOST_SAMPLES, STALE_SHARE, WORTH, WaitEstimate

HOLDS = st.floats(0, 10)
BATCHES = st.lists(st.lists(HOLDS, max_size=60), min_size=1, max_size=20)


@settings(max_examples=300, deadline=None)
@given(BATCHES, HOLDS, st.floats(0, 3), HOLDS)
def test_a_verdict_is_that_of_a_moment_not_long_ago(
    batches: list[list[float]], remaining: float, wait: float, total: float
) -> None:
    """Of the samples then, by the definition; so many as `STALE_SHARE` says have come since."""
    estimate, holds = WaitEstimate(), list[float]()
    for batch in batches:
        for seconds in batch:
            estimate.served(seconds, 0.0)
        holds += batch
        verdict = estimate.is_hopeless(wait, remaining, total, 0.0)
        late_at_most = max(LEAST_SAMPLES, int(STALE_SHARE * min(len(holds), MOST_SAMPLES)) + 1)
        moments = range(max(0, len(holds) - late_at_most), len(holds) + 1)
        assert verdict in {is_hopeless(holds[:end], wait, remaining, total) for end in moments}


def is_hopeless(holds: list[float], wait: float, remaining: float, total: float) -> bool:
    """The definition."""
    latest = holds[-MOST_SAMPLES:]
    if len(latest) < LEAST_SAMPLES:
        return False
    in_time = sum(seconds <= remaining - wait for seconds in latest) / len(latest)
    return in_time < WORTH * (sum(seconds <= total for seconds in latest) / len(latest))
