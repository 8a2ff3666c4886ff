"""One request on one upstream connection: send it, await the head, relay the answer.

A request without a body, or with one that is sent in one go, runs in the exchange's main task
alone. Only a body that has to be waited for gets a second task (`Upload`), because an upstream
may answer before it has read everything, and a stalled upload must not hide that answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable

import trio

from trio_proxy.codec.h1.wire import ClientWire
from trio_proxy.exchange.exchange import STALE, Try
from trio_proxy.exchange.streams import READ_SIZE, Stream
from trio_proxy.exchange.transfer import receive_later
from trio_proxy.http.errors import ProtocolError, ProxyError, Reason, Source
from trio_proxy.http.messages import Fields, Framing, ResponseHead
from trio_proxy.http.phases import Phase
from trio_proxy.policy.crossing import (
    client_fields,
    interim_fields,
    trailer_fields,
    upstream_fields,
)
from trio_proxy.upstream.answer import (
    UpstreamReader,
    discard_body,
    malformed,
    relay_body,
    take_whole_body,
)
from trio_proxy.upstream.call import Call
from trio_proxy.upstream.lease import Lease
from trio_proxy.upstream.replay import ReplayBody
from trio_proxy.upstream.switch import switch_protocols
from trio_proxy.upstream.upload import Upload, upload_nowait

#: Interim responses relayed for one request; nobody needs more, and each costs the client a head.
MAX_INTERIM_RESPONSES = 32


#: How long a response head whose body has not begun is held back, in seconds: enough for a server
#: to write its body, and nothing that a client notices.
HEAD_HOLD_SECONDS = 0.05

#: How soon a pooled connection must fail, in seconds, to count as one that was dead already.
STALE_SECONDS = 1.0


class UpstreamExchange:
    """Drives one lease through one request.

    ``replay`` is the request's body if it has one; ``is_replayable`` says that the request may go
    out again though it may have been acted upon, and ``has_next`` that there may be another try.
    """

    __slots__ = (
        "_body",
        "_call",
        "_exchange",
        "_has_next",
        "_head",
        "_is_replayable",
        "_lease",
        "_nothing_taken",
        "_reader",
        "_record",
        "_replay",
        "_request_sent",
        "_tried_at",
        "_upload",
        "head_at",
    )

    def __init__(
        self,
        call: Call,
        lease: Lease,
        replay: ReplayBody | None,
        *,
        is_replayable: bool,
        has_next: bool,
    ) -> None:
        self._call = call
        self._lease = lease
        self._exchange = call.exchange
        self._replay = replay
        self._body = call.sink.body if replay is None else replay
        self._is_replayable = is_replayable
        self._has_next = has_next
        self._head: ResponseHead | None = None
        self._upload: Upload | None = None
        self._reader: UpstreamReader | None = None
        self._nothing_taken = False
        #: All of it was taken at once, so that there is no `Upload`.
        self._request_sent = False
        self._tried_at = 0.0
        #: When the response head was there.
        self.head_at = 0.0
        self._record = Try(self._exchange.upstream)

    @property
    def _wire(self) -> ClientWire:
        return self._lease.connection.wire

    async def await_head(self) -> ResponseHead:
        """Send the request and await its final response head. Raises ProxyError.

        A pooled connection that turns out to have been dead already is replaced once.
        """
        lease = self._lease
        stream = lease.connection.stream
        was_pooled = stream is not None
        self._start_try(lease.connection.leased_at)
        try:
            stream = self._send(stream or await lease.dial())
            head = await self._await_head(stream)
        except ProxyError as exc:
            if not (was_pooled and exc.retryable and self._can_replay() and self._failed_at_once()):
                raise
            await self._give_up_stale_try()
            stream = self._send(await lease.dial())
            head = await self._await_head(stream)
        if self._has_next and not self._wire.leftover and self._is_worth_holding(head):
            await self._await_body(stream)
        self._head = head
        self.head_at = self._call.watchdog.timers.now()
        self._record.outcome = str(head.status)
        self._record.head_seconds = self.head_at - self._tried_at
        return head

    def _failed_at_once(self) -> bool:
        """A stale connection shows within a round trip; what dies later dies of the request."""
        return self._call.watchdog.timers.now() - self._tried_at <= STALE_SECONDS

    async def relay(self, head: ResponseHead) -> Fields:
        """Relay the answer into the sink but for its end; its trailers are returned.

        Marks the lease reusable if the connection can take another request. Raises ProxyError.
        """
        if head.status == 101:
            head.fields = interim_fields(head, self._call.origin.trace_id, time.time())
            await switch_protocols(head, self._stream, self._wire, self._call.sink, self._exchange)
            return ()
        return await self._relay(head)

    @property
    def awaits_continue(self) -> bool:
        """Whether nothing of the body has come, because the client waits to be told so."""
        return self._upload is not None and self._upload.waits_for_continue

    def note_failure(self, error: ProxyError) -> None:
        """The try has failed: say so in the exchange's record."""
        self._record.outcome = error.reason.slug
        if error.source is Source.UPSTREAM:
            self._record.failure = error

    def stop(self, now: float) -> None:
        """End the try; what still runs of it is cancelled."""
        self._record.seconds = now - self._tried_at
        if self._upload is not None:
            self._upload.stop()

    async def give_up(self) -> None:
        """After `stop`: wait until nothing of the try touches the request's body any more.

        An answer that has come whole leaves the connection reusable.
        """
        if self._upload is not None:
            await self._upload.done.wait()
        elif self._head is not None and self._request_sent:
            self._lease.reusable = self._head.keep_alive and discard_body(self._wire)

    def _start_try(self, now: float) -> None:
        self._exchange.tries.append(self._record)
        self._tried_at = now

    @property
    def _stream(self) -> Stream:
        stream = self._lease.connection.stream
        assert stream is not None
        return stream

    def _is_worth_holding(self, head: ResponseHead) -> bool:
        if not self._is_replayable or self._is_uploading():
            return False
        return head.body.framing is Framing.LENGTH and head.body.length > 0

    async def _await_body(self, stream: Stream) -> None:
        """Hold a head back for a moment, until something of its body has come.

        Many servers write the two one after the other. One that is killed in between leaves a head
        that promises too much; as long as it has not been passed on, the request can go elsewhere.
        """
        watchdog, deadlines = self._call.watchdog, self._call.watchdog.deadlines
        deadlines.stop_try()  # the head has come in time
        remaining = deadlines.remaining_total(self._call.watchdog.timers.now())
        data: bytes | None = None
        with trio.move_on_after(min(HEAD_HOLD_SECONDS, remaining / 2)):
            try:
                data = await receive_later(stream, READ_SIZE, watchdog, "")
            except (OSError, trio.ClosedResourceError) as exc:
                raise self._reset(str(exc), retryable=False) from exc
        if data == b"":
            raise self._reset("closed before the response body began", retryable=False)
        self._wire.feed(data or b"")

    async def _give_up_stale_try(self) -> None:
        now = self._call.watchdog.timers.now()
        self._record.outcome = STALE
        self._record.seconds = now - self._tried_at
        self._record = Try(self._exchange.upstream)
        self._start_try(now)
        self._lease.start_afresh()
        self._call.watchdog.deadlines.start_try(now)
        self._lease.turn_began = now
        if self._upload is not None:
            self._upload.stop()
            await self._upload.done.wait()
            self._upload = self._reader = None
        if self._replay is not None:
            self._replay.rewind()

    def _can_replay(self) -> bool:
        """Whether the request can be sent again: nothing of it was taken, or that does no harm."""
        can_rewind = self._replay is None or self._replay.can_rewind
        return can_rewind and (self._is_replayable or self._nothing_taken)

    def _send(self, stream: Stream) -> Stream:
        """Send the head and what is there of the body in one go; an `Upload` sends the rest."""
        self._exchange.phase = Phase.SEND
        call, wire, body = self._call, self._wire, self._body
        remaining = call.watchdog.deadlines.remaining_total(self._call.watchdog.timers.now())
        if remaining <= 0:
            # Without this a request could leave whose answer nobody will wait for.
            raise ProxyError(Source.PROXY, Phase.SEND, Reason.TOTAL_TIMEOUT)
        fields = upstream_fields(
            call.request,
            call.origin,
            call.rules,
            upstream_host=self._lease.upstream.host_field,
            remaining_seconds=remaining,
        )
        data = wire.encode_head(call.request, fields, call.limits)
        if not body.complete and (piece := body.take_nowait()):
            data = b"".join((data, *wire.encode_data(piece)))
        ended = body.complete
        if ended:
            data += self._encode_request_end()
        self._request_sent = False
        try:
            sent = stream.send_nowait(data)
        except OSError:
            self._nothing_taken = True
            return stream  # an answer may have come before the reset: reading will tell
        unsent = data[sent:]
        if not (unsent or ended) and self._can_upload_at_once():
            try:
                unsent = upload_nowait(body, wire, stream)
            except OSError:
                return stream  # as above
            except ProxyError as exc:
                exc.__traceback__ = exc.__cause__ = None  # their frames hold this exchange
                call.watchdog.abort(exc)
                return stream
            if body.complete:
                self._encode_request_end()
                ended = True
        if unsent or not ended:
            self._start_upload(stream, unsent, ended)
        else:
            self._request_sent = True
        return stream

    def _can_upload_at_once(self) -> bool:
        """Whether the client sends a body of known length, and is not told to wait with it."""
        is_known = self._call.request.body.framing is Framing.LENGTH
        return is_known and not self._waits_for_continue()

    def _start_upload(self, stream: Stream, unsent: bytes, ended: bool) -> None:
        self._upload = Upload(
            self._exchange,
            self._body,
            self._wire,
            stream,
            self._call.watchdog,
            waits_for_continue=self._waits_for_continue(),
            encode_end=self._encode_request_end,
            on_change=self._on_upload_change,
        )
        self._lease.turn_began = math.inf  # when it has the whole request
        self._reader = UpstreamReader(self._call.watchdog)
        self._reader.is_uploading = self._is_uploading()
        sink = self._call.sink
        sink.hold_until(self._upload.done)
        sink.nursery.start_soon(self._upload.run, unsent, ended)

    def _waits_for_continue(self) -> bool:
        has_begun = self._replay is not None and self._replay.has_begun
        return self._call.request.expects_continue and not has_begun

    def _encode_request_end(self) -> bytes:
        if not self._body.trailers:
            return self._wire.encode_end()
        trailers = trailer_fields(
            self._body.trailers, self._call.request.options, self._call.rules.deadline_key
        )
        return self._wire.encode_end(trailers)

    def _on_upload_change(self) -> None:
        if self._exchange.phase in (Phase.SEND, Phase.AWAIT_HEAD):
            self._exchange.phase = self._phase_before_head()
        if self._upload is not None and self._upload.complete:
            self._lease.turn_began = self._call.watchdog.timers.now()
        if self._reader is not None:
            self._reader.turn_changed(is_uploading=self._is_uploading())

    def _phase_before_head(self) -> Phase:
        return Phase.SEND if self._is_uploading() else Phase.AWAIT_HEAD

    def _is_uploading(self) -> bool:
        return self._upload is not None and self._upload.is_moving

    async def _await_head(self, stream: Stream) -> ResponseHead:
        is_sent = self._upload is None
        self._exchange.phase = Phase.AWAIT_HEAD if is_sent else self._phase_before_head()
        wire = self._wire
        head: ResponseHead | None = None
        heard_anything = False
        interims = 0
        while True:
            if head is None or not wire.leftover:
                try:
                    data = await self._receive_later(stream)
                except (OSError, trio.ClosedResourceError) as exc:
                    failure = self._call.watchdog.try_failure(self._exchange)
                    raise failure or self._reset(str(exc), not heard_anything) from exc
                if not data:
                    detail = "closed before the response head was complete"
                    raise self._reset(detail, not heard_anything)
                heard_anything = True
                wire.feed(data)
            try:
                head = wire.next_response()
            except ProtocolError as error:
                raise malformed(error, self._exchange.phase) from error
            if head is None:
                continue
            if head.status >= 200 or head.status == 101:
                return head
            interims += 1
            await self._relay_interim(head, interims)

    def _receive_later(self, stream: Stream) -> Awaitable[bytes]:
        if self._reader is not None:
            return self._reader.receive_later(stream)
        return receive_later(stream, READ_SIZE, self._call.watchdog, "read")

    def _reset(self, detail: str, retryable: bool) -> ProxyError:
        phase = self._exchange.phase
        return ProxyError(
            Source.UPSTREAM, phase, Reason.CONNECTION_RESET, detail=detail, retryable=retryable
        )

    async def _relay_interim(self, head: ResponseHead, count: int) -> None:
        if count > MAX_INTERIM_RESPONSES:
            error = ProtocolError(Reason.RESPONSE_MALFORMED, "too many interim responses")
            raise malformed(error, self._exchange.phase)
        head.fields = interim_fields(head, self._call.origin.trace_id, time.time())
        if self._call.request.version == b"1.1":
            await self._call.sink.inform(head)
        if head.status == 100 and self._upload is not None:
            self._upload.continue_relayed()
            if self._replay is not None:
                self._replay.has_begun = True

    async def _relay(self, head: ResponseHead) -> Fields:
        sink, wire = self._call.sink, self._wire
        self._exchange.phase = Phase.STREAM
        if self._upload is not None:
            self._upload.answered = True
        head.fields = client_fields(head, self._call.origin.trace_id, time.time())
        sink.start(head)
        if not take_whole_body(wire, sink):
            reader = self._reader or UpstreamReader(self._call.watchdog)
            await relay_body(wire, self._stream, sink, reader)
        uploaded = self._request_sent if self._upload is None else self._upload.complete
        self._lease.reusable = head.keep_alive and uploaded and not wire.leftover
        return trailer_fields(wire.trailers, head.options) if wire.trailers else ()
