"""`Stats` in the words of Prometheus; the names and labels are those of the contract.

Rendering runs in a worker thread while the event loop goes on counting, so every dict is copied
before it is walked (`dict.copy` runs no Python code, and so cannot be interrupted).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from trio_proxy.telemetry.stats import Stats

if TYPE_CHECKING:
    from trio_proxy.telemetry.stats import Histogram, UpstreamKey, UpstreamStats

#: Status classes shown even at 0. 1xx (an accepted upgrade) joins them once there is one.
STATUS_CLASSES = (2, 3, 4, 5)

#: The values of the ``state`` label of a breaker.
BREAKER_STATES = ("closed", "open", "half_open")


def build_registry(stats: Stats) -> CollectorRegistry:
    """A registry of its own, so that an application that embeds the proxy keeps its global one."""
    return registry_of(StatsCollector(stats))


def registry_of(collector: Collector) -> CollectorRegistry:
    """A registry with what the collector has to tell, and what there is of this process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(collector)
    return registry


def render(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """The body and content type of an answer to a scraper that sent this ``Accept``."""
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class StatsCollector(Collector):
    """Reads a `Stats` anew for every scrape."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        yield from self._requests()
        yield from self._failures()
        yield from self._gauges()
        yield from self._upstreams(self._stats.upstreams.copy())

    def _requests(self) -> Iterator[Metric]:
        stats = self._stats
        yield _counter("proxy_requests", "Requests begun.", stats.requests_total)
        yield _counter(
            "proxy_requests_parse_errors",
            "Request heads refused as malformed or ambiguous.",
            stats.parse_errors,
        )
        by_class = stats.responses.copy()
        shown = STATUS_CLASSES if not by_class[1] else (1, *STATUS_CLASSES)
        yield _counters(
            "proxy_responses",
            "Responses, by the class of their status.",
            "status_class",
            {f"{digit}xx": by_class[digit] for digit in shown},
        )
        duration = HistogramMetricFamily(
            "proxy_request_duration_seconds",
            "Time from the first byte of a request to the end of its response.",
        )
        _add_histogram(duration, [], stats.duration)
        yield duration
        yield _counter("proxy_bytes_sent", "Bytes sent to clients.", stats.bytes_sent)
        yield _counter("proxy_bytes_received", "Bytes taken from clients.", stats.bytes_received)

    def _failures(self) -> Iterator[Metric]:
        stats = self._stats
        yield _counters(
            "proxy_timeout_errors",
            "Exchanges ended by a deadline, by its budget.",
            "type",
            stats.timeouts.copy(),
        )
        yield _counters(
            "proxy_retries", "Further tries, by what befell the last.", "reason", stats.retries
        )
        yield _counters(
            "proxy_retries_refused",
            "Failed tries that no other followed, by the obstacle.",
            "reason",
            stats.not_retried.copy(),
        )
        yield _counters(
            "proxy_rejected",
            "Requests turned away by the proxy.",
            "reason",
            {
                **{reason.slug: count for reason, count in stats.rejected.copy().items()},
                "other": stats.rejected_otherwise,
            },
        )
        yield _counters(
            "proxy_client_disconnects",
            "Clients that left before their response was complete.",
            "phase",
            {phase.value: count for phase, count in stats.disconnects.copy().items()},
        )
        yield _counters(
            "proxy_config_reloads", "Reloads of the configuration.", "result", stats.reloads
        )
        yield _counter(
            "proxy_log_lines_dropped",
            "Log lines lost because the log could not take them.",
            stats.log_lines_dropped,
        )

    def _gauges(self) -> Iterator[Metric]:
        stats = self._stats
        yield GaugeMetricFamily(
            "proxy_client_connections", "Open client connections.", stats.client_connections
        )
        yield GaugeMetricFamily(
            "proxy_requests_in_flight", "Requests not yet answered.", stats.requests_in_flight
        )
        yield GaugeMetricFamily(
            "proxy_orphaned_upstreams",
            "Upstream exchanges that outlived their client's; must stay 0.",
            stats.orphaned_upstreams,
        )
        queues = GaugeMetricFamily(
            "proxy_queue_length", "Requests waiting for an upstream connection.", labels=["pool"]
        )
        for pool, length in stats.queue_length.copy().items():
            queues.add_metric([pool], length)
        yield queues

    def _upstreams(self, upstreams: Mapping[UpstreamKey, UpstreamStats]) -> Iterable[Metric]:
        requests = CounterMetricFamily(
            "proxy_upstream_requests", "Tries at an upstream.", labels=["pool", "upstream"]
        )
        errors = CounterMetricFamily(
            "proxy_upstream_errors",
            "Failed tries at an upstream.",
            labels=["pool", "upstream", "type"],
        )
        duration = HistogramMetricFamily(
            "proxy_upstream_duration_seconds",
            "Time from the start of a try to its response head.",
            labels=["pool", "upstream"],
        )
        connections = GaugeMetricFamily(
            "proxy_upstream_connections",
            "Open connections to an upstream.",
            labels=["pool", "upstream", "state"],
        )
        up = GaugeMetricFamily(
            "proxy_upstream_up", "Whether an upstream is healthy.", labels=["pool", "upstream"]
        )
        draining = GaugeMetricFamily(
            "proxy_upstream_draining",
            "Whether it takes no new requests.",
            labels=["pool", "upstream"],
        )
        weight = GaugeMetricFamily(
            "proxy_upstream_weight",
            "Its share of the load when healthy.",
            labels=["pool", "upstream"],
        )
        breaker = GaugeMetricFamily(
            "proxy_breaker_state", "1 for the state it is in.", labels=["pool", "upstream", "state"]
        )
        checks = CounterMetricFamily(
            "proxy_health_checks", "Active health checks.", labels=["pool", "upstream", "result"]
        )
        for key, one in upstreams.items():
            requests.add_metric(key, one.requests)
            for kind, count in one.errors.items():  # its keys never change
                errors.add_metric([*key, kind], count)
            _add_histogram(duration, key, one.duration)
            connections.add_metric([*key, "active"], one.active)
            connections.add_metric([*key, "idle"], one.idle)
            up.add_metric(key, one.up)
            draining.add_metric(key, one.draining)
            weight.add_metric(key, one.weight)
            for state in BREAKER_STATES if one.breaker else ():
                breaker.add_metric([*key, state], state == one.breaker)
            for result, count in one.checks.items():  # its keys never change
                checks.add_metric([*key, result], count)
        return requests, errors, duration, connections, up, draining, weight, breaker, checks


class WorkersCollector(Collector):
    """Shows the sums over several workers, which the event loop puts here for each scrape."""

    def __init__(self) -> None:
        self.stats = Stats()
        self.running = 0
        self.restarts = 0

    def collect(self) -> Iterator[Metric]:
        yield from StatsCollector(self.stats).collect()
        yield GaugeMetricFamily("proxy_workers", "Worker processes that serve.", self.running)
        yield _counter("proxy_worker_restarts", "Workers started anew.", self.restarts)


def _counter(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(name, text, value)


def _counters(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in dict(values).items():
        family.add_metric([value], count)
    return family


def _add_histogram(family: HistogramMetricFamily, labels: Sequence[str], data: Histogram) -> None:
    """``_count`` is made from the buckets, so a scrape never shows the two at odds."""
    buckets = [
        ("+Inf" if bound == float("inf") else str(bound), count)
        for bound, count in data.cumulative()
    ]
    family.add_metric(labels, buckets, data.sum)
