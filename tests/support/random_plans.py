"""What the random tests can draw: clients, what their upstreams do, links, and events."""

from __future__ import annotations

from typing import Literal

from attrs import evolve, frozen
from hypothesis import strategies as st

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
    bandwidth: float | None = None
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
