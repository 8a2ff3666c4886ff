"""One request on one upstream connection: send it, await the head, relay the answer.

A request without a body, or with one that is sent in one go, runs in the exchange's main task
alone. Only a body that has to be waited for gets a second task (`Upload`), because an upstream
may answer before it has read everything, and a stalled upload must not hide that answer.
"""

from __future__ import annotations

import trio

from trio_proxy.contract import Sink
from trio_proxy.errors import ProtocolError, ProxyError, Reason, Source
from trio_proxy.forwarding import HeaderRules, Origin
from trio_proxy.headers import client_fields, interim_fields, trailer_fields, upstream_fields
from trio_proxy.lifecycle import STALE, Exchange, Phase, Try
from trio_proxy.messages import Fields, Request, ResponseHead
from trio_proxy.net.streams import Stream
from trio_proxy.upstream.answer import UpstreamReader, malformed, relay_body
from trio_proxy.upstream.cluster import Lease
from trio_proxy.upstream.switch import switch_protocols
from trio_proxy.upstream.upload import Upload
from trio_proxy.wire.h1 import ClientWire
from trio_proxy.wire.requests import HeadLimits

#: Interim responses relayed for one request; nobody needs more, and each costs the client a head.
MAX_INTERIM_RESPONSES = 32

#: Methods that may be sent again when a pooled connection turns out to be dead (RFC 9110 §9.2.2).
IDEMPOTENT_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))


class UpstreamExchange:
    """Drives one lease through one request. Raises ProxyError from `await_head` and `relay`."""

    def __init__(
        self,
        lease: Lease,
        exchange: Exchange,
        request: Request,
        origin: Origin,
        sink: Sink,
        rules: HeaderRules,
        limits: HeadLimits,
    ) -> None:
        self._lease = lease
        self._exchange = exchange
        self._request = request
        self._origin = origin
        self._sink = sink
        self._rules = rules
        self._limits = limits
        self._upload: Upload | None = None
        self._reader = UpstreamReader(sink.watchdog, self._is_uploading)
        #: What was sent of the body with the head, kept while it may have to be sent again.
        self._first_piece = b""
        self._nothing_taken = False
        self._request_ended = False
        self._tried_at = 0.0
        self._record: Try

    @property
    def _wire(self) -> ClientWire:
        return self._lease.connection.wire

    async def run(self) -> Fields:
        """Relay the whole answer into the sink but for its end; its trailers are returned.

        Marks the lease reusable if the connection can take another request.
        """
        self._start_try()
        try:
            head = await self._head_with_free_retry()
            self._record.outcome = str(head.status)
            self._record.head_seconds = trio.current_time() - self._tried_at
            if head.status == 101:
                head.fields = interim_fields(head, self._origin.trace_id)
                stream = await self._lease.stream()
                await switch_protocols(head, stream, self._wire, self._sink, self._exchange)
                return ()
            return await self._relay(head)
        finally:
            self._end_try()
            if self._upload is not None:
                self._upload.stop()

    def _start_try(self) -> None:
        self._record = Try(self._exchange.upstream)
        self._exchange.tries.append(self._record)
        self._tried_at = trio.current_time()

    def _end_try(self) -> None:
        self._record.seconds = trio.current_time() - self._tried_at

    async def _head_with_free_retry(self) -> ResponseHead:
        """The final response head; a pooled connection that was dead already is replaced once."""
        reused = self._lease.connection.stream is not None
        stream = await self._lease.stream()
        try:
            await self._send(stream)
            return await self._await_head(stream)
        except ProxyError as exc:
            if not (reused and exc.retryable and self._can_replay()):
                raise
        await self._give_up_stale_try()
        self._start_try()
        stream = await self._lease.stream()
        await self._send(stream)
        return await self._await_head(stream)

    async def _give_up_stale_try(self) -> None:
        self._record.outcome = STALE
        self._end_try()
        self._lease.start_afresh()
        if self._upload is not None:
            self._upload.stop()
            await self._upload.done.wait()
            self._upload = None

    def _can_replay(self) -> bool:
        """Whether the request can be sent again: nothing of it was taken, or that does no harm."""
        harmless = self._nothing_taken or self._request.method in IDEMPOTENT_METHODS
        return harmless and (self._upload is None or self._request_ended)

    async def _send(self, stream: Stream) -> None:
        """Send the head and what is there of the body in one go; an `Upload` sends the rest."""
        self._exchange.phase = Phase.SEND
        sink, wire, body = self._sink, self._wire, self._sink.body
        remaining = sink.watchdog.deadlines.remaining_total(trio.current_time())
        if remaining <= 0:
            # Without this a request could leave whose answer nobody will wait for.
            raise ProxyError(Source.PROXY, Phase.SEND, Reason.TOTAL_TIMEOUT)
        fields = upstream_fields(
            self._request,
            self._origin,
            self._rules,
            upstream_host=self._lease.connection.upstream.host_field,
            remaining_seconds=remaining,
        )
        data = wire.encode_head(self._request, fields, self._limits)
        if not body.complete:
            self._first_piece += body.take_nowait()
        if self._first_piece:
            data = b"".join((data, *wire.encode_data(self._first_piece)))
        if body.complete:
            data += self._encode_request_end()
            self._request_ended = True
        try:
            sent = stream.send_nowait(data)
        except OSError:
            self._nothing_taken = True
            return  # an answer may have come before the reset: reading will tell
        if sent < len(data) or not self._request_ended:
            self._start_upload(stream, data[sent:])

    def _start_upload(self, stream: Stream, unsent: bytes) -> None:
        self._upload = Upload(
            self._exchange,
            self._sink.body,
            self._wire,
            stream,
            self._sink.watchdog,
            waits_for_continue=self._request.expects_continue,
            encode_end=self._encode_request_end,
            on_change=self._on_upload_change,
        )
        self._sink.hold_until(self._upload.done)
        self._sink.nursery.start_soon(self._upload.run, unsent, self._request_ended)

    def _encode_request_end(self) -> bytes:
        trailers = trailer_fields(
            self._sink.body.trailers, self._request.options, self._rules.deadline_key
        )
        return self._wire.encode_end(trailers)

    def _on_upload_change(self) -> None:
        if self._exchange.phase in (Phase.SEND, Phase.AWAIT_HEAD):
            self._exchange.phase = self._phase_before_head()
        self._reader.turn_changed()

    def _phase_before_head(self) -> Phase:
        return Phase.SEND if self._is_uploading() else Phase.AWAIT_HEAD

    def _is_uploading(self) -> bool:
        return self._upload is not None and self._upload.is_moving

    async def _await_head(self, stream: Stream) -> ResponseHead:
        self._exchange.phase = self._phase_before_head()
        heard_anything = False
        interims = 0
        while True:
            try:
                head = self._wire.next_response()
            except ProtocolError as exc:
                raise malformed(exc, self._exchange.phase) from exc
            if head is None:
                data = await self._receive_head_bytes(stream, first=not heard_anything)
                heard_anything = True
                self._wire.feed(data)
            elif head.status >= 200 or head.status == 101:
                return head
            else:
                interims += 1
                await self._relay_interim(head, interims)

    async def _receive_head_bytes(self, stream: Stream, *, first: bool) -> bytes:
        try:
            data = await self._reader.receive_later(stream)
        except (OSError, trio.ClosedResourceError) as exc:
            raise self._reset(str(exc), first) from exc
        if not data:
            raise self._reset("closed before the response head was complete", first)
        return data

    def _reset(self, detail: str, retryable: bool) -> ProxyError:
        phase = self._exchange.phase
        return ProxyError(
            Source.UPSTREAM, phase, Reason.CONNECTION_RESET, detail=detail, retryable=retryable
        )

    async def _relay_interim(self, head: ResponseHead, count: int) -> None:
        if count > MAX_INTERIM_RESPONSES:
            error = ProtocolError(Reason.RESPONSE_MALFORMED, "too many interim responses")
            raise malformed(error, self._exchange.phase)
        head.fields = interim_fields(head, self._origin.trace_id)
        if self._request.version == b"1.1":
            await self._sink.inform(head)
        if head.status == 100 and self._upload is not None:
            self._upload.continue_relayed()

    async def _relay(self, head: ResponseHead) -> Fields:
        exchange, sink, wire = self._exchange, self._sink, self._wire
        exchange.phase = Phase.STREAM
        if self._upload is not None:
            self._upload.answered = True
        stream = await self._lease.stream()
        head.fields = client_fields(head, self._origin.trace_id)
        sink.start(head)
        await relay_body(wire, stream, sink, self._reader)
        uploaded = self._upload is None or self._upload.complete
        self._lease.reusable = head.keep_alive and uploaded and not wire.leftover
        return trailer_fields(wire.trailers, head.options)
