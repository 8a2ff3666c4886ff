"""The life of one exchange. READ THIS FIRST.

One request and its answer are an `Exchange`. It walks through the phases below in order, and
whatever happens it ends in `Phase.LOG`, where telemetry sees it. The same names appear in errors,
log lines, metrics and tests. Telemetry observes an exchange; it never steers one.
"""

from __future__ import annotations

from trio_proxy.http.errors import ProxyError
from trio_proxy.http.phases import Phase

_READ_HEAD = Phase.READ_HEAD

#: `Try.outcome` of a request that met a pooled connection that was dead already.
STALE = "stale"


class Try:
    """One attempt at one upstream. ``outcome`` is a status or the slug of a failure.

    `STALE` is nobody's failure: the request is sent again. ``seconds`` is how long the try took in
    all, ``head_seconds`` until its response head, negative if none came. ``failure`` is the
    upstream's fault only: a client that leaves is none.
    """

    __slots__ = ("failure", "head_seconds", "outcome", "seconds", "upstream")

    def __init__(
        self,
        upstream: str,
        outcome: str = "unfinished",
        seconds: float = 0.0,
        head_seconds: float = -1.0,
    ) -> None:
        self.upstream = upstream
        self.outcome = outcome
        self.seconds = seconds
        self.head_seconds = head_seconds
        self.failure: ProxyError | None = None

    def __repr__(self) -> str:
        return f"<Try {self.upstream} {self.outcome} {self.seconds:.3f} s>"


class Exchange:
    """The facts of one request and its answer, filled in as they become known.

    Times are seconds: ``started_at`` and ``ended_at`` on the event loop's clock (from the first
    byte of the request), ``started_wall`` since the Unix epoch. Bytes are counted as they cross
    the client's connection, heads included; ``body_bytes_sent`` without them.
    """

    __slots__ = (
        "body_bytes_sent",
        "bytes_received",
        "bytes_sent",
        "client_ip",
        "ended_at",
        "ended_in",
        "error",
        "head_sent",
        "leases",
        "method",
        "not_retried",
        "peer",
        "phase",
        "pool",
        "route",
        "started_at",
        "started_wall",
        "status",
        "target",
        "trace_id",
        "tries",
        "upstream",
        "version",
    )

    def __init__(self, started_at: float, started_wall: float, peer: str) -> None:
        self.started_at = started_at
        self.started_wall = started_wall
        self.peer = peer
        self.client_ip = peer
        self.trace_id = ""
        self.method = "-"
        self.target = "-"
        self.version = "-"
        self.phase = _READ_HEAD
        #: The path of the route that took it, empty while none has.
        self.route = ""
        #: The name of the pool that is to answer it, empty if none is.
        self.pool = ""
        #: The phase that the exchange was in when it ended.
        self.ended_in = _READ_HEAD
        self.ended_at = 0.0
        self.status = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.body_bytes_sent = 0
        self.upstream = ""
        self.tries: list[Try] = []
        #: Why a failed try was not followed by another, empty if it was or nothing failed.
        self.not_retried = ""
        self.error: ProxyError | None = None
        #: A response head has left, so a failure can only be shown by cutting the connection.
        self.head_sent = False
        #: Upstream connections held right now; not 0 at the end would be a leak.
        self.leases = 0

    def __repr__(self) -> str:
        return f"<Exchange {self.trace_id} {self.method} {self.target} {self.phase} {self.status}>"
