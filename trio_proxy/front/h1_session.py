"""One HTTP/1.1 client connection: reads requests, has them answered, one after the other.

It knows of HTTP/1.1 what `trio_proxy.front.serve` does not: heads, keep-alive, half-close, linger.
Requests that a client pipelines wait in the kernel's buffer (one read's worth in ours), so they are
answered in order and cost no memory. While it is idle a connection is one task that waits, without
a cancel scope: when its time is up, its stream is closed under it.

Three things end an exchange early: a budget that runs out, a client that hangs up, and the end of a
drain.
"""

from __future__ import annotations

import logging
import math
import time

import trio

from trio_proxy.codec.h1.wire import ServerWire
from trio_proxy.exchange.deadlines import Deadlines
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import READ_SIZE, Stream
from trio_proxy.exchange.timers import Timed, Timers
from trio_proxy.exchange.turns import Turns
from trio_proxy.front.h1_content import H1Content
from trio_proxy.front.h1_head import head_at_once, read_head
from trio_proxy.front.h1_sink import H1Sink
from trio_proxy.front.linger import linger
from trio_proxy.front.plan import Plan
from trio_proxy.front.serve import UNANSWERED, serve_exchange, tell_failure
from trio_proxy.front.service import Service
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.phases import Phase

log = logging.getLogger("trio_proxy.front")

#: A FIN this soon behind the end of a request is taken for a half-close, whose sender waits for the
#: answer; a later one for a client that has gone. TCP cannot tell the two apart. Who half-closes on
#: purpose does so with the request; who gives up does so later.
HALF_CLOSE_SECONDS = 0.01


class ServerSession:
    """Serves one client until either side has had enough. Closes the stream in the end."""

    def __init__(self, stream: Stream, service: Service) -> None:
        self._stream = stream
        self._service = service
        self._wire = ServerWire(service.plan.head_limits)
        self._deadlines = Deadlines(service.timers, service.plan.budgets)
        self._turns = Turns()
        self._trusted: tuple[object, bool] = (None, False)
        self._exchange: Exchange | None = None
        self._sink: H1Sink | None = None
        self._idle = _Idle(service.timers, stream)
        self._was_reset = False

    def __repr__(self) -> str:
        phase = self._exchange.phase if self._exchange else "idle"
        return f"<ServerSession {self._stream!r} {phase}>"

    async def run(self) -> None:
        """Serve until the connection ends. What a peer does raises nothing from here."""
        self._service.add(self)
        self._stream.on_hangup = self._on_hangup
        try:
            with self._deadlines:
                while await self._await_request() and await self._serve():
                    pass
        finally:
            self._idle.timers.forget(self._idle)
            self._stream.close()
            self._service.remove(self)

    async def _await_request(self) -> bool:
        """Wait until something of a request is there; False if none comes."""
        while True:
            try:
                if self._turns.take():
                    await self._turns.pass_on()
                return self._wire.has_begun or await self._await_first_byte()
            except trio.Cancelled as exc:
                if not self._deadlines.absorb(exc):
                    raise

    async def _await_first_byte(self) -> bool:
        """Idle until the client sends something; False if it ends the connection instead."""
        if self._service.draining:
            return False
        self._turns.rest()
        stream, idle = self._stream, self._idle
        idle.is_waiting = True
        idle.put_off(idle.timers.now() + self._service.plan.budgets.idle)
        try:
            while not self._wire.has_begun:
                await stream.wait_readable()
                if idle.is_too_late:
                    return False
                data = stream.receive_nowait(READ_SIZE)
                if data == b"":
                    return False
                self._wire.feed(data or b"")
        except (OSError, trio.ClosedResourceError):
            log.debug("%s: idle, and now gone, too late or drained", stream.peer)
            return False
        finally:
            idle.is_waiting = False
            idle.due = math.inf
        return True

    async def _serve(self) -> bool:
        """See one exchange through; whether another may follow."""
        service, wire = self._service, self._wire
        plan = service.plan  # a reload is for the next one
        exchange = self._begin(plan)
        sink = self._sink = H1Sink(service, self._stream, wire, exchange)
        try:
            try:
                request = head_at_once(wire, exchange)
                if request is None:
                    request = await read_head(wire, self._stream, exchange)
                    exchange.head_at = service.timers.now()
                if self._was_reset:
                    detail = "reset"
                    raise ProxyError(Source.CLIENT, Phase.ROUTE, Reason.CLIENT_GONE, detail=detail)
            except ProxyError as failure:
                await tell_failure(exchange, None, sink, plan, failure)
            else:
                sink.request = request
                if wire.body_complete:
                    exchange.received_at = exchange.head_at
                else:
                    content = H1Content(wire, self._stream, exchange, plan.max_body_bytes)
                    content.awaits_continue = request.expects_continue
                    request.content = sink.content = content
                await serve_exchange(exchange, request, sink, plan)
        finally:
            self._end(exchange)
        if sink.keep_alive and exchange.is_complete:
            return True
        self._deadlines.leave_scope()
        await self._close(exchange, sink)
        return False

    def _begin(self, plan: Plan) -> Exchange:
        service, stream = self._service, self._stream
        service.observer.request_started()
        exchange = Exchange(service.timers.now(), time.time(), stream.peer)
        exchange.bytes_received = len(self._wire.leftover)
        exchange.is_peer_trusted = self._is_trusted(plan)
        exchange.deadlines, exchange.turns = self._deadlines, self._turns
        exchange.scratch = service.relay_buffer
        exchange.piece_bytes = stream.piece_bytes
        self._deadlines.restart(exchange, plan.budgets)
        self._wire.start_cycle(plan.head_limits)
        self._exchange = exchange
        return exchange

    def _is_trusted(self, plan: Plan) -> bool:
        """Whether the peer is a trusted proxy; looked up once per connection and set of rules."""
        if self._trusted[0] is not plan.rules:
            self._trusted = (plan.rules, plan.rules.trusts(self._stream.peer))
        return self._trusted[1]

    # The end of an exchange.

    def _end(self, exchange: Exchange) -> None:
        """The last phase: always reached, also when everything is being torn down."""
        if self._sink is not None and self._sink.request is not None:
            exchange.bytes_received -= len(self._wire.leftover)  # of the next request
        exchange.end(self._service.timers.now())
        self._exchange = self._sink = None
        self._deadlines.let_go()
        self._service.observer.exchange_ended(exchange)

    async def _close(self, exchange: Exchange, sink: H1Sink) -> None:
        """End the connection in the way that tells the client what has become of the exchange."""
        error = exchange.error
        if error is not None and error.reason in UNANSWERED:
            self._stream.abort()
        elif sink.switched:
            return
        elif not exchange.is_complete:
            if sink.ends_by_close and exchange.head_sent:
                # To this client the end of the connection is the end of the body: only a reset
                # shows that it was cut. Any other sees it by the framing, and keeps what it has.
                self._stream.abort()
        elif error is not None or not self._wire.body_complete or self._stream.is_readable():
            await linger(self._stream, self._service.relay_buffer)

    # What happens to the connection from outside, all of it between task steps.

    def _on_hangup(self, reset: bool) -> None:
        exchange = self._exchange
        self._was_reset = self._was_reset or reset
        if exchange is not None and (reset or self._has_gone(exchange)):
            how = "reset" if reset else "closed"
            error = ProxyError(Source.CLIENT, exchange.phase, Reason.CLIENT_GONE, detail=how)
            exchange.abort(error)

    def _has_gone(self, exchange: Exchange) -> bool:
        """Whether a FIN that has come just now means that nobody waits for the answer."""
        sink = self._sink
        if sink is None or sink.request is None or sink.switched:
            return False  # the reader, or the tunnel, comes upon it in order
        if sink.content is not None and not sink.content.complete:
            return not sink.content.can_still_complete()
        since = self._service.timers.now() - exchange.received_at
        return since > HALF_CLOSE_SECONDS + self._stream.hangup_lag

    def start_drain(self) -> None:
        """Close if idle; otherwise the exchange under way is the last one."""
        if self._idle.is_waiting and not self._stream.is_readable():
            self._idle.expire()

    def cut(self) -> None:
        """End the exchange under way: the drain's time is up."""
        if self._exchange is not None:
            self._exchange.cut("drain deadline passed")
        else:
            self._stream.close()


class _Idle(Timed):
    """A client that sends no further request has to give its place up."""

    __slots__ = ("_stream", "is_waiting")

    def __init__(self, timers: Timers, stream: Stream) -> None:
        super().__init__(timers)
        self._stream = stream
        self.is_waiting = False

    def expire(self) -> None:
        self._stream.close()  # whoever waits for it is woken by that

    def end(self) -> None:
        self._stream.abort()
