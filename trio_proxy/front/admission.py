"""What can be refused before anything is done for a request."""

from __future__ import annotations

from trio_proxy.front.plan import Plan
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.messages import Framing, Request
from trio_proxy.http.phases import Phase
from trio_proxy.policy.forwarding import passes_through_us

#: How often a request may come through proxies of this name before it is taken for a loop.
MAX_PASSES = 10


def check_request(request: Request, plan: Plan, budget: float | None) -> None:
    """Raises ProxyError if the request is refused.

    A body of unknown length is measured as it is read (RFC 9110 §15.5.14).
    """
    if request.via and passes_through_us(request) >= MAX_PASSES:
        detail = f"came through {MAX_PASSES} times"
        raise ProxyError(Source.CLIENT, Phase.ROUTE, Reason.LOOP, detail=detail)
    if budget is not None and budget <= 0:
        detail = "the inherited deadline had passed"
        raise ProxyError(Source.CLIENT, Phase.ROUTE, Reason.TOTAL_TIMEOUT, detail=detail)
    length = request.body.length
    if request.body.framing is Framing.LENGTH and 0 < plan.max_body_bytes < length:
        detail = f"{length} bytes"
        raise ProxyError(Source.CLIENT, Phase.READ_HEAD, Reason.BODY_TOO_LARGE, detail=detail)
