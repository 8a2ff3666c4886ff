"""The response on its way to an HTTP/1.1 client.

What is started and written is held until `flush`, so that a head and the body that came with it
leave in one send; a handler flushes before each wait, so nothing is held back that could go.
"""

from __future__ import annotations

import math

import trio

from trio_proxy.codec.h1.wire import ServerWire
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import Stream
from trio_proxy.exchange.transfer import LARGE_BYTES, let_others_run, send_borrowed, send_rest
from trio_proxy.exchange.watchdog import Watchdog
from trio_proxy.front.h1_body import ClientBody
from trio_proxy.front.service import Service
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.messages import Chunk, Field, Fields, Request, ResponseHead

_RATE_LIMIT = b"ratelimit"


def _is_of_rate_limit(field: Field) -> bool:
    return field[0].lower().startswith(_RATE_LIMIT)


class H1Sink:
    """`Sink` on one connection, for one exchange."""

    __slots__ = (
        "_exchange",
        "_pending",
        "_request",
        "_service",
        "_started",
        "_stream",
        "_wire",
        "body",
        "ended",
        "ends_by_close",
        "extra_fields",
        "holds",
        "keep_alive",
        "nursery",
        "switched",
        "watchdog",
    )

    def __init__(
        self,
        service: Service,
        stream: Stream,
        wire: ServerWire,
        exchange: Exchange,
        request: Request,
        body: ClientBody,
        watchdog: Watchdog,
        nursery: trio.Nursery,
    ) -> None:
        self.watchdog = watchdog
        self.nursery = nursery
        self.body = body
        self.extra_fields: list[Field] = []
        #: The client was told that it may send another request.
        self.keep_alive = False
        #: The whole response has been handed over.
        self.ended = False
        #: The stream carries another protocol now.
        self.switched = False
        #: The client takes the end of the connection for the end of the body (HTTP/1.0).
        self.ends_by_close = False
        #: Tasks of this exchange that must have ended before the connection goes on.
        self.holds: list[trio.Event] = []
        self._service = service
        self._stream = stream
        self._wire = wire
        self._exchange = exchange
        self._request = request
        self._pending: list[Chunk] = []
        self._started = False

    @property
    def relay_buffer(self) -> memoryview:
        return self._service.relay_buffer[: self._stream.piece_bytes]

    async def inform(self, head: ResponseHead) -> None:
        data = self._wire.encode_interim(head)
        # If this is cancelled half-way, nothing else may follow what has gone out.
        self._exchange.head_sent = True
        await self._send(data)
        self._exchange.head_sent = False

    def start(self, head: ResponseHead) -> None:
        # An answer that comes before the request has ended may be the last that the upstream wants
        # of it. What will be closed then has to be announced now (RFC 9112 §9.6).
        self.keep_alive = (
            self._request.keep_alive
            and self.body.complete
            and not self._service.draining
            and self._wire.can_keep_alive(head)
        )
        self.ends_by_close = not self._wire.can_keep_alive(head)
        self._started = True
        self._exchange.status = head.status
        if self.extra_fields:
            head.fields = [*head.fields, *self._extra_beside(head.fields)]
        self._pending.append(self._wire.encode_head(head, keep_alive=self.keep_alive))

    @property
    def fields_for_refusal(self) -> list[Field]:
        """The extra fields that an answer of the proxy's own has, too: the rate limit's."""
        return [field for field in self.extra_fields if _is_of_rate_limit(field)]

    def _extra_beside(self, fields: Fields) -> list[Field]:
        """The extra fields; those of a rate limit only where an upstream says nothing of its own.

        They are one statement, which must not be mixed with another.
        """
        if any(name.lower().startswith(_RATE_LIMIT) for name, _ in fields):
            return [field for field in self.extra_fields if not _is_of_rate_limit(field)]
        return self.extra_fields

    def write(self, data: bytes) -> None:
        self._pending.extend(self._wire.encode_data(data))
        self._exchange.body_bytes_sent += len(data)

    async def flush(self) -> None:
        pending = self._pending
        if not pending:
            return
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        pending.clear()
        self._exchange.head_sent = self._started
        sending = self._send(data)
        data = b""  # it is up to that for how long it is held
        await sending

    async def _send(self, data: Chunk) -> None:
        self._exchange.bytes_sent += len(data)
        began = self.watchdog.timers.now() if len(data) >= LARGE_BYTES else 0.0
        try:
            sent = self._stream.send_nowait(data)
            if sent < len(data):
                await send_rest(self._stream, data, sent, self.watchdog, "client_write")
            elif sent >= LARGE_BYTES:
                data = b""
                await let_others_run(began, sent, self.watchdog, "client_write")
            elif self.watchdog.is_winded():
                await self.watchdog.breathe("client_write")
        except (OSError, trio.ClosedResourceError) as exc:
            raise self._gone(exc) from exc

    async def send_through(self, view: memoryview) -> None:
        await self.flush()
        self._wire.encode_data(view)  # of known length, so h11 counts it and adds nothing
        self._exchange.body_bytes_sent += len(view)
        self._exchange.bytes_sent += len(view)
        try:
            await send_borrowed(self._stream, view, self.watchdog, "client_write")
        except (OSError, trio.ClosedResourceError) as exc:
            raise self._gone(exc) from exc

    async def end(self, trailers: Fields = ()) -> None:
        if self.switched:
            return
        if end := self._wire.encode_end(trailers):
            self._pending.append(end)
        if self._pending:
            await self.flush()
        self.ended = True

    async def switch_protocols(self, head: ResponseHead) -> tuple[Stream, bytes]:
        self._exchange.status = head.status
        self._exchange.head_sent = True
        self.switched = True
        head.fields = [*head.fields, *self._extra_beside(head.fields)]
        await self._send(self._wire.encode_interim(head))
        self.watchdog.deadlines.stop_total()
        self.watchdog.due = math.inf
        leftover = self._wire.take_leftover()
        self._exchange.bytes_received -= len(leftover)  # the tunnel counts what it carries
        return self._stream, leftover

    def hold_until(self, done: trio.Event) -> None:
        self.holds.append(done)

    def _gone(self, exc: Exception) -> ProxyError:
        phase = self._exchange.phase
        return ProxyError(Source.CLIENT, phase, Reason.CLIENT_GONE, detail=str(exc))
