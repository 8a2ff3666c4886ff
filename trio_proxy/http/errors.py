"""What can go wrong with an exchange, as data.

A `ProxyError` is raised next to the await that failed. It becomes a status in exactly one place
(`trio_proxy.front.serve`), by its `Verdict`, and only while no response head is out; after that the
connection is cut so that the client can see the truncation. The table of those that the proxy has
itself is `Reason`; a handler or middleware can bring rows of its own:

    UNAUTHORIZED = Verdict(401, "http_request_denied", "no valid API key", slug="unauthorized")

    raise ProxyError(Source.CLIENT, exchange.phase, UNAUTHORIZED)
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable

from trio_proxy.http.headers import Fields, Headers
from trio_proxy.http.names import HOP_BY_HOP
from trio_proxy.http.phases import Phase


class Source(enum.StrEnum):
    """Who caused the failure."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    PROXY = "proxy"


_ERROR_TYPE = re.compile(r"[a-z][a-z_]{0,63}")
_SLUG = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Verdict:
    """A row of the status table: how one kind of failure is told to the client and to the log.

    ``status`` is from 400 to 599, ``error_type`` the RFC 9209 §2.3 name that ``Proxy-Status`` has,
    ``text`` a line for the body, ``slug`` the word in logs, as ``read_timeout``. Two of them are
    the same if they are the same object. Raises ValueError for what would not fit in there.
    """

    def __init__(self, status: int, error_type: str, text: str, *, slug: str) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"the status of a failure is from 400 to 599, not {status}")
        if not _ERROR_TYPE.fullmatch(error_type):
            raise ValueError(f"error_type {error_type!r}: expected a-z and _, see RFC 9209 §2.3")
        if not _SLUG.fullmatch(slug):
            raise ValueError(f"slug {slug!r}: expected a word of a-z, 0-9 and _")
        if not text.isprintable():
            raise ValueError(f"text {text!r}: expected one line")
        self.status = status
        self.error_type = error_type
        self.text = text
        self.slug = slug

    def __repr__(self) -> str:
        return f"<Verdict {self.status} {self.slug}>"


class Reason(Verdict, enum.Enum):
    """Every way in which the proxy itself can fail an exchange: its rows of the status table."""

    MALFORMED_REQUEST = 400, "http_request_error", "malformed request"
    AMBIGUOUS_FRAMING = 400, "http_request_error", "ambiguous message framing"
    BAD_HOST = 400, "http_request_error", "missing, repeated or invalid Host"
    HEAD_TIMEOUT = 408, "http_request_error", "request head took too long"
    BODY_TIMEOUT = 408, "http_request_error", "request body took too long"
    BODY_TRUNCATED = 400, "http_request_error", "request body ended too early"
    BODY_TOO_LARGE = 413, "http_request_denied", "request body too large"
    TARGET_TOO_LONG = 414, "http_request_error", "request target too long"
    HEAD_TOO_LARGE = 431, "http_request_error", "request head too large"
    METHOD_NOT_SUPPORTED = 501, "http_request_denied", "method not supported"
    UNKNOWN_TRANSFER_CODING = 501, "http_request_error", "unknown transfer coding"
    VERSION_NOT_SUPPORTED = 505, "http_request_error", "HTTP version not supported"
    CLIENT_GONE = 499, "connection_terminated", "client closed the connection"
    CLIENT_STALLED = 499, "connection_write_timeout", "client stopped reading"

    CONNECTION_REFUSED = 502, "connection_refused", "upstream refused the connection"
    CONNECTION_FAILED = 502, "destination_unavailable", "upstream cannot be reached"
    DNS_ERROR = 502, "dns_error", "upstream name cannot be resolved"
    CONNECTION_RESET = 502, "connection_terminated", "upstream closed the connection"
    RESPONSE_MALFORMED = 502, "http_protocol_error", "malformed upstream response"
    RESPONSE_TRUNCATED = 502, "http_response_incomplete", "upstream response was cut off"
    UPGRADE_FAILED = 502, "http_upgrade_failed", "upstream switched to another protocol"
    CONNECT_TIMEOUT = 504, "connection_timeout", "connect deadline passed"
    READ_TIMEOUT = 504, "connection_read_timeout", "read deadline passed"
    WRITE_TIMEOUT = 504, "connection_write_timeout", "write deadline passed"
    TRY_TIMEOUT = 504, "http_response_timeout", "try deadline passed"
    TOTAL_TIMEOUT = 504, "http_response_timeout", "total deadline passed"
    TUNNEL_IDLE = 504, "connection_read_timeout", "tunnel_idle deadline passed"

    NO_ROUTE = 404, "destination_not_found", "no route for this path"
    RATE_LIMITED = 429, "http_request_denied", "too many requests"
    NO_UPSTREAM = 503, "destination_unavailable", "no upstream available"
    BREAKER_OPEN = 503, "destination_unavailable", "no upstream available: breaker open"
    QUEUE_FULL = 503, "connection_limit_reached", "too many requests are waiting"
    QUEUE_TIMEOUT = 503, "connection_limit_reached", "no upstream connection came free"
    QUEUE_SHED = 503, "connection_limit_reached", "too busy to answer in time"
    OUT_OF_RESOURCES = 503, "proxy_internal_error", "proxy is out of resources"
    SHUTTING_DOWN = 503, "proxy_internal_response", "proxy is shutting down"
    LOOP = 508, "proxy_loop_detected", "request loop"
    INTERNAL = 500, "proxy_internal_error", "internal error"

    def __init__(self, status: int, error_type: str, text: str) -> None:
        super().__init__(status, error_type, text, slug=self.name.lower())

    def __repr__(self) -> str:
        return f"<Reason {self.status} {self.slug}>"


class ProxyError(Exception):
    """One failed exchange or try.

    ``retryable`` says that the request cannot have been acted upon, or that the connection was a
    pooled one that had gone stale. ``detail`` is for the log only: it never reaches a client.
    ``retry_after`` is what a client is told to wait, in seconds, with a 429 or 503. ``fields`` are
    further ones for the answer, as ``WWW-Authenticate``; they take the place of those of their
    names. Raises ValueError for fields that would break it: names or values that are none, and what
    frames a message or belongs to the connection.
    """

    #: Further fields for the answer.
    fields: Fields

    def __init__(
        self,
        source: Source,
        phase: Phase,
        reason: Verdict,
        *,
        detail: str = "",
        retryable: bool = False,
        retry_after: float = 0.0,
        fields: Iterable[tuple[bytes | str, bytes | str]] = (),
    ) -> None:
        super().__init__(source, phase, reason, detail)
        self.source = source
        self.phase = phase
        self.reason = reason
        self.detail = detail
        self.retryable = retryable
        self.retry_after = retry_after
        self.fields = _checked(fields) if fields else ()

    @property
    def status(self) -> int:
        return self.reason.status

    def __str__(self) -> str:
        text = f"{self.reason.slug} ({self.source}, {self.phase})"
        return f"{text}: {self.detail}" if self.detail else text


def _checked(fields: Iterable[tuple[bytes | str, bytes | str]]) -> Fields:
    headers = Headers(fields)
    if headers.kinds & HOP_BY_HOP:
        raise ValueError(f"what frames a message or belongs to the connection: {headers!r}")
    return list(headers)


class ProtocolError(Exception):
    """Bytes that are not a well-formed or not an unambiguous HTTP/1.1 message.

    Raised by `trio_proxy.codec.h1`, which does not know on whose behalf it reads; the caller knows
    and turns it into a `ProxyError`.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
