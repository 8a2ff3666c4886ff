"""The life of one exchange. READ THIS FIRST.

One request and its answer are an `Exchange`. It walks through the steps of
`trio_proxy.http.phases.Phase` in order, and whatever happens it ends in `Phase.LOG`, where
telemetry sees it. Everybody on its way reads it: handlers and middlewares, the pool and the tries
at its upstreams. Telemetry observes an exchange; it never steers one.
"""

from __future__ import annotations

import math

from trio_proxy.exchange.deadlines import Deadlines, WaitBlock
from trio_proxy.exchange.turns import Turns
from trio_proxy.exchange.waits import Wait
from trio_proxy.http.client import Client
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.messages import Field
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

    def failed(self, error: ProxyError) -> None:
        """It has ended by ``error``, which is a failure of the upstream or of somebody else."""
        if error.source is Source.UPSTREAM:
            self.failure = error
        if self.failure is not None or self.outcome == "unfinished":
            self.outcome = error.reason.slug


class Exchange:
    """One request and its answer: the facts, filled in as they become known, and the deadlines.

    Times are seconds: ``started_at`` and ``ended_at`` on the event loop's clock (from the first
    byte of the request), ``started_wall`` since the Unix epoch. Bytes are counted as they cross
    the client's connection, heads included; ``body_bytes_sent`` without them.

    A session makes it with the ``deadlines`` and ``turns`` of its connection, which it has only
    until it ends.
    """

    __slots__ = (
        "body_bytes_sent",
        "bytes_received",
        "bytes_sent",
        "client",
        "client_ip",
        "deadlines",
        "ended_at",
        "ended_in",
        "error",
        "head_at",
        "head_sent",
        "is_complete",
        "is_peer_trusted",
        "leases",
        "method",
        "not_retried",
        "peer",
        "phase",
        "piece_bytes",
        "pool",
        "received_at",
        "refusal_fields",
        "route",
        "scratch",
        "started_at",
        "started_wall",
        "status",
        "target",
        "trace_id",
        "tries",
        "turns",
        "upstream",
        "version",
    )

    #: The deadlines of the exchange, and of the connection's waits.
    deadlines: Deadlines
    #: The connection's share of the event loop.
    turns: Turns
    #: Who has sent the request, from `Phase.ROUTE` on.
    client: Client
    #: A buffer for whoever moves bytes; anybody may overwrite it at the next await.
    scratch: memoryview
    #: How many bytes of a body to hand over to the client at once; the sink learns what it takes.
    piece_bytes: int

    def __init__(self, started_at: float, started_wall: float, peer: str) -> None:
        self.started_at = started_at
        self.started_wall = started_wall
        #: The other end of the connection: an IP literal, or ``unix:``.
        self.peer = peer
        #: Whether that is a proxy whose forwarding fields are believed.
        self.is_peer_trusted = False
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
        #: When its head was complete: nearly always it comes with the first byte.
        self.head_at = started_at
        #: When the last byte of the request was read; infinite before.
        self.received_at = math.inf
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
        #: The whole response was handed over, or the connection was, to another protocol.
        self.is_complete = False
        #: Fields that an answer of the proxy's own is to have, too.
        self.refusal_fields: list[Field] | None = None
        #: Slots of upstream sessions held right now; not 0 at the end would be a leak.
        self.leases = 0

    def __repr__(self) -> str:
        return f"<Exchange {self.trace_id} {self.method} {self.target} {self.phase} {self.status}>"

    def wait(self, wait: Wait) -> WaitBlock:
        """A ``with`` block in which something is waited for, within its budget; enter it at once.

        When that runs out the block is cancelled, and the exchange, or the try at an upstream that
        is under way, ends with the error that belongs to it.
        """
        return self.deadlines.wait(wait)

    def abort(self, error: ProxyError) -> None:
        """End the exchange from wherever this is called; the first reason stays."""
        self.deadlines.abort(error)

    def cut(self, why: str) -> None:
        """End the exchange, as its time in a drain is over."""
        self.abort(ProxyError(Source.PROXY, self.phase, Reason.SHUTTING_DOWN, detail=why))

    def end(self, now: float) -> None:
        """The last phase: always reached, also when everything is being torn down."""
        if self.error is None and not self.is_complete:
            self.error = ProxyError(Source.PROXY, self.phase, Reason.SHUTTING_DOWN)
        self.ended_in = self.phase if self.error is None else self.error.phase
        self.phase = Phase.LOG
        self.ended_at = now
        if self.error is not None or len(self.tries) > 1:
            self._let_go_of_frames()

    def _let_go_of_frames(self) -> None:
        """Those that the errors hold on to hold the exchange in turn: nothing for a collector."""
        for failure in (self.error, *(one.failure for one in self.tries)):
            if failure is not None:
                failure.__traceback__ = failure.__cause__ = failure.__context__ = None
