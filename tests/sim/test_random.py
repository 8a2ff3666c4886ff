"""Chance drives clients, upstreams and the network through the whole proxy; the invariants hold.

- Every request is answered completely and with the body that was meant for it, or its connection
  is visibly cut. Bodies are made of the request's number, so a mix-up of two cannot hide.
- An upstream sees nothing but requests that were meant, with the beginnings of their bodies, and
  one that must not be repeated only once.
- A failure has a cause: a well-behaved upstream and client get a proper answer.
- No exchange exceeds its budgets, and one ended exchange belongs to each request that was begun.
- Nothing is left behind (see `world`).

A failing example prints as a `Plan`: give it to `play`. ``TRIO_PROXY_EXAMPLES=20000`` searches
longer and by chance.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Literal

import trio
from attrs import evolve, field, frozen
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scenario import now_ms
from world import PROXY, Message, Speaker, World, run, settings_for, world

from trio_proxy.errors import Reason
from trio_proxy.settings import Limits, Timeouts
from trio_proxy.testing import SimNet

EXAMPLES = int(os.environ.get("TRIO_PROXY_EXAMPLES", "0"))
UPSTREAMS = ("10.1.0.1:9000", "10.1.0.2:9000")
BUDGETS = Timeouts(
    **dict(connect_ms=500, read_ms=1000, write_ms=1000, total_ms=4000, head_ms=1000, body_ms=1000),
    **dict(idle_ms=3000, upstream_idle_ms=400, tunnel_idle_ms=1000, drain_ms=2000),
)

#: From the first byte of a request to the end of its exchange: head, total, the proxy's own answer.
LONGEST_SECONDS = 1 + 4 + 1 + 0.001

Fault = Literal["hang", "silent", "drop", "reset", "cut", "cut_reset", "garbage", "trailing", ""]

#: What an upstream may do, beside an answer in order.
FAULTS: tuple[Fault, ...] = (
    "hang",  # reads nothing and says nothing
    "silent",  # reads the request and says nothing
    "drop",  # closes instead of answering
    "reset",
    "cut",  # closes inside its answer
    "cut_reset",
    "garbage",  # answers with something that is not HTTP
    "trailing",  # sends another answer, that nobody asked for, behind its own
)


@frozen
class Exchange:
    """One request and what its upstream does about it; times in milliseconds."""

    method: str
    framing: str
    size: int
    pieces: int
    gap: int
    expects: bool
    answer: str
    answer_size: int
    answer_pieces: int
    answer_gap: int
    delay: int
    interim: int
    early: bool
    keep: bool
    fault: Fault
    cut_at: int

    def request(self, number: int, version: bytes) -> list[bytes]:
        """The request in pieces."""
        head = b"%s /%d HTTP/%s\r\nHost: a\r\n" % (self.method.encode(), number, version)
        if version == b"1.0":
            head += b"Connection: keep-alive\r\n"
        body = self.request_body(number)
        if self.has_body:
            head += b"Expect: 100-continue\r\n" * self.expects
            chunked = self.framing == "chunked" and version == b"1.1"
            head += b"Transfer-Encoding: chunked\r\n" if chunked else b""
            head += b"" if chunked else b"Content-Length: %d\r\n" % len(body)
            body = chunks(body) if chunked else body
        return cut_up(head + b"\r\n" + body, self.pieces)

    @property
    def has_body(self) -> bool:
        return self.method in ("POST", "PUT")

    def request_body(self, number: int) -> bytes:
        return text(b"request", number, self.size) if self.has_body else b""

    def answer_body(self, number: int) -> bytes:
        return text(b"answer", number, self.answer_size)

    def response(self, number: int) -> bytes:
        """The answer, byte for byte, as the upstream sends it."""
        body = self.answer_body(number)
        head = b"HTTP/1.1 200 OK\r\nX-Number: %d\r\n" % number
        if not self.keep or self.answer == "close":
            head += b"Connection: close\r\n"
        if self.answer == "length":
            head += b"Content-Length: %d\r\n" % len(body)
        elif self.answer == "chunked":
            head, body = head + b"Transfer-Encoding: chunked\r\n", chunks(body)
        return head + b"\r\n" + (b"" if self.method == "HEAD" else body)


@frozen
class Client:
    """Requests on one connection, and how it ends."""

    start: int
    version: bytes
    exchanges: tuple[Exchange, ...]
    pipelines: bool
    half_closes: bool
    leaves_at: int | None
    by_reset: bool
    reads_slowly: bool


@frozen
class Line:
    """What a network link is like."""

    latency: float = 0.0
    bandwidth: float = float("inf")
    buffer: int = 65536
    jitter: float = 0.0
    fragment: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether what is sent together arrives together."""
        return self == Line(latency=self.latency)


@frozen
class Plan:
    """One run."""

    seed: int
    clients: tuple[Client, ...]
    client_line: Line = Line()
    upstream_line: Line = Line()
    max_conns: int = 2
    max_queue: int = 100
    max_clients: int = 100
    reloads: tuple[tuple[int, int, int], ...] = ()
    drain_at: int | None = None
    refused_until: int = 0


def text(kind: bytes, number: int, size: int) -> bytes:
    mark = b"<%s %d>" % (kind, number)
    return (mark * (size // len(mark) + 1))[:size]


def chunks(body: bytes) -> bytes:
    """In chunk framing, with chunks of growing size."""
    out, start, size = b"", 0, 3
    while start < len(body):
        piece = body[start : start + size]
        out += b"%x\r\n%s\r\n" % (len(piece), piece)
        start, size = start + size, size * 5
    return out + b"0\r\n\r\n"


def cut_up(data: bytes, pieces: int) -> list[bytes]:
    step = max(1, -(-len(data) // pieces))
    return [data[at : at + step] for at in range(0, len(data), step)]


# The parts


@frozen
class Upstreams:
    """What all upstreams do, by the number in the request's target."""

    plan: Plan
    script: dict[int, Exchange]
    #: Requests that were read to their end, as often as they came.
    received: list[int] = field(factory=list)

    async def serve(self, peer: Speaker) -> None:
        while await self._serve_one(peer):
            pass

    async def _serve_one(self, peer: Speaker) -> bool:
        head = await peer.read_head()
        method, target, _ = head.start.split()
        number = int(target[1:])
        one = self.script[number]
        assert method.decode() == one.method
        assert b"content-length" not in head or b"transfer-encoding" not in head
        if one.fault == "hang":
            await trio.sleep(60)
            return False
        if one.interim:
            await peer.send(b"HTTP/1.1 %d Wait\r\n\r\n" % one.interim)
        if b"expect" in head and not one.early:
            await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not one.early:
            await self._read_body(peer, head, number)
        await trio.sleep(one.delay / 1000)
        if one.fault == "silent":
            await trio.sleep(60)
        return await self._answer(peer, one, number) and not one.early

    async def _read_body(self, peer: Speaker, head: Message, number: int) -> None:
        expected, received = self.script[number].request_body(number), b""
        if b"content-length" in head:
            assert int(head[b"content-length"]) == len(expected)
        chunked = b"transfer-encoding" in head
        while chunked or len(received) < len(expected):
            piece = await (peer.read_chunk() if chunked else peer.receive_some(len(expected)))
            received += piece
            assert expected.startswith(received)
            if not piece:
                if not chunked:
                    raise EOFError
                assert await peer.receive_until(b"\r\n") == b"\r\n"
                break
        assert received == expected
        self.received.append(number)

    async def _answer(self, peer: Speaker, one: Exchange, number: int) -> bool:
        if one.fault == "drop":
            return False
        if one.fault == "reset":
            peer.abort()
            return False
        if one.fault == "garbage":
            await peer.send(b"<garbage %d>\r\n\r\n" % number)
            return True
        data = one.response(number)
        if one.fault in ("cut", "cut_reset"):
            # An orderly end is the proper end of a body that ends with the connection.
            reset = one.fault == "cut_reset" or one.answer == "close"
            peer.stream.cut_after(one.cut_at % len(data), reset=reset)
        if one.fault == "trailing" and self.plan.upstream_line.is_clean and len(data) < 60_000:
            # All in one go, or else the proxy has no way to tell it from the next answer.
            await peer.send(data + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
            return one.keep
        for piece in cut_up(data, one.answer_pieces):
            await peer.send(piece)
            await trio.sleep(one.answer_gap / 1000)
        return one.keep and one.answer != "close"


@frozen
class Visitor:
    """A client at work."""

    w: World
    client: Client
    numbers: range
    answers: dict[int, Message]
    answered: list[trio.Event] = field(factory=list)

    async def run(self) -> None:
        client = self.client
        self.answered.extend(trio.Event() for _ in self.numbers)
        await trio.sleep(client.start / 1000)
        leaves_at = 10**6 if client.leaves_at is None else client.leaves_at / 1000
        with trio.move_on_after(leaves_at), suppress(ConnectionRefusedError):
            await self._visit(await self.w.client())

    async def _visit(self, peer: Speaker) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_all, peer)
                await self._read_all(peer)
                nursery.cancel_scope.cancel()
        finally:
            if self.client.by_reset:
                peer.abort()
            peer.close()

    async def _send_all(self, peer: Speaker) -> None:
        with suppress(OSError, trio.ClosedResourceError):
            for index, number in enumerate(self.numbers):
                one = self.client.exchanges[index]
                for piece in one.request(number, self.client.version):
                    await peer.send(piece)
                    await trio.sleep(one.gap / 1000)
                if not self.client.pipelines:
                    await self.answered[index].wait()
            if self.client.half_closes and self.client.pipelines:
                peer.send_eof()

    async def _read_all(self, peer: Speaker) -> None:
        """Read answers in order until the connection ends; none but whole ones are kept."""
        with suppress(OSError, EOFError):
            for index, number in enumerate(self.numbers):
                if self.client.reads_slowly:
                    await trio.sleep(0.3)
                message = await self._read_answer(peer, self.client.exchanges[index], number)
                self.answers[number] = message
                self.answered[index].set()
                if message.all(b"connection") == [b"close"] or not framed(message):
                    return

    async def _read_answer(self, peer: Speaker, one: Exchange, number: int) -> Message:
        while (head := await peer.read_head()).status < 200:
            assert head.status in (100, one.interim)
        assert (b"proxy-status" in head) == (head.status != 200)
        if head.status == 200:
            assert head[b"x-number"] == b"%d" % number
        if one.method == "HEAD":
            return head
        message = await peer._with_body(head, until_close=True)
        assert head.status != 200 or message.body == one.answer_body(number)
        return message


def framed(message: Message) -> bool:
    return b"content-length" in message or b"transfer-encoding" in message


# The run and its verdict


async def play(plan: Plan) -> None:
    """Run a plan and check the invariants."""
    script: dict[int, Exchange] = {}
    numbers: list[range] = []
    for client in plan.clients:
        numbers.append(range(len(script), len(script) + len(client.exchanges)))
        script.update(zip(numbers[-1], client.exchanges, strict=True))
    net = SimNet(seed=plan.seed)
    net.link(PROXY, **vars_of(plan.client_line))
    for name in UPSTREAMS:
        net.link(name, **vars_of(plan.upstream_line))
    upstreams = Upstreams(plan, script)
    answers: dict[int, Message] = {}
    async with world(
        upstreams=UPSTREAMS, network=net, timeouts=BUDGETS, limits=limits(plan, plan.max_conns)
    ) as w:
        for upstream in w.upstreams:
            upstream.run(upstreams.serve)
        w.helpers.start_soon(intervene, w, plan)
        async with trio.open_nursery() as nursery:
            for client, own in zip(plan.clients, numbers, strict=True):
                nursery.start_soon(Visitor(w, client, own, answers).run)
    check_exchanges(w, plan, script, answers)
    for number in set(upstreams.received):
        times = upstreams.received.count(number)
        assert times == 1 or script[number].method != "POST", f"POST {number} came {times} times"


def vars_of(line: Line) -> dict[str, float]:
    return {name: getattr(line, name) for name in Line.__slots__ if not name.startswith("_")}


def limits(plan: Plan, max_conns: int) -> Limits:
    return Limits(
        max_conns_per_upstream=max_conns,
        max_queue=plan.max_queue,
        queue_ms=800,
        max_client_conns=plan.max_clients,
    )


async def intervene(w: World, plan: Plan) -> None:
    """Refusals, reloads and the drain at their times."""
    for name in UPSTREAMS if plan.refused_until else ():
        w.net.refuse(name)
    events = [(at, "reload", which, max_conns) for at, which, max_conns in plan.reloads]
    events += [(plan.refused_until, "heal", 0, 0)]
    events += [(plan.drain_at, "drain", 0, 0)] if plan.drain_at is not None else []
    for at, what, which, max_conns in sorted(events):
        await trio.sleep_until(at / 1000)
        if what == "heal":
            for name in UPSTREAMS:
                w.net.heal(name)
        elif what == "drain":
            before = now_ms()
            await w.proxy.drain()
            assert now_ms() - before <= BUDGETS.drain_ms + 1000
            return
        elif not w.proxy.service.draining:
            names = (UPSTREAMS, UPSTREAMS[:1], UPSTREAMS[1:], UPSTREAMS[::-1])[which]
            bounds = limits(plan, max_conns)
            await w.reload(settings_for(names, timeouts=BUDGETS, limits=bounds))


#: What the network, the crowd or the client's own pace can always cause.
ALWAYS_POSSIBLE = {
    Reason.CLIENT_GONE,
    Reason.CLIENT_STALLED,
    Reason.QUEUE_FULL,
    Reason.QUEUE_TIMEOUT,
    Reason.CONNECT_TIMEOUT,
    Reason.READ_TIMEOUT,
    Reason.WRITE_TIMEOUT,
    Reason.TOTAL_TIMEOUT,
    Reason.HEAD_TIMEOUT,
    Reason.BODY_TIMEOUT,
}


def possible(plan: Plan, one: Exchange) -> set[Reason]:
    """The failures that this exchange may end in."""
    reasons = set(ALWAYS_POSSIBLE)
    if plan.drain_at is not None or plan.reloads:
        reasons.add(Reason.SHUTTING_DOWN)
    if plan.refused_until:
        reasons.add(Reason.CONNECTION_REFUSED)
    # A request that must not be repeated may meet a pooled connection that is just closing.
    if one.method == "POST" or one.expects or one.fault or one.early:
        reasons.add(Reason.CONNECTION_RESET)
    if one.fault in ("cut", "cut_reset") or one.early:
        reasons.add(Reason.RESPONSE_TRUNCATED)
    if one.fault == "garbage":
        reasons.add(Reason.RESPONSE_MALFORMED)
    return reasons


def check_exchanges(
    w: World, plan: Plan, script: dict[int, Exchange], answers: dict[int, Message]
) -> None:
    for ended in w.exchanges:
        assert ended.ended_at - ended.started_at <= LONGEST_SECONDS
        if ended.target == "-":
            continue
        number = int(ended.target[1:])
        reason = ended.error and ended.error.reason
        assert reason is None or reason in possible(plan, script[number]), (number, ended)
        if number in answers and answers[number].status == 200:
            assert ended.status == 200
        if reason is None:
            assert ended.status == 200
            assert script[number].fault not in ("hang", "silent", "drop", "reset", "garbage")
    told = [int(ended.target[1:]) for ended in w.exchanges if ended.target != "-"]
    assert len(told) == len(set(told))
    assert set(answers) <= set(told) | {n for n, m in answers.items() if m.status == 408}
    assert w.proxy.stats.responses[5] == sum(
        ended.status >= 500 and (ended.head_sent or ended.status != 499) for ended in w.exchanges
    )


# By chance

few_ms = st.sampled_from([0, 0, 0, 1, 10, 100, 300])
sizes = st.sampled_from([0, 1, 100, 100, 5000, 30_000, 150_000])
pieces = st.sampled_from([1, 1, 1, 2, 5])

exchanges = st.builds(
    Exchange,
    method=st.sampled_from(["GET", "GET", "HEAD", "POST", "POST", "PUT"]),
    framing=st.sampled_from(["length", "chunked"]),
    size=sizes,
    pieces=pieces,
    gap=few_ms,
    expects=st.sampled_from([False, False, False, True]),
    answer=st.sampled_from(["length", "length", "chunked", "close"]),
    answer_size=sizes,
    answer_pieces=pieces,
    answer_gap=few_ms,
    delay=few_ms,
    interim=st.sampled_from([0, 0, 0, 102, 103]),
    early=st.sampled_from([False, False, False, True]),
    keep=st.sampled_from([True, True, False]),
    fault=st.sampled_from([*[""] * len(FAULTS), *FAULTS]),
    cut_at=st.integers(0, 200_000),
)
clients = st.builds(
    Client,
    start=st.integers(0, 1000),
    version=st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]),
    exchanges=st.lists(exchanges, min_size=1, max_size=4).map(tuple),
    pipelines=st.booleans(),
    half_closes=st.booleans(),
    leaves_at=st.none() | st.none() | st.integers(0, 2000),
    by_reset=st.booleans(),
    reads_slowly=st.booleans(),
)
lines = st.sampled_from(
    [
        Line(),
        Line(),
        Line(latency=0.001),
        Line(latency=0.05, jitter=0.03),
        Line(latency=0.01, bandwidth=1e6),
        Line(bandwidth=1e5, buffer=20_000),
        Line(buffer=1000),
        Line(fragment=True),
        Line(latency=0.002, buffer=3000, fragment=True),
    ]
)


def bounded(plan: Plan) -> Plan:
    """Without large bodies on a link that moves a few bytes at a time: they only cost time."""
    narrow = any(
        line.fragment or line.buffer < 4096 for line in (plan.client_line, plan.upstream_line)
    )

    def smaller(one: Exchange) -> Exchange:
        return evolve(one, size=min(one.size, 5000), answer_size=min(one.answer_size, 5000))

    def calmer(client: Client) -> Client:
        return evolve(client, exchanges=tuple(map(smaller, client.exchanges)))

    return evolve(plan, clients=tuple(map(calmer, plan.clients))) if narrow else plan


plans = st.builds(
    Plan,
    seed=st.integers(0, 999),
    clients=st.lists(clients, min_size=1, max_size=6).map(tuple),
    client_line=lines,
    upstream_line=lines,
    max_conns=st.sampled_from([1, 2, 50]),
    max_queue=st.sampled_from([0, 1, 100, 100]),
    max_clients=st.sampled_from([1, 3, 100, 100]),
    reloads=st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 3), st.integers(1, 5)), max_size=2
    ).map(tuple),
    drain_at=st.none() | st.none() | st.integers(0, 2000),
    refused_until=st.sampled_from([0, 0, 0, 500]),
).map(bounded)


@settings(
    max_examples=EXAMPLES or 250,
    derandomize=not EXAMPLES,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(plan=plans)
def test_whatever_happens_the_invariants_hold(plan: Plan) -> None:
    """See the top of this file."""
    run(play, plan)


_ = example  # a plan that failed once can be pinned above
