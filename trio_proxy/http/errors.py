"""What can go wrong with an exchange, as data.

A `ProxyError` is raised next to the await that failed. It becomes a status in exactly one place
(`front.connection`), by the one table below, and only while no response head is out; after that
the connection is cut so that the client can see the truncation. The row's ``error_type`` is the
RFC 9209 §2.3 name that goes into ``Proxy-Status``.
"""

from __future__ import annotations

import enum

from attrs import frozen

from trio_proxy.http.phases import Phase


class Source(enum.StrEnum):
    """Who caused the failure."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    PROXY = "proxy"


@frozen
class Verdict:
    """How one reason is told to the client: status, ``Proxy-Status`` error type, body text."""

    status: int
    error_type: str
    text: str


class Reason(enum.Enum):
    """Every way an exchange can fail; the value is the row of the status table."""

    MALFORMED_REQUEST = Verdict(400, "http_request_error", "malformed request")
    AMBIGUOUS_FRAMING = Verdict(400, "http_request_error", "ambiguous message framing")
    BAD_HOST = Verdict(400, "http_request_error", "missing, repeated or invalid Host")
    HEAD_TIMEOUT = Verdict(408, "http_request_error", "request head took too long")
    BODY_TIMEOUT = Verdict(408, "http_request_error", "request body took too long")
    BODY_TRUNCATED = Verdict(400, "http_request_error", "request body ended too early")
    BODY_TOO_LARGE = Verdict(413, "http_request_denied", "request body too large")
    TARGET_TOO_LONG = Verdict(414, "http_request_error", "request target too long")
    HEAD_TOO_LARGE = Verdict(431, "http_request_error", "request head too large")
    METHOD_NOT_SUPPORTED = Verdict(501, "http_request_denied", "method not supported")
    UNKNOWN_TRANSFER_CODING = Verdict(501, "http_request_error", "unknown transfer coding")
    VERSION_NOT_SUPPORTED = Verdict(505, "http_request_error", "HTTP version not supported")
    CLIENT_GONE = Verdict(499, "connection_terminated", "client closed the connection")
    CLIENT_STALLED = Verdict(499, "connection_write_timeout", "client stopped reading")

    CONNECTION_REFUSED = Verdict(502, "connection_refused", "upstream refused the connection")
    CONNECTION_FAILED = Verdict(502, "destination_unavailable", "upstream cannot be reached")
    DNS_ERROR = Verdict(502, "dns_error", "upstream name cannot be resolved")
    CONNECTION_RESET = Verdict(502, "connection_terminated", "upstream closed the connection")
    RESPONSE_MALFORMED = Verdict(502, "http_protocol_error", "malformed upstream response")
    RESPONSE_TRUNCATED = Verdict(502, "http_response_incomplete", "upstream response was cut off")
    UPGRADE_FAILED = Verdict(502, "http_upgrade_failed", "upstream switched to another protocol")
    CONNECT_TIMEOUT = Verdict(504, "connection_timeout", "connect deadline passed")
    READ_TIMEOUT = Verdict(504, "connection_read_timeout", "read deadline passed")
    WRITE_TIMEOUT = Verdict(504, "connection_write_timeout", "write deadline passed")
    TRY_TIMEOUT = Verdict(504, "http_response_timeout", "try deadline passed")
    TOTAL_TIMEOUT = Verdict(504, "http_response_timeout", "total deadline passed")
    TUNNEL_IDLE = Verdict(504, "connection_read_timeout", "tunnel_idle deadline passed")

    NO_ROUTE = Verdict(404, "destination_not_found", "no route for this path")
    RATE_LIMITED = Verdict(429, "http_request_denied", "too many requests")
    NO_UPSTREAM = Verdict(503, "destination_unavailable", "no upstream available")
    BREAKER_OPEN = Verdict(503, "destination_unavailable", "no upstream available: breaker open")
    QUEUE_FULL = Verdict(503, "connection_limit_reached", "too many requests are waiting")
    QUEUE_TIMEOUT = Verdict(503, "connection_limit_reached", "no upstream connection came free")
    QUEUE_SHED = Verdict(503, "connection_limit_reached", "too busy to answer in time")
    OUT_OF_RESOURCES = Verdict(503, "proxy_internal_error", "proxy is out of resources")
    SHUTTING_DOWN = Verdict(503, "proxy_internal_response", "proxy is shutting down")
    LOOP = Verdict(508, "proxy_loop_detected", "request loop")
    INTERNAL = Verdict(500, "proxy_internal_error", "internal error")

    @property
    def status(self) -> int:
        return self.value.status

    @property
    def slug(self) -> str:
        """The name in logs and metrics labels, as ``read_timeout``."""
        return self.name.lower()


#: Which reason a deadline that ran out becomes, by the budget's name.
TIMEOUT_REASONS = {
    "connect": Reason.CONNECT_TIMEOUT,
    "read": Reason.READ_TIMEOUT,
    "write": Reason.WRITE_TIMEOUT,
    "try": Reason.TRY_TIMEOUT,
    "total": Reason.TOTAL_TIMEOUT,
    "head": Reason.HEAD_TIMEOUT,
    "body": Reason.BODY_TIMEOUT,
    "queue": Reason.QUEUE_TIMEOUT,
    "client_write": Reason.CLIENT_STALLED,
    "drain": Reason.SHUTTING_DOWN,
}


class ProxyError(Exception):
    """One failed exchange or try.

    ``retryable`` says that the request cannot have been acted upon, or that the connection was a
    pooled one that had gone stale. ``detail`` is for the log only: it never reaches a client.
    ``retry_after`` is what a client is told to wait, in seconds, with a 429 or 503.
    """

    def __init__(
        self,
        source: Source,
        phase: Phase,
        reason: Reason,
        *,
        detail: str = "",
        retryable: bool = False,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(source, phase, reason, detail)
        self.source = source
        self.phase = phase
        self.reason = reason
        self.detail = detail
        self.retryable = retryable
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        return self.reason.status

    def __str__(self) -> str:
        text = f"{self.reason.slug} ({self.source}, {self.phase})"
        return f"{text}: {self.detail}" if self.detail else text


class ProtocolError(Exception):
    """Bytes that are not a well-formed or not an unambiguous HTTP/1.1 message.

    Raised by `trio_proxy.codec.h1`, which does not know on whose behalf it reads; the caller knows
    and turns it into a `ProxyError`.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
