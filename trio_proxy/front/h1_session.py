"""One client connection: reads requests, has them answered, one after the other.

Every exchange walks through the same steps whatever becomes of it: idle, head, handler, and then
`_conclude`, the one place where a failure becomes a status, and the log. Requests that a client
pipelines wait in the kernel's buffer (one read's worth in ours), so they are answered in order and
cost no memory.

One cancel scope covers exchanges and the idle times before them (`net.watchdog`), until one of them
does not end as usual; then what is left to do is done outside of it, and another scope begins.
Three things end it early: a budget that runs out, a client that hangs up, and the end of a drain.
"""

from __future__ import annotations

import enum
import logging
import math
import time

import trio

from trio_proxy.codec.h1.wire import ServerWire
from trio_proxy.exchange.deadlines import Deadlines
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import READ_SIZE, Stream
from trio_proxy.exchange.transfer import send_all
from trio_proxy.exchange.watchdog import Watchdog
from trio_proxy.front.admission import check_request
from trio_proxy.front.blame import close_the_case
from trio_proxy.front.h1_body import ClientBody
from trio_proxy.front.h1_head import read_head
from trio_proxy.front.h1_sink import H1Sink
from trio_proxy.front.linger import linger
from trio_proxy.front.plan import Plan
from trio_proxy.front.refusal import refusal
from trio_proxy.front.service import Service
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.messages import Request
from trio_proxy.http.phases import Phase
from trio_proxy.policy.forwarding import inherited_budget, origin_of

log = logging.getLogger("trio_proxy.front")

#: A FIN this soon behind the end of a request is taken for a half-close, whose sender waits for the
#: answer; a later one for a client that has gone. TCP cannot tell the two apart. Who half-closes on
#: purpose does so with the request; who gives up does so later.
HALF_CLOSE_SECONDS = 0.01


class _End(enum.Enum):
    """What becomes of the connection after an exchange."""

    KEEP_ALIVE = enum.auto()
    CLOSE = enum.auto()
    LINGER = enum.auto()


class Connection:
    """Serves one client until either side has had enough. Closes the stream in the end."""

    def __init__(self, stream: Stream, service: Service) -> None:
        self._stream = stream
        self._service = service
        #: The configuration of the exchange under way; a reload is for the next one.
        self._plan = service.plan
        self._wire = ServerWire(service.plan.head_limits)
        self._trusted: tuple[object, bool] = (None, False)
        self._watchdog: Watchdog | None = None
        self._exchange: Exchange | None = None
        self._sink: H1Sink | None = None
        self._request: Request | None = None
        self._idle = False
        self._was_reset = False
        self._nursery: trio.Nursery

    def __repr__(self) -> str:
        phase = self._exchange.phase if self._exchange else "idle"
        return f"<Connection {self._stream!r} {phase}>"

    async def run(self) -> None:
        """Serve until the connection ends. What a peer does raises nothing from here."""
        self._service.add(self)
        self._stream.on_hangup = self._on_hangup
        try:
            async with trio.open_nursery() as self._nursery:
                while await self._serve():
                    pass
        finally:
            self._stream.close()
            self._service.remove(self)

    async def _serve(self) -> bool:
        """See requests through until one does not end as usual; whether another may follow."""
        deadlines = Deadlines(self._service.plan.seconds)
        watchdog = self._watchdog = Watchdog(deadlines, self._service.timers)
        failure: ProxyError | None = None
        try:
            with watchdog:
                while self._wire.has_begun or await self._await_first_byte(watchdog):
                    self._exchange = self._new_exchange()
                    failure = await self._answer(self._exchange, watchdog)
                    if failure is not None or watchdog.is_over or not self._ended_as_usual():
                        break
                    self._end(self._exchange)
                    watchdog.restart(self._service.plan.seconds)
            exchange = self._exchange
            if exchange is None:
                log.debug("%s: idle, and now gone, too late or drained", self._stream.peer)
                return False
            await self._wait_for_second_direction()
            if watchdog.was_cancelled:
                failure = watchdog.failure(exchange)
            end = await self._conclude(exchange, failure)
        finally:
            if self._exchange is not None:
                self._end(self._exchange)
        if end is _End.LINGER:
            await linger(self._stream, self._service.relay_buffer)
        return end is _End.KEEP_ALIVE

    def _ended_as_usual(self) -> bool:
        """Whether the answer is out, nothing is left to do, and the connection stays open."""
        sink = self._sink
        if sink is None or not (sink.keep_alive and sink.ended):
            return False
        return all(done.is_set() for done in sink.holds) if sink.holds else True

    async def _await_first_byte(self, watchdog: Watchdog) -> bool:
        """Idle until the client sends something; False if it ends the connection instead."""
        if self._service.draining:
            return False
        watchdog.deadlines.seconds = self._service.plan.seconds
        self._idle = True
        try:
            while not self._wire.has_begun:
                await watchdog.wait_readable(self._stream, "idle")
                data = self._stream.receive_nowait(READ_SIZE)
                if data == b"":
                    return False
                self._wire.feed(data or b"")
        except (OSError, trio.ClosedResourceError):
            return False
        finally:
            self._idle = False
        # Bytes that come in the very step in which the idle deadline passes come too late.
        return not watchdog.is_over

    def _new_exchange(self) -> Exchange:
        self._service.observer.request_started()
        exchange = Exchange(self._service.timers.now(), time.time(), self._stream.peer)
        exchange.bytes_received = len(self._wire.leftover)
        return exchange

    async def _answer(self, exchange: Exchange, watchdog: Watchdog) -> ProxyError | None:
        """Read the head and run the handler; what went wrong, if anything."""
        plan = self._plan = self._service.plan
        try:
            watchdog.due = math.inf
            watchdog.deadlines.seconds = plan.seconds
            self._wire.start_cycle(plan.head_limits)
            request = self._request = await read_head(self._wire, self._stream, exchange, watchdog)
            exchange.phase = Phase.ROUTE
            origin = origin_of(request, exchange.peer, plan.rules, trusted=self._is_trusted(plan))
            exchange.client_ip, exchange.trace_id = origin.client_ip, origin.trace_id
            budget = inherited_budget(request, plan.rules) if origin.trusted else None
            now = self._service.timers.now()
            watchdog.deadlines.start_total(now, budget)
            if self._was_reset or request.via or budget is not None or not request.body.is_empty:
                check_request(request, plan, budget, was_reset=self._was_reset)
            body = ClientBody(
                self._wire,
                self._stream,
                exchange,
                self._service.relay_buffer,
                plan.max_body_bytes,
                now,
            )
            self._sink = H1Sink(
                self._service,
                self._stream,
                self._wire,
                exchange,
                request,
                body,
                watchdog,
                self._nursery,
            )
            await plan.handler.handle(exchange, request, origin, self._sink)
        except ProxyError as exc:
            return exc
        except Exception as fault:
            # A fault of ours costs this exchange, and nobody else anything.
            log.exception(
                "internal error in phase %s trace_id=%s", exchange.phase, exchange.trace_id
            )
            return ProxyError(Source.PROXY, exchange.phase, Reason.INTERNAL, detail=repr(fault))
        return None

    def _is_trusted(self, plan: Plan) -> bool:
        """Whether the peer is a trusted proxy; looked up once per connection and set of rules."""
        if self._trusted[0] is not plan.rules:
            self._trusted = (plan.rules, plan.rules.trusts(self._stream.peer))
        return self._trusted[1]

    # The end of an exchange.

    async def _wait_for_second_direction(self) -> None:
        """An upload that was stopped has a last step to take, and perhaps the reason to tell."""
        for done in self._sink.holds if self._sink is not None else ():
            await done.wait()

    async def _conclude(self, exchange: Exchange, failure: ProxyError | None) -> _End:
        """See the exchange off, telling the client of a failure if that is still possible."""
        sink = self._sink
        if failure is not None:
            exchange.error = failure
            return await self._fail(exchange, failure)
        if sink is None or sink.switched:
            return _End.CLOSE
        if not sink.body.complete:
            return _End.LINGER
        if sink.keep_alive:
            return _End.KEEP_ALIVE
        return _End.LINGER if self._stream.is_readable() else _End.CLOSE

    async def _fail(self, exchange: Exchange, failure: ProxyError) -> _End:
        if not (exchange.head_sent and exchange.status):
            exchange.status = failure.status
        if failure.reason in (Reason.CLIENT_GONE, Reason.CLIENT_STALLED):
            self._stream.abort()
            return _End.CLOSE
        if not exchange.head_sent:
            return await self._refuse(exchange, failure)
        if self._sink is not None and self._sink.ends_by_close:
            # To this client the end of the connection is the end of the body: only a reset shows
            # that it was cut. Any other sees it by the framing, and keeps what it has.
            self._stream.abort()
        return _End.CLOSE

    async def _refuse(self, exchange: Exchange, failure: ProxyError) -> _End:
        """Send the proxy's own answer. A request that was read to its end keeps the connection."""
        request = self._request
        keep_alive = (
            request is not None
            and request.keep_alive
            and self._wire.body_complete
            and not self._service.draining
        )
        head, body = refusal(failure, exchange, request, self._plan.rules)
        if self._sink is not None:
            head.fields.extend(self._sink.fields_for_refusal)
        data = self._wire.encode_refusal(head, body, keep_alive=keep_alive)
        watchdog = Watchdog(Deadlines(self._plan.seconds), self._service.timers)
        with watchdog:
            try:
                exchange.head_sent = True
                await send_all(self._stream, data, watchdog, "client_write")
                exchange.bytes_sent += len(data)
                exchange.body_bytes_sent += len(body)
            except (OSError, trio.ClosedResourceError):
                return _End.CLOSE
        if watchdog.was_cancelled:
            return _End.CLOSE
        return _End.KEEP_ALIVE if keep_alive else _End.LINGER

    def _end(self, exchange: Exchange) -> None:
        """The last phase: always reached, also when everything is being torn down."""
        if self._request is not None:
            exchange.bytes_received -= len(self._wire.leftover)  # of the next request
        complete = self._sink is not None and (self._sink.ended or self._sink.switched)
        if exchange.error is None and not complete:
            exchange.error = ProxyError(Source.PROXY, exchange.phase, Reason.SHUTTING_DOWN)
        exchange.ended_in = exchange.phase if exchange.error is None else exchange.error.phase
        exchange.phase = Phase.LOG
        exchange.ended_at = self._service.timers.now()
        if exchange.error is not None or len(exchange.tries) > 1:
            close_the_case(exchange)
        self._exchange = self._sink = self._request = None
        self._service.observer.exchange_ended(exchange)

    # What happens to the connection from outside, all of it between task steps.

    def _on_hangup(self, reset: bool) -> None:
        exchange, watchdog = self._exchange, self._watchdog
        self._was_reset = self._was_reset or reset
        if exchange is not None and watchdog is not None and (reset or self._has_gone()):
            how = "reset" if reset else "closed"
            error = ProxyError(Source.CLIENT, exchange.phase, Reason.CLIENT_GONE, detail=how)
            watchdog.abort(error)

    def _has_gone(self) -> bool:
        """Whether a FIN that has come just now means that nobody waits for the answer."""
        sink = self._sink
        if self._exchange is None or sink is None or sink.switched:
            return False  # the reader, or the tunnel, comes upon it in order
        if not sink.body.complete:
            return not sink.body.can_still_complete()
        since = self._service.timers.now() - sink.body.completed_at
        return since > HALF_CLOSE_SECONDS + self._stream.hangup_lag

    def start_drain(self) -> None:
        """Close if idle; otherwise the exchange under way is the last one."""
        if self._idle and self._watchdog is not None and not self._stream.is_readable():
            self._watchdog.cancel("draining an idle connection")

    def cut(self) -> None:
        """End the exchange under way: the drain's time is up."""
        if self._exchange is not None and self._watchdog is not None:
            phase, detail = self._exchange.phase, "drain deadline passed"
            error = ProxyError(Source.PROXY, phase, Reason.SHUTTING_DOWN, detail=detail)
            self._watchdog.abort(error)
        else:
            self._nursery.cancel_scope.cancel(reason="the drain is over")
