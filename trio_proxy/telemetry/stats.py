"""Counters that the event loop touches.

Everything here is a plain int, written by the event loop alone and read by the thread that renders
the metrics (`trio_proxy.telemetry.metrics`), so nothing needs a lock: a reader copies a dict or a
list in one bytecode and may see a number that is one event old. Label sets are closed (enums), or
as large as the configuration (upstreams, pools), so no client can grow them.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, TypeAlias

from trio_proxy.http.errors import ProxyError, Reason, Verdict
from trio_proxy.http.phases import Phase

if TYPE_CHECKING:
    from trio_proxy.exchange.exchange import Exchange, Try

#: Upper bounds in seconds, inclusive: a cached answer takes a millisecond, a long poll minutes.
DURATION_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0),
)

#: The ``type`` label of each timeout. A client that takes no bytes is out of the write budget too.
TIMEOUT_TYPES: dict[Verdict, str] = {
    Reason.CONNECT_TIMEOUT: "connect",
    Reason.READ_TIMEOUT: "read",
    Reason.WRITE_TIMEOUT: "write",
    Reason.CLIENT_STALLED: "write",
    Reason.TOTAL_TIMEOUT: "total",
    Reason.TRY_TIMEOUT: "try",
}

#: Answers by which the proxy turns a request away instead of trying it.
REJECTING_STATUSES = frozenset({404, 413, 414, 429, 431, 501, 503, 505})
REJECTIONS = tuple(reason for reason in Reason if reason.status in REJECTING_STATUSES)

#: Failures whose status is for the log alone: nobody was there to be answered.
UNANSWERED = frozenset({Reason.CLIENT_GONE, Reason.CLIENT_STALLED})

#: Request heads that were refused for what they say.
PARSE_ERRORS = frozenset(
    {
        Reason.MALFORMED_REQUEST,
        Reason.AMBIGUOUS_FRAMING,
        Reason.BAD_HOST,
        Reason.TARGET_TOO_LONG,
        Reason.HEAD_TOO_LARGE,
        Reason.METHOD_NOT_SUPPORTED,
        Reason.UNKNOWN_TRANSFER_CODING,
        Reason.VERSION_NOT_SUPPORTED,
    }
)

UPSTREAM_ERROR_TYPES = ("timeout", "connection_refused", "other")

#: What can stand in the way of a retry (`Exchange.not_retried`).
OBSTACLES = ("attempts", "method", "replay_bytes", "deadline", "budget", "no_upstream")

#: The name of a pool, and that of one of its upstreams.
UpstreamKey: TypeAlias = tuple[str, str]

#: Reasons for a retry beyond this many different ones are counted together as ``other``.
MAX_RETRY_REASONS = 64


def upstream_error_type(reason: Verdict) -> str:
    """The ``type`` label of ``proxy_upstream_errors_total`` for a failed try."""
    if reason is Reason.CONNECTION_REFUSED:
        return "connection_refused"
    return "timeout" if reason in TIMEOUT_TYPES else "other"


class Histogram:
    """Observations in seconds, counted in `DURATION_BUCKETS` and one overflow bucket."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = DURATION_BUCKETS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    def cumulative(self) -> list[tuple[float, int]]:
        """Pairs of upper bound in seconds (the last is infinite) and observations up to it."""
        total, pairs = 0, []
        for bound, count in zip((*self.bounds, float("inf")), self.counts.copy(), strict=True):
            total += count
            pairs.append((bound, total))
        return pairs


class UpstreamStats:
    """What happened with one upstream; ``active`` and ``idle`` are its connections by state."""

    __slots__ = (
        "active",
        "breaker",
        "checks",
        "draining",
        "duration",
        "errors",
        "idle",
        "requests",
        "up",
        "weight",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.errors = dict.fromkeys(UPSTREAM_ERROR_TYPES, 0)
        #: Seconds from the start of a try to its response head.
        self.duration = Histogram()
        self.active = 0
        self.idle = 0
        #: Whether its health allows it to be picked.
        self.up = True
        self.draining = False
        self.weight = 1
        #: The state of its breaker, empty if it has none.
        self.breaker = ""
        #: Active health checks, by result.
        self.checks = {"pass": 0, "fail": 0}

    def observe(self, seconds: float) -> None:
        """Count one response head that came ``seconds`` after its try began."""
        self.duration.observe(seconds)

    def failed(self, reason: Verdict) -> None:
        """Count one failed try."""
        self.errors[upstream_error_type(reason)] += 1


class Stats:
    """What one worker has done since it started. Call its methods from the event loop only."""

    __slots__ = (
        "bytes_received",
        "bytes_sent",
        "client_connections",
        "disconnects",
        "duration",
        "log_lines_dropped",
        "not_retried",
        "orphaned_upstreams",
        "parse_errors",
        "queue_length",
        "rejected",
        "rejected_otherwise",
        "reloads",
        "requests_in_flight",
        "requests_total",
        "responses",
        "retries",
        "timeouts",
        "upstreams",
    )

    def __init__(self) -> None:
        self.client_connections = 0
        self.requests_total = 0
        self.requests_in_flight = 0
        self.parse_errors = 0
        #: By the first digit of the status; index 0 is an exchange that ended without an answer.
        self.responses = [0] * 10
        self.duration = Histogram()
        self.bytes_sent = 0
        self.bytes_received = 0
        self.disconnects = dict.fromkeys(Phase, 0)
        self.timeouts = dict.fromkeys(TIMEOUT_TYPES.values(), 0)
        self.rejected: dict[Verdict, int] = dict.fromkeys(REJECTIONS, 0)
        #: Answers by rows of the status table that handlers and middlewares have brought.
        self.rejected_otherwise = 0
        self.retries: dict[str, int] = {}
        #: Failed tries that were not followed by another, by the obstacle.
        self.not_retried = dict.fromkeys(OBSTACLES, 0)
        self.reloads = {"success": 0, "failure": 0}
        self.upstreams: dict[UpstreamKey, UpstreamStats] = {}
        #: Requests waiting for an upstream connection, by the pool's name; the pool writes it.
        self.queue_length: dict[str, int] = {}
        #: Upstream exchanges that outlived their client's exchange; anything but 0 is a bug.
        self.orphaned_upstreams = 0
        self.log_lines_dropped = 0

    def connection_opened(self) -> None:
        self.client_connections += 1

    def connection_closed(self) -> None:
        self.client_connections -= 1

    def request_started(self) -> None:
        self.requests_total += 1
        self.requests_in_flight += 1

    def exchange_ended(self, exchange: Exchange) -> None:
        """Count one ended exchange, once; it must have been announced by `request_started`."""
        self.requests_in_flight -= 1
        self.bytes_received += exchange.bytes_received
        self.bytes_sent += exchange.bytes_sent
        self.duration.observe(exchange.ended_at - exchange.started_at)
        outcome = ""
        for one in exchange.tries:
            if outcome:
                self.retried(outcome)
            outcome = one.outcome
            self._tried(exchange.pool, one)
        if exchange.leases:
            self.orphaned_upstreams += 1
        if exchange.not_retried:
            self.not_retried[exchange.not_retried] += 1
        error = exchange.error
        if error is None:
            self.responses[exchange.status // 100] += 1
        else:
            self._exchange_failed(exchange, error)

    def _tried(self, pool: str, one: Try) -> None:
        upstream = self.upstreams.get((pool, one.upstream))
        if upstream is None:
            return  # taken away by a reload while the exchange was under way
        upstream.requests += 1
        if one.head_seconds >= 0:
            upstream.observe(one.head_seconds)
        if one.failure is not None:
            upstream.failed(one.failure.reason)

    def _exchange_failed(self, exchange: Exchange, error: ProxyError) -> None:
        reason = error.reason
        if exchange.head_sent or reason not in UNANSWERED:
            self.responses[exchange.status // 100] += 1
        if reason is Reason.CLIENT_GONE:
            self.disconnects[error.phase] += 1
        if (budget := TIMEOUT_TYPES.get(reason)) is not None:
            self.timeouts[budget] += 1
        # A drain that cuts a response half-way has SHUTTING_DOWN too, but rejected nothing.
        if exchange.status == reason.status:
            if reason in self.rejected:
                self.rejected[reason] += 1
            elif not isinstance(reason, Reason):
                self.rejected_otherwise += 1
        if reason in PARSE_ERRORS and error.phase is Phase.READ_HEAD:
            self.parse_errors += 1

    def retried(self, reason: str) -> None:
        """Count one further try; ``reason`` is the outcome of the try before it."""
        if reason not in self.retries and len(self.retries) >= MAX_RETRY_REASONS:
            reason = "other"
        self.retries[reason] = self.retries.get(reason, 0) + 1

    def config_reloaded(self, ok: bool) -> None:
        self.reloads["success" if ok else "failure"] += 1

    def upstream(self, pool: str, name: str) -> UpstreamStats:
        """The counters of an upstream, made at first sight. Keep the object, it stays the same."""
        stats = self.upstreams.get((pool, name))
        if stats is None:
            stats = self.upstreams[pool, name] = UpstreamStats()
        return stats

    def forget_pool(self, name: str) -> None:
        """Stop showing a pool that is gone for good, and all its upstreams."""
        self.queue_length.pop(name, None)
        for pool, upstream in list(self.upstreams):
            if pool == name:
                self.forget_upstream(pool, upstream)

    def forget_upstream(self, pool: str, name: str) -> None:
        """Stop showing an upstream that is gone for good; unknown names are ignored.

        Who still holds its counters may write to them unseen. If it returns it starts from zero,
        which Prometheus reads as a counter reset.
        """
        self.upstreams.pop((pool, name), None)
