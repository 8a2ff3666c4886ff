"""The rendered metrics against the list of the contract."""

from __future__ import annotations

import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.exchanges import exchange_with
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.telemetry.metrics import build_registry, render
from trio_proxy.telemetry.stats import Stats

#: Sample name → its label names.
CONTRACT = {
    "proxy_requests_total": set(),
    "proxy_requests_parse_errors_total": set(),
    "proxy_responses_total": {"status_class"},
    "proxy_request_duration_seconds_bucket": {"le"},
    "proxy_request_duration_seconds_sum": set(),
    "proxy_request_duration_seconds_count": set(),
    "proxy_bytes_sent_total": set(),
    "proxy_bytes_received_total": set(),
    "proxy_upstream_requests_total": {"pool", "upstream"},
    "proxy_upstream_errors_total": {"pool", "upstream", "type"},
    "proxy_timeout_errors_total": {"type"},
    "proxy_upstream_duration_seconds_bucket": {"pool", "upstream", "le"},
    "proxy_upstream_duration_seconds_sum": {"pool", "upstream"},
    "proxy_upstream_duration_seconds_count": {"pool", "upstream"},
    "proxy_client_connections": set(),
    "proxy_requests_in_flight": set(),
    "proxy_upstream_connections": {"pool", "upstream", "state"},
    "proxy_upstream_up": {"pool", "upstream"},
    "proxy_queue_length": {"pool"},
    "proxy_retries_total": {"reason"},
    "proxy_rejected_total": {"reason"},
    "proxy_client_disconnects_total": {"phase"},
    "proxy_orphaned_upstreams": set(),
    "proxy_config_reloads_total": {"result"},
    "proxy_log_lines_dropped_total": set(),
    "proxy_retries_refused_total": {"reason"},
    "proxy_upstream_draining": {"pool", "upstream"},
    "proxy_upstream_weight": {"pool", "upstream"},
    "proxy_breaker_state": {"pool", "upstream", "state"},
    "proxy_health_checks_total": {"pool", "upstream", "result"},
}

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(stats: Stats) -> Samples:
    body, _ = render(build_registry(stats), "")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def values(found: Samples, name: str, label: str) -> dict[str, float]:
    return {dict(labels)[label]: v for (n, labels), v in found.items() if n == name}


@pytest.fixture
def busy() -> Stats:
    stats = Stats()
    stats.connection_opened()
    for reason, status in ((None, 200), (None, 404), (Reason.READ_TIMEOUT, 504)):
        error = ProxyError(Source.UPSTREAM, Phase.AWAIT_HEAD, reason) if reason else None
        stats.request_started()
        stats.exchange_ended(
            exchange_with("::1", ended_at=0.02, bytes_sent=5, status=status, error=error)
        )
    stats.request_started()
    stats.retried("connection_refused")
    stats.config_reloaded(ok=False)
    stats.queue_length["default"] = 4
    upstream = stats.upstream("default", "127.0.0.1:9001")
    upstream.requests += 2
    upstream.failed(Reason.READ_TIMEOUT)
    upstream.observe(0.3)
    upstream.active, upstream.idle, upstream.up, upstream.breaker = 2, 3, False, "open"
    return stats


def test_names_and_labels_are_those_of_the_contract(busy: Stats) -> None:
    found: dict[str, set[str]] = {}
    for name, labels in samples(busy):
        if name.startswith("proxy_"):
            found.setdefault(name, {label for label, _ in labels})
            assert found[name] == {label for label, _ in labels}
    assert found == CONTRACT


def test_values(busy: Stats) -> None:
    found = samples(busy)
    assert found["proxy_requests_total", ()] == 4
    assert found["proxy_requests_in_flight", ()] == 1
    assert found["proxy_client_connections", ()] == 1
    assert found["proxy_bytes_sent_total", ()] == 15
    assert found["proxy_request_duration_seconds_count", ()] == 3
    assert found["proxy_request_duration_seconds_bucket", (("le", "0.025"),)] == 3
    assert found["proxy_request_duration_seconds_bucket", (("le", "0.01"),)] == 0
    assert found["proxy_orphaned_upstreams", ()] == 0
    assert values(found, "proxy_responses_total", "status_class") == {
        "2xx": 1,
        "3xx": 0,
        "4xx": 1,
        "5xx": 1,
    }
    assert values(found, "proxy_upstream_connections", "state") == {"active": 2, "idle": 3}
    assert values(found, "proxy_upstream_up", "upstream") == {"127.0.0.1:9001": 0}
    assert values(found, "proxy_queue_length", "pool") == {"default": 4}
    assert values(found, "proxy_retries_total", "reason") == {"connection_refused": 1}
    assert values(found, "proxy_config_reloads_total", "result") == {"success": 0, "failure": 1}


def test_closed_label_sets_are_complete_from_the_start() -> None:
    stats = Stats()
    stats.upstream("default", "a:1")
    found = samples(stats)
    closed = {
        ("proxy_responses_total", "status_class"): {"2xx", "3xx", "4xx", "5xx"},
        ("proxy_timeout_errors_total", "type"): {"connect", "read", "write", "try", "total"},
        ("proxy_upstream_errors_total", "type"): {"timeout", "connection_refused", "other"},
        ("proxy_client_disconnects_total", "phase"): {phase.value for phase in Phase},
    }
    for (name, label), expected in closed.items():
        assert values(found, name, label) == dict.fromkeys(expected, 0), name
    rejected = set(values(found, "proxy_rejected_total", "reason"))
    assert {"body_too_large", "target_too_long", "head_too_large", "queue_full"} <= rejected


def test_an_accepted_upgrade_shows_a_class_of_its_own() -> None:
    stats = Stats()
    stats.exchange_ended(exchange_with("::1", status=101))
    assert values(samples(stats), "proxy_responses_total", "status_class")["1xx"] == 1


def test_the_process_is_shown_and_the_global_registry_is_not() -> None:
    names = {name for name, _ in samples(Stats())}
    assert {"process_open_fds", "process_resident_memory_bytes", "python_info"} <= names
    assert "python_gc_objects_collected_total" not in names


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text"),
        ("\x00;;,q=", "text/plain"),
    ],
)
def test_content_type_follows_accept(accept: str, content_type: str) -> None:
    body, found = render(build_registry(Stats()), accept)
    assert found.startswith(content_type)
    assert b"proxy_requests_total 0.0" in body


def test_rendering_while_the_loop_counts() -> None:
    """Dicts that grow and shrink under the reader do no harm."""
    stats = Stats()
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            stats.upstream("default", f"u{number % 50}").observe(0.1)
            stats.forget_upstream("default", f"u{(number + 25) % 50}")
            stats.queue_length[f"p{number % 20}"] = number
            stats.queue_length.pop(f"p{(number + 10) % 20}", None)
            stats.retried(f"r{number % 50}")

    loop = threading.Thread(target=churn)
    loop.start()
    try:
        for _ in range(20):
            samples(stats)
    finally:
        stop.set()
        loop.join()
