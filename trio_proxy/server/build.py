"""From settings to what runs: the one place where handlers, clusters and plans are joined."""

from __future__ import annotations

from collections.abc import Mapping

from trio_proxy.forwarding import HeaderRules
from trio_proxy.front.service import Plan
from trio_proxy.handlers.metrics import MetricsHandler
from trio_proxy.handlers.proxy import ProxyHandler
from trio_proxy.settings import Settings
from trio_proxy.upstream.cluster import Cluster, ClusterPlan
from trio_proxy.wire.requests import HeadLimits

#: The pool that the short form of the configuration describes.
DEFAULT_POOL = "default"


def cluster_plan(settings: Settings) -> ClusterPlan:
    """Members and bounds of the default pool."""
    limits = settings.limits
    return ClusterPlan(
        max_conns={
            upstream.address: upstream.max_conns or limits.max_conns_per_upstream
            for upstream in settings.upstreams
        },
        max_queue=limits.max_queue,
        idle_seconds=settings.timeouts.seconds["upstream_idle"],
    )


def wait_budgets(settings: Settings) -> Mapping[str, float]:
    """Seconds for each kind of wait, by the name that errors and logs use."""
    return {
        **settings.timeouts.seconds,
        "client_write": settings.timeouts.seconds["write"],
        "queue": settings.limits.queue_seconds,
    }


def header_rules(settings: Settings) -> HeaderRules:
    """The ``[headers]`` table as the hot path wants it."""
    headers = settings.headers
    return HeaderRules(
        trusted=tuple(peer for peer in headers.trusted_proxies if not isinstance(peer, str)),
        trusts_unix="unix" in headers.trusted_proxies,
        forwarded=headers.forwarded,
        preserve_host=headers.host == "preserve",
        deadline_header=headers.deadline_header.encode(),
        expose_upstream=headers.expose_upstream,
    )


def head_limits(settings: Settings) -> HeadLimits:
    """Bounds on heads, of requests and responses alike."""
    limits = settings.limits
    return HeadLimits(
        head_bytes=limits.max_head_bytes,
        fields=limits.max_header_fields,
        target_bytes=limits.max_target_bytes,
    )


def proxy_plan(settings: Settings, cluster: Cluster) -> Plan:
    """What client connections need to know of the configuration."""
    rules, limits = header_rules(settings), head_limits(settings)
    return Plan(
        handler=ProxyHandler(cluster, rules, limits),
        seconds=wait_budgets(settings),
        rules=rules,
        head_limits=limits,
        max_body_bytes=settings.limits.max_body_bytes,
    )


#: No wait on the metrics port is longer: a scraper that is slow holds one of few connections.
METRICS_WAIT_SECONDS = 10.0


def metrics_plan(settings: Settings, handler: MetricsHandler) -> Plan:
    """The metrics port: as strict, with short deadlines, and no request bodies to speak of."""
    budgets = wait_budgets(settings)
    seconds = {name: min(length, METRICS_WAIT_SECONDS) for name, length in budgets.items()}
    return Plan(handler=handler, seconds=seconds, max_body_bytes=1024)
