"""The counters of several workers as those of one proxy."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_proxy.http.errors import Reason
from trio_proxy.http.phases import Phase
from trio_proxy.telemetry.merging import Ledger, combined
from trio_proxy.telemetry.metrics import WorkersCollector, registry_of, render
from trio_proxy.telemetry.stats import Stats, UpstreamStats

KEY = ("default", "127.0.0.1:9001")


def busy(number: int) -> Stats:
    """Counters in which every place has a value that tells who wrote it."""
    stats = Stats()
    for name in stats.__slots__:
        fill(stats, name, number)
    stats.queue_length["default"] = number
    stats.retried("503")
    upstream = stats.upstream(*KEY)
    for name in upstream.__slots__:
        fill(upstream, name, number)
    upstream.up, upstream.breaker = True, "closed"
    return stats


def fill(stats: Any, name: str, number: int) -> None:
    value = getattr(stats, name)
    if isinstance(value, dict):
        value.update(dict.fromkeys(value, number))
    elif isinstance(value, list):
        value[:] = [number] * len(value)
    elif name == "duration":
        value.observe(0.001 * number)
    elif not isinstance(value, str):
        setattr(stats, name, type(value)(number))


def numbers_in(value: Any) -> list[float]:
    """Every number, wherever it is."""
    if isinstance(value, dict):
        return [found for key in sorted(value, key=str) for found in numbers_in(value[key])]
    if isinstance(value, list):
        return [found for each in value for found in numbers_in(each)]
    if hasattr(value, "__slots__"):
        names = [name for name in value.__slots__ if name != "bounds"]
        return [found for name in names for found in numbers_in(getattr(value, name))]
    return [value] if isinstance(value, int | float) else []


def counters_of(stats: Stats) -> list[float]:
    """What must never fall."""
    copy = pickle.loads(pickle.dumps(stats))
    copy.client_connections = copy.requests_in_flight = 0
    copy.queue_length = {}
    for one in copy.upstreams.values():
        one.active = one.idle = one.up = one.draining = one.weight = 0
    return numbers_in(copy)


def test_every_counter_adds_up() -> None:
    """Whatever is counted: nothing is left out, and neither part is changed."""
    one, two = busy(1), busy(2)
    before = [pickle.dumps(one), pickle.dumps(two)]
    both = combined(one, two)
    for stats in (one, two, both):  # these are no sums
        upstream: Any = stats.upstreams[KEY]
        upstream.up = upstream.draining = upstream.weight = 0
    assert numbers_in(both) == pytest.approx(
        [a + b for a, b in zip(numbers_in(one), numbers_in(two), strict=True)]
    )
    assert [pickle.dumps(busy(1)), pickle.dumps(busy(2))] == before


def test_what_only_one_has_is_taken_over() -> None:
    """An upstream, a pool, a reason."""
    both = combined(Stats(), busy(3))
    assert both.upstreams[KEY].requests == 3
    assert both.queue_length == {"default": 3}
    assert both.retries == {"503": 1}


@pytest.mark.parametrize(
    ("key", "values", "expected"),
    [
        ("up", (True, False), False),
        ("up", (True, True), True),
        ("draining", (True, False), True),
        ("weight", (2, 5), 5),
        ("breaker", ("closed", "half_open"), "half_open"),
        ("breaker", ("open", "half_open"), "open"),
        ("breaker", ("", "closed"), "closed"),
    ],
)
def test_the_word_of_the_worker_that_sees_the_worst_counts(
    key: str, values: tuple[Any, Any], expected: Any
) -> None:
    """For what cannot be added; whoever comes first."""
    for pair in (values, values[::-1]):
        stats = [Stats(), Stats()]
        for each, value in zip(stats, pair, strict=True):
            setattr(each.upstream(*KEY), key, value)
        assert getattr(combined(*stats).upstreams[KEY], key) == expected


def test_counters_survive_the_trip_between_processes() -> None:
    """Enums as keys and all."""
    stats = busy(5)
    stats.disconnects[Phase.STREAM] = 7
    stats.rejected[Reason.QUEUE_FULL] = 8
    copy = pickle.loads(pickle.dumps(stats))
    assert numbers_in(copy) == numbers_in(stats)
    assert copy.disconnects[Phase.STREAM] == 7
    assert copy.rejected[Reason.QUEUE_FULL] == 8


# The ledger


def test_a_worker_that_died_leaves_its_counters_and_takes_its_gauges() -> None:
    """What it has done is done; what it was about is no more."""
    ledger = Ledger()
    ledger.update("a", busy(5))
    ledger.update("b", busy(1))
    ledger.remove("a")
    total = ledger.total()
    assert total.requests_total == total.upstreams[KEY].requests == 6
    assert (total.client_connections, total.requests_in_flight) == (1, 1)
    assert (total.upstreams[KEY].active, total.upstreams[KEY].idle) == (1, 1)
    assert total.queue_length == {"default": 1}


def test_what_a_dead_worker_thought_of_an_upstream_is_forgotten() -> None:
    """The living are asked."""
    ledger = Ledger()
    dying, living = busy(2), busy(1)
    dying.upstreams[KEY].up, dying.upstreams[KEY].breaker = False, "open"
    ledger.update("a", dying)
    ledger.update("b", living)
    assert not ledger.total().upstreams[KEY].up
    ledger.remove("a")
    assert ledger.total().upstreams[KEY].up
    assert ledger.total().upstreams[KEY].breaker == "closed"


def test_the_next_report_takes_the_place_of_the_last() -> None:
    """They are totals, not differences."""
    ledger = Ledger()
    ledger.update("a", busy(1))
    ledger.update("a", busy(4))
    assert ledger.total().requests_total == 4


def test_an_upstream_that_one_worker_forgets_first_keeps_its_count() -> None:
    """It does not fall while it is shown, and goes when the last worker has forgotten it."""
    ledger = Ledger()
    ledger.update("a", busy(5))
    ledger.update("b", busy(1))
    ledger.update("a", Stats())
    assert ledger.total().upstreams[KEY].requests == 6
    ledger.update("b", Stats())
    assert ledger.total().upstreams == {}
    ledger.update("a", busy(2))
    assert ledger.total().upstreams[KEY].requests == 2


def test_with_all_workers_dead_the_counters_are_shown_all_the_same() -> None:
    """A scrape between the deaths and the restarts shows no fall."""
    ledger = Ledger()
    for name in ("a", "b"):
        ledger.update(name, busy(2))
    for name in ("a", "b", "unknown"):
        ledger.remove(name)
    assert ledger.total().requests_total == ledger.total().upstreams[KEY].requests == 4


#: What befalls two workers: a request each time, a death, upstream forgotten.
EVENTS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["work", "die", "forget"])))


@given(EVENTS)
def test_no_counter_that_is_shown_falls(events: list[tuple[str, str]]) -> None:
    """Whatever happens to whom, as long as a third worker knows the upstream."""
    ledger, workers = Ledger(), {"a": Stats(), "b": Stats()}
    ledger.update("c", busy(1))
    last = counters_of(ledger.total())
    for name, event in events:
        if event == "die":
            ledger.remove(name)
            workers[name] = Stats()
        elif event == "forget":
            workers[name].forget_upstream(*KEY)
            ledger.update(name, pickle.loads(pickle.dumps(workers[name])))
        else:
            workers[name].requests_total += 1
            workers[name].upstream(*KEY).requests += 1
            ledger.update(name, pickle.loads(pickle.dumps(workers[name])))
        now = counters_of(ledger.total())
        assert all(a >= b for a, b in zip(now, last, strict=True))
        last = now


def test_the_sums_are_shown_with_the_number_of_workers() -> None:
    """And how often one was started anew."""
    collector = WorkersCollector()
    collector.stats, collector.running, collector.restarts = busy(3), 2, 1
    body, _ = render(registry_of(collector), "text/plain")
    lines = body.decode().splitlines()
    assert "proxy_requests_total 3.0" in lines
    assert "proxy_workers 2.0" in lines
    assert "proxy_worker_restarts_total 1.0" in lines


def test_an_upstream_without_a_worker_that_knows_it_has_neutral_gauges() -> None:
    """They change nothing once a worker tells its own."""
    ledger = Ledger()
    ledger.update("a", busy(9))
    ledger.remove("a")
    shown = ledger.total().upstreams[KEY]
    assert isinstance(shown, UpstreamStats)
    assert (shown.active, shown.idle, shown.up, shown.draining) == (0, 0, True, False)
