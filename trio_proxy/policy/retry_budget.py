"""How many retries the traffic as a whole can bear.

A bound on the tries of one request does not stop a retry storm: when everything fails, each
request is sent that many times. A budget ties retries to the requests that came in, as Finagle's
``RetryBudget``, Linkerd's ``retryRatio`` and Envoy's ``retry_budget`` do. The floor lets a service
with little traffic retry at all.

Retries are counted over at least, and requests over at most, `WINDOW_SECONDS`: the buckets of the
windows then err only to the side of fewer retries.
"""

from __future__ import annotations

from trio_proxy.policy.windows import SlidingCount

#: Retries in one window that are allowed whatever the traffic.
FLOOR = 10

#: Length of the window, as in Finagle and Linkerd (``ttl``).
WINDOW_SECONDS = 10.0


class RetryBudget:
    """Retries are at most ``percent`` of the requests of the last `WINDOW_SECONDS`, or `FLOOR`.

    In any ten seconds that end with a granted retry, those granted are no more than the larger of
    `FLOOR` and ``percent`` / 100 of the requests in the same ten seconds.
    """

    __slots__ = ("_requests", "_retries", "percent")

    def __init__(self, percent: int) -> None:
        self.percent = percent
        self._requests = SlidingCount(WINDOW_SECONDS)
        self._retries = SlidingCount(WINDOW_SECONDS, at_least=True)

    def __repr__(self) -> str:
        return f"<RetryBudget {self.percent}% requests={self._requests} retries={self._retries}>"

    def apply(self, percent: int) -> None:
        """Take the share of a new configuration; what was counted stays."""
        self.percent = percent

    def request(self, now: float) -> None:
        """Count a request of a client, whether or not it will be retried."""
        self._requests.add(now)

    def take(self, now: float) -> bool:
        """Whether a retry may be sent ``now``; if so it is counted as sent."""
        share = self._requests.total(now) * self.percent // 100
        if self._retries.total(now) >= max(FLOOR, share):
            return False
        self._retries.add(now)
        return True
