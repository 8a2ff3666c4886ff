"""Whether a failed try may be followed by another.

The conditions are nginx's ``proxy_next_upstream``: what befell the try, or the status that it got.
A request that may have been acted upon is sent again only if that does no harm (RFC 9110 §9.2.2).
"""

from __future__ import annotations

from collections.abc import Set

from attrs import frozen

from trio_proxy.http.errors import ProxyError, Reason, Verdict
from trio_proxy.http.phases import Phase

#: Methods that may be sent again without asking (RFC 9110 §9.2.2; TRACE is never proxied).
IDEMPOTENT_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))

#: The longest ``Retry-After`` of an upstream that is waited for, in seconds, whatever the deadline.
MAX_PAUSE_SECONDS = 60.0

_CONDITIONS: dict[Verdict, str] = {
    Reason.CONNECTION_REFUSED: "connect",
    Reason.CONNECTION_FAILED: "connect",
    Reason.CONNECT_TIMEOUT: "connect",
    Reason.DNS_ERROR: "connect",
    Reason.CONNECTION_RESET: "reset",
    Reason.READ_TIMEOUT: "timeout",
    Reason.WRITE_TIMEOUT: "timeout",
    Reason.TRY_TIMEOUT: "timeout",
}


@frozen(kw_only=True)
class RetryRules:
    """``attempts`` tries in all, ``on`` which conditions, ``replay_bytes`` of a body kept."""

    attempts: int = 1
    on: Set[str] = frozenset()
    unsafe_methods: bool = False
    replay_bytes: int = 0

    def is_replayable(self, method: bytes) -> bool:
        """Whether a request of that method may be sent again though it may have been acted upon."""
        return self.unsafe_methods or method in IDEMPOTENT_METHODS


def condition_of(error: ProxyError) -> str:
    """The condition, as `RetryRules.on` names it, that an error before the head is; "" for none."""
    return _CONDITIONS.get(error.reason, "")


def was_sent(error: ProxyError) -> bool:
    """Whether something of the request may have reached the upstream before that error."""
    return error.phase is not Phase.CONNECT
