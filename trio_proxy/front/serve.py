"""One exchange from its request to its answer, whichever protocol carries it.

Whatever becomes of it, it walks through the same steps: who has sent it, whether it is welcome, the
handler, and, if that fails, the one place where a failure becomes an answer. The session in which
it takes place has read the head, has made the sink, and decides what becomes of the connection.
"""

from __future__ import annotations

import logging
import time
from typing import cast

import trio

from trio_proxy.exchange.contract import Sink
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.front.admission import check_request
from trio_proxy.front.plan import Plan
from trio_proxy.front.refusal import refusal
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.messages import Request
from trio_proxy.http.phases import Phase
from trio_proxy.policy.forwarding import client_of, inherited_budget, trace_id_of

log = logging.getLogger("trio_proxy.front")

#: Failures of which nobody is left to be told.
UNANSWERED = frozenset((Reason.CLIENT_GONE, Reason.CLIENT_STALLED))


async def serve_exchange(exchange: Exchange, request: Request, sink: Sink, plan: Plan) -> None:
    """Have a request answered. What went wrong, if anything, is ``exchange.error`` then.

    Raises nothing but `trio.Cancelled`, of a scope around it.
    """
    deadlines = exchange.deadlines
    failure: ProxyError | None = None
    try:
        budget = _meet_client(exchange, request, plan)
        deadlines.start_total(exchange.head_at, budget)
        with deadlines.open_scope() as scope:
            if request.via or budget is not None or not request.body.is_empty:
                check_request(request, plan, budget)
            await plan.handler.handle(exchange, request, sink)
        if scope.cancelled_caught:
            failure = deadlines.why_over()
        elif not exchange.is_complete:
            # It may have kept to itself why the exchange is over.
            failure = deadlines.why_over()
            if failure is None:
                raise RuntimeError("the handler has returned without a whole answer")
    except ProxyError as exc:
        failure = exc
    except Exception as fault:  # noqa: BLE001 - logged unless it is a failure in a group
        failure = _leaf(fault) or _internal(exchange, fault)
    if failure is not None:
        await tell_failure(exchange, request, sink, plan, failure)


def _meet_client(exchange: Exchange, request: Request, plan: Plan) -> float | None:
    """Note who has sent the request; the seconds that a trusted peer leaves for it, or None."""
    exchange.phase = Phase.ROUTE
    exchange.route = plan.route
    rules, trusted = plan.rules, exchange.is_peer_trusted
    client = exchange.client = client_of(request, exchange.peer, rules, trusted=trusted)
    exchange.client_ip = client.address
    exchange.trace_id = trace_id_of(request, trusted=trusted)
    return inherited_budget(request, rules) if trusted else None


def _leaf(fault: Exception) -> ProxyError | None:
    """The failure that a handler has raised within a nursery of its own, if nothing else is in it.

    A fault beside it would go unseen otherwise.
    """
    if isinstance(fault, ExceptionGroup):
        failures, faults = fault.split(ProxyError)
        if failures is not None and faults is None:
            first: BaseException = failures
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            return cast("ProxyError", first)
    return None


def _internal(exchange: Exchange, fault: Exception) -> ProxyError:
    """A fault of ours costs this exchange, and nobody else anything."""
    log.error(
        "internal error in phase %s trace_id=%s", exchange.phase, exchange.trace_id, exc_info=fault
    )
    return ProxyError(Source.PROXY, exchange.phase, Reason.INTERNAL, detail=repr(fault))


async def tell_failure(
    exchange: Exchange, request: Request | None, sink: Sink, plan: Plan, failure: ProxyError
) -> None:
    """Answer for what went wrong, if that is still possible, and note it as the exchange's error.

    ``request`` is None if its head was never understood.
    """
    exchange.error = failure
    if not (exchange.head_sent and exchange.status):
        exchange.status = failure.status
    if exchange.head_sent or failure.reason in UNANSWERED:
        return
    head, body = refusal(failure, exchange, request, plan.rules, time.time())
    deadlines = exchange.deadlines
    deadlines.begin_last_words()  # whatever has ended the exchange must not end its answer
    try:
        with deadlines.open_scope():
            sink.start(head)
            if not head.body.is_empty:
                sink.write(body)
            await sink.end()
    except (ProxyError, OSError, trio.ClosedResourceError):
        return  # the client has left; of that the failure says nothing
