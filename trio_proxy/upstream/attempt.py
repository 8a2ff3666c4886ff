"""One try at one upstream: from the slot that it holds to what is told of the upstream in the end.

A try is one cancel scope, whatever it waits for: the budgets that are the upstream's end it by
`Attempt.fail`, and another may follow. Where none can follow one that takes too long, the end of
the try is that of the exchange, and the exchange's scope does for both: a scope costs 5 µs.

A request without a body, or with one that is sent in one go, runs in the exchange's task alone.
Only a body that has to be waited for gets a second task (`Upload`) and a nursery for it, because an
upstream may answer before it has read everything, and a stalled upload must not hide that answer.
"""

from __future__ import annotations

import math
import time

import trio

from trio_proxy.codec.h1.wire import ClientWire
from trio_proxy.exchange.exchange import STALE, Exchange, Try
from trio_proxy.exchange.streams import Stream
from trio_proxy.exchange.transfer import receive_later
from trio_proxy.exchange.waits import Wait
from trio_proxy.http.errors import ProtocolError, ProxyError, Reason, Source
from trio_proxy.http.messages import Content, Fields, Framing, Request, ResponseHead
from trio_proxy.http.phases import Phase
from trio_proxy.policy.crossing import (
    client_fields,
    interim_fields,
    trailer_fields,
    upstream_fields,
)
from trio_proxy.policy.retry import condition_of
from trio_proxy.upstream.answer import (
    UpstreamReader,
    discard_body,
    malformed,
    relay_body,
    take_whole_body,
)
from trio_proxy.upstream.dial import dial
from trio_proxy.upstream.h1_session import UpstreamSession
from trio_proxy.upstream.session import Slot
from trio_proxy.upstream.switch import switch_protocols
from trio_proxy.upstream.tries import Tries
from trio_proxy.upstream.upload import Upload, upload_at_once

#: Interim responses relayed for one request; nobody needs more, and each costs the client a head.
MAX_INTERIM_RESPONSES = 32

#: How long a response head whose body has not begun is held back, in seconds: enough for a server
#: to write its body, and nothing that a client notices.
HEAD_HOLD_SECONDS = 0.05

#: How soon a pooled connection must fail, in seconds, to count as one that was dead already.
STALE_SECONDS = 1.0

#: What ends a request before it is known how long it would have taken.
_OUT_OF_TIME = frozenset(
    (Reason.TOTAL_TIMEOUT, Reason.TRY_TIMEOUT, Reason.READ_TIMEOUT, Reason.WRITE_TIMEOUT)
)


class Attempt:
    """Sees one slot through one request; `run` once, at once.

    However it ends, the slot goes back synchronously: reusable if the answer and the request were
    complete, closed otherwise. What the try says of the upstream is reported once; one that ends
    without saying anything is abandoned.
    """

    __slots__ = (
        "_content",
        "_exchange",
        "_failure",
        "_has_ended_well",
        "_has_failed",
        "_is_relaying",
        "_is_reported",
        "_nothing_taken",
        "_reader",
        "_record",
        "_request",
        "_request_sent",
        "_reusable",
        "_scope",
        "_session",
        "_slot",
        "_tried_at",
        "_tries",
        "_turn_began",
        "_upload",
        "is_over",
    )

    def __init__(self, tries: Tries, slot: Slot) -> None:
        session = slot.session
        assert isinstance(session, UpstreamSession)
        self._tries = tries
        self._slot = slot
        self._session = session
        self._exchange: Exchange = tries.exchange
        self._request: Request = tries.request
        self._content: Content = tries.content
        self._scope = trio.CancelScope() if tries.can_go_elsewhere else None
        #: Why it was ended from outside.
        self._failure: ProxyError | None = None
        self.is_over = False
        self._upload: Upload | None = None
        self._reader: UpstreamReader | None = None
        self._nothing_taken = False
        #: All of the request was taken at once, so that there is no `Upload`.
        self._request_sent = False
        #: The answer is being passed on, so nothing but that can follow.
        self._is_relaying = False
        self._reusable = False
        self._has_ended_well = False
        self._has_failed = False
        self._is_reported = False
        self._tried_at = slot.leased_at
        #: When it became the upstream's turn: it has the connection, and the whole request.
        self._turn_began = slot.leased_at
        self._record = Try(slot.upstream.name)

    # The life of a try

    async def run(self) -> Fields | None:
        """Have the request answered, and relay all of the answer into the sink but for its end.

        Returns the trailers; None if the request is to be sent again. Raises ProxyError.
        """
        exchange, deadlines = self._exchange, self._exchange.deadlines
        exchange.upstream = self._slot.upstream.name
        exchange.leases += 1
        exchange.tries.append(self._record)
        deadlines.try_under_way = self
        deadlines.try_at = self._tried_at + deadlines.budgets.try_
        try:
            try:
                if self._scope is None:
                    trailers = await self._converse()
                else:
                    with self._scope:
                        trailers = await self._converse()
                    if self._scope.cancelled_caught:
                        assert self._failure is not None
                        raise self._failure
                self._has_ended_well = True
                return trailers
            except ProxyError as exc:
                if not self._may_follow(exc):
                    raise
                return None
        finally:
            if not (self._has_ended_well or self._has_failed):
                self._was_cancelled()
            self._end()

    def fail(self, error: ProxyError) -> None:
        """End the try from outside; beyond the response head, the exchange."""
        if self._is_relaying and self._upload is not None and error.reason is Reason.WRITE_TIMEOUT:
            self._upload.stop()  # the upstream stalls after it has begun to answer: let it
        elif self._is_relaying or self._exchange.head_sent:
            self._exchange.abort(error)  # while half an interim head is on its way, too
        elif not self.is_over:
            self.is_over = True
            self._failure = error
            if self._scope is None:
                self._exchange.abort(error)
            else:
                self._scope.cancel(reason=str(error))

    def _may_follow(self, error: ProxyError) -> bool:
        """The try has failed: say so; whether another is to follow it."""
        self._has_failed = True
        self._record.failed(error)
        if self._is_relaying:
            return False
        condition = condition_of(error)
        # A client that waits for a 100 is as late as the upstream (RFC 9110 §10.1.1).
        if not (self._content.awaits_continue and condition == "timeout"):
            self._blame(error)
        return self._tries.may_follow_failure(self._slot, error)

    def _was_cancelled(self) -> None:
        """A deadline or a departure has ended all of the exchange: whose fault may it be?"""
        error = self._exchange.deadlines.why_over()
        if error is not None and error is self._failure:
            self._may_follow(error)  # says why none does
        elif error is not None:
            self._record.failed(error)
            if not self._is_reported:
                self._blame(error)

    def _blame(self, error: ProxyError) -> None:
        """Report a failure before the response head; only the upstream's own faults count."""
        now = self._exchange.deadlines.timers.now()
        if error.reason in _OUT_OF_TIME:
            self._tries.pool.queue.served(math.inf, now)  # that long at least
        if error.source is Source.UPSTREAM and self._had_its_time(error, now):
            self._is_reported = True
            self._slot.upstream.condition.failed(self._slot.ticket, error.reason.slug, now)

    def _had_its_time(self, error: ProxyError, now: float) -> bool:
        """The total budget can have been spent by others: the client, the queue, other tries."""
        if error.reason is not Reason.TOTAL_TIMEOUT:
            return True
        deadlines = self._exchange.deadlines
        is_own = not deadlines.is_inherited
        return is_own and now - self._turn_began >= deadlines.total_seconds / 2

    def _end(self) -> None:
        exchange, slot = self._exchange, self._slot
        deadlines = exchange.deadlines
        now = deadlines.timers.now()
        exchange.leases -= 1
        deadlines.try_under_way = None
        deadlines.try_at = math.inf
        self._record.seconds = now - self._tried_at
        if self._has_ended_well:
            self._tries.pool.queue.served(now - slot.leased_at, now)
        if not self._is_reported:
            slot.upstream.condition.abandoned(slot.ticket, now)
        if self._reusable and self._has_ended_well:
            self._tries.pool.give_back(slot, now)
        else:
            slot.upstream.discard(slot)

    # The conversation

    async def _converse(self) -> Fields | None:
        """A pooled connection that turns out to have been dead already is replaced once."""
        stream = self._session.stream
        was_pooled = stream is not None
        try:
            return await self._ask(stream or await dial(self._tries.pool, self._slot))
        except ProxyError as exc:
            if not (was_pooled and exc.retryable and self._can_replay() and self._failed_at_once()):
                raise
        self._start_afresh()
        return await self._ask(await dial(self._tries.pool, self._slot))

    def _failed_at_once(self) -> bool:
        """A stale connection shows within a round trip; what dies later dies of the request."""
        return self._exchange.deadlines.timers.now() - self._tried_at <= STALE_SECONDS

    def _can_replay(self) -> bool:
        """Whether the request can be sent again: nothing of it was taken, or that does no harm."""
        tries = self._tries
        can_rewind = tries.replay is None or tries.replay.can_rewind
        return can_rewind and (tries.is_replayable or self._nothing_taken)

    def _start_afresh(self) -> None:
        """The connection was stale: begin again in its slot."""
        deadlines = self._exchange.deadlines
        now = deadlines.timers.now()
        self._record.outcome = STALE
        self._record.seconds = now - self._tried_at
        self._record = Try(self._exchange.upstream)
        self._exchange.tries.append(self._record)
        self._tried_at = self._turn_began = now
        deadlines.try_at = now + deadlines.budgets.try_
        self._session.close()
        self._upload = self._reader = None
        if self._tries.replay is not None:
            self._tries.replay.rewind()

    async def _ask(self, stream: Stream) -> Fields | None:
        """Send the request, and relay the answer; beside the rest of the body if some is left."""
        unsent = self._send_head(stream)
        if unsent is None:
            return await self._answer(stream)
        upload = await self._send_body(stream, unsent)
        if upload is None:
            return await self._answer(stream)
        trailers: Fields | None = None
        failure: ProxyError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload.run)
            try:
                trailers = await self._answer(stream)
            except ProxyError as exc:
                failure = exc  # raised below, so that no group is made of it
            upload.stop()
        if failure is not None:
            raise failure
        return trailers

    # The request

    @property
    def _wire(self) -> ClientWire:
        return self._session.wire

    def _send_head(self, stream: Stream) -> bytes | None:
        """Send the head, and what is there of the body, in one go.

        Returns what the upstream has not taken of it, None if nothing more can or need be sent.
        """
        exchange, wire, content = self._exchange, self._wire, self._content
        exchange.phase = Phase.SEND
        remaining = exchange.deadlines.remaining()
        if remaining <= 0:
            # Without this a request could leave whose answer nobody will wait for.
            raise ProxyError(Source.PROXY, Phase.SEND, Reason.TOTAL_TIMEOUT)
        rules = self._tries.rules
        fields = upstream_fields(
            self._request,
            exchange.client,
            rules.headers,
            trace_id=exchange.trace_id,
            upstream_host=self._slot.upstream.host_field,
            remaining_seconds=remaining,
        )
        data = wire.encode_head(self._request, fields, rules.heads)
        if not content.complete and (piece := content.take_nowait()):
            data = b"".join((data, *wire.encode_data(piece)))
        ended = content.complete
        if ended:
            data += self.encode_request_end()
        self._request_sent = False
        try:
            sent = stream.send_nowait(data)
        except OSError:
            self._nothing_taken = True
            return None  # an answer may have come before the reset: reading will tell
        self._request_sent = ended and sent == len(data)
        return None if self._request_sent else data[sent:]

    async def _send_body(self, stream: Stream, unsent: bytes) -> Upload | None:
        """Send what is there already; the `Upload` that has the rest, None if there is none."""
        exchange, wire, content = self._exchange, self._wire, self._content
        ended = content.complete
        if not (unsent or ended) and self._can_upload_at_once():
            try:
                unsent = await upload_at_once(content, wire, stream, exchange.turns)
            except OSError:
                return None  # an answer may have come before the reset: reading will tell
            if content.complete:
                self.encode_request_end()
                ended = True
                self._turn_began = exchange.deadlines.timers.now()
        if not unsent and ended:
            self._request_sent = True
            return None
        upload = self._upload = Upload(self, stream, wire, unsent, ended)
        self._turn_began = math.inf  # when it has the whole request
        self._reader = UpstreamReader(exchange)
        self._reader.is_suspended = self._is_uploading()
        return upload

    def _can_upload_at_once(self) -> bool:
        """Whether the client sends a body of known length, and is not told to wait with it."""
        is_known = self._request.body.framing is Framing.LENGTH
        return is_known and not self._content.awaits_continue

    def encode_request_end(self) -> bytes:
        """What to send at the end of the request's body."""
        if not self._content.trailers:
            return self._wire.encode_end()
        trailers = trailer_fields(
            self._content.trailers, self._request.options, self._tries.rules.headers.deadline_key
        )
        return self._wire.encode_end(trailers)

    @property
    def exchange(self) -> Exchange:
        """The exchange that the try is part of."""
        return self._exchange

    @property
    def content(self) -> Content:
        """The body to be sent."""
        return self._content

    def upload_changed(self) -> None:
        """The upload has begun or ended: it is another's turn."""
        exchange = self._exchange
        if exchange.phase in (Phase.SEND, Phase.AWAIT_HEAD):
            exchange.phase = self._phase_before_head()
        if self._upload is not None and self._upload.is_complete:
            self._turn_began = exchange.deadlines.timers.now()
        if self._reader is not None:
            self._reader.turn_changed(is_suspended=self._is_uploading())

    def _phase_before_head(self) -> Phase:
        return Phase.SEND if self._is_uploading() else Phase.AWAIT_HEAD

    def _is_uploading(self) -> bool:
        """Whether it is the client's turn, or the upload's, rather than the upstream's."""
        upload = self._upload
        return upload is not None and not (upload.is_done or self._content.awaits_continue)

    # The answer

    async def _answer(self, stream: Stream) -> Fields | None:
        head = await self._await_head(stream)
        if self._tries.has_next and not self._wire.leftover and self._is_worth_holding(head):
            await self._await_body(stream)
        deadlines, slot = self._exchange.deadlines, self._slot
        deadlines.try_at = math.inf
        now = deadlines.timers.now()
        self._record.outcome = str(head.status)
        self._record.head_seconds = now - self._tried_at
        self._is_reported = True
        slot.upstream.condition.answered(slot.ticket, head.status, now)
        if head.status >= 400 and self._tries.may_follow_answer(slot, head):
            if self._request_sent:
                # An answer that has come whole leaves the connection reusable.
                self._reusable = head.keep_alive and discard_body(self._wire)
            return None
        self._is_relaying = True
        return await self._relay(head, stream)

    async def _await_head(self, stream: Stream) -> ResponseHead:
        exchange, wire = self._exchange, self._wire
        exchange.phase = Phase.AWAIT_HEAD if self._upload is None else self._phase_before_head()
        head: ResponseHead | None = None
        heard_anything = False
        interims = 0
        while True:
            if head is None or not wire.leftover:
                try:
                    if self._reader is None:
                        data = await receive_later(stream, exchange, Wait.READ)
                    else:
                        data = await self._reader.receive_later(stream)
                except (OSError, trio.ClosedResourceError) as exc:
                    raise self._reset(str(exc), retryable=not heard_anything) from exc
                if not data:
                    detail = "closed before the response head was complete"
                    raise self._reset(detail, retryable=not heard_anything)
                heard_anything = True
                wire.feed(data)
            try:
                head = wire.next_response()
            except ProtocolError as error:
                raise malformed(error, exchange.phase) from error
            if head is None:
                continue
            if head.status >= 200 or head.status == 101:
                return head
            interims += 1
            await self._relay_interim(head, interims)

    def _reset(self, detail: str, *, retryable: bool) -> ProxyError:
        phase = self._exchange.phase
        return ProxyError(
            Source.UPSTREAM, phase, Reason.CONNECTION_RESET, detail=detail, retryable=retryable
        )

    async def _relay_interim(self, head: ResponseHead, count: int) -> None:
        exchange = self._exchange
        if count > MAX_INTERIM_RESPONSES:
            error = ProtocolError(Reason.RESPONSE_MALFORMED, "too many interim responses")
            raise malformed(error, exchange.phase)
        if exchange.turns.take():
            await exchange.turns.pass_on()
        head.fields = interim_fields(head, exchange.trace_id, time.time())
        if self._request.version == b"1.1":
            await self._tries.sink.inform(head)
        if head.status == 100:
            self.upload_changed()

    def _is_worth_holding(self, head: ResponseHead) -> bool:
        if not self._tries.is_replayable or self._is_uploading():
            return False
        return head.body.framing is Framing.LENGTH and head.body.length > 0

    async def _await_body(self, stream: Stream) -> None:
        """Hold a head back for a moment, until something of its body has come.

        Many servers write the two one after the other. One that is killed in between leaves a head
        that promises too much; as long as it has not been passed on, the request can go elsewhere.
        """
        deadlines = self._exchange.deadlines
        deadlines.try_at = math.inf  # the head has come in time
        reader = UpstreamReader(self._exchange)
        reader.is_suspended = True
        data: bytes | None = None
        with trio.move_on_after(min(HEAD_HOLD_SECONDS, deadlines.remaining() / 2)):
            try:
                data = await reader.receive_later(stream)
            except (OSError, trio.ClosedResourceError) as exc:
                raise self._reset(str(exc), retryable=False) from exc
        if data == b"":
            raise self._reset("closed before the response body began", retryable=False)
        self._wire.feed(data or b"")

    async def _relay(self, head: ResponseHead, stream: Stream) -> Fields:
        exchange, sink, wire = self._exchange, self._tries.sink, self._wire
        if self._tries.replay is not None:
            self._tries.replay.let_go()
        now = time.time()
        if head.status == 101:
            head.fields = interim_fields(head, exchange.trace_id, now)
            self._tries.add_cookie(head.fields, self._slot)
            await switch_protocols(head, stream, wire, sink, exchange)
            return ()
        exchange.phase = Phase.STREAM
        head.fields = client_fields(head, exchange.trace_id, now)
        self._tries.add_cookie(head.fields, self._slot)
        sink.start(head)
        if not take_whole_body(wire, sink):
            await relay_body(wire, stream, sink, self._reader or UpstreamReader(exchange))
        upload = self._upload
        uploaded = self._request_sent if upload is None else upload.is_complete
        self._reusable = head.keep_alive and uploaded and not wire.leftover
        return trailer_fields(wire.trailers, head.options) if wire.trailers else ()
