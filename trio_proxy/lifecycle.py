"""The life of one exchange. READ THIS FIRST.

One request and its answer are an `Exchange`. It walks through the phases below in order, and
whatever happens it ends in `Phase.LOG`, where telemetry sees it. The same names appear in errors,
log lines, metrics and tests. Telemetry observes an exchange; it never steers one.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from trio_proxy.errors import ProxyError


class Phase(enum.StrEnum):
    """Where an exchange is, and so where it failed."""

    ACCEPT = "accept"
    HANDSHAKE = "handshake"
    READ_HEAD = "read_head"
    ROUTE = "route"
    REQUEST_FILTER = "request_filter"
    PICK = "pick"
    CONNECT = "connect"
    SEND = "send"
    AWAIT_HEAD = "await_head"
    RESPONSE_FILTER = "response_filter"
    STREAM = "stream"
    LOG = "log"


#: `Try.outcome` of a request that met a pooled connection that was dead already.
STALE = "stale"


@define(eq=False)
class Try:
    """One attempt at one upstream. ``outcome`` is a status or the slug of a failure.

    `STALE` is nobody's failure: the request is sent again. ``seconds`` is how long the try took in
    all, ``head_seconds`` until its response head, negative if none came. ``failure`` is the
    upstream's fault only: a client that leaves is none.
    """

    upstream: str
    outcome: str = "unfinished"
    seconds: float = 0.0
    head_seconds: float = -1.0
    failure: ProxyError | None = None


@define(eq=False)
class Exchange:
    """The facts of one request and its answer, filled in as they become known.

    Times are seconds: ``started_at`` and ``ended_at`` on the event loop's clock (from the first
    byte of the request), ``started_wall`` since the Unix epoch. Bytes are counted as they cross
    the client's connection, heads included; ``body_bytes_sent`` without them.
    """

    started_at: float
    started_wall: float
    peer: str
    client_ip: str = ""
    trace_id: str = ""
    method: str = "-"
    target: str = "-"
    version: str = "-"
    phase: Phase = Phase.READ_HEAD
    #: The phase that the exchange was in when it ended.
    ended_in: Phase = Phase.READ_HEAD
    ended_at: float = 0.0
    status: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    body_bytes_sent: int = 0
    upstream: str = ""
    tries: list[Try] = field(factory=list)
    #: Why a failed try was not followed by another, empty if it was or nothing failed.
    not_retried: str = ""
    error: ProxyError | None = None
    #: A response head has left, so a failure can only be shown by cutting the connection.
    head_sent: bool = False
    #: Upstream connections held right now; not 0 at the end would be a leak.
    leases: int = 0
