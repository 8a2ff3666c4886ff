"""What the random tests of retries can draw: requests, and what upstreams do try by try."""

from __future__ import annotations

from attrs import frozen
from hypothesis import strategies as st

from trio_proxy.policy.retry import IDEMPOTENT_METHODS
from trio_proxy.settings import Retry

#: What an upstream does with one try: at the dial, within the request, or instead of an answer.
STEPS = (
    *("refuse", "blackhole", "reset_at_once", "reset_in_head", "reset_in_body", "busy_in_body"),
    *("reset", "close", "hang", "busy", "busy_close", "hint_reset", "cut_head", "garbage"),
    *("cut_body", "cut_chunks", "ok", "ok", "ok_chunked", "ok_close", "hint_ok"),
)


@frozen
class Request:
    """What a client sends; ``gap`` is between its pieces, in milliseconds."""

    method: str
    chunked: bool
    size: int
    pieces: int
    gap: int
    expects: bool = False

    @property
    def is_post(self) -> bool:
        return self.method.encode() not in IDEMPOTENT_METHODS

    def body(self, number: int) -> bytes:
        if self.method not in ("PUT", "POST"):
            return b""
        mark = b"<%d>" % number
        return (mark * (self.size // len(mark) + 1))[: self.size]

    def parts(self, number: int) -> list[bytes]:
        """The request in pieces, the first of them its head."""
        body = self.body(number)
        step = max(1, -(-len(body) // self.pieces))
        parts = [body[at : at + step] for at in range(0, len(body), step)]
        head = b"%s /%d HTTP/1.1\r\nHost: a\r\n" % (self.method.encode(), number)
        if self.method not in ("PUT", "POST"):
            return [head + b"\r\n"]
        head += b"Expect: 100-continue\r\n" * self.expects
        if self.chunked:
            framed = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]
            return [head + b"Transfer-Encoding: chunked\r\n\r\n", *framed, b"0\r\nX-Sum: 1\r\n\r\n"]
        return [head + b"Content-Length: %d\r\n\r\n" % len(body), *parts]


@frozen
class Plan:
    """One run: the requests of one client, and what each upstream does, try by try."""

    seed: int
    scripts: tuple[tuple[str, ...], ...]
    requests: tuple[Request, ...]
    attempts: int = 3
    on: tuple[str, ...] = ("connect", "reset", "timeout", "503")
    replay_bytes: int = 65_536
    try_timeout_ms: int = 0
    unsafe_methods: bool = False
    latency: float = 0.0
    fragment: bool = False


# By chance

requests = st.builds(
    Request,
    method=st.sampled_from(["GET", "HEAD", "PUT", "PUT", "PUT", "POST", "POST", "DELETE"]),
    chunked=st.booleans(),
    size=st.sampled_from([0, 1, 100, 101, 5000, 60_000]),
    pieces=st.sampled_from([1, 1, 2, 7]),
    gap=st.sampled_from([0, 0, 1, 10, 100]),
    expects=st.sampled_from([False, False, False, True]),
)
plans = st.builds(
    Plan,
    seed=st.integers(0, 999),
    scripts=st.lists(
        st.lists(st.sampled_from(STEPS), max_size=6).map(tuple), min_size=1, max_size=3
    ).map(tuple),
    requests=st.lists(requests, min_size=1, max_size=4).map(tuple),
    attempts=st.sampled_from([1, 2, 3, 3, 5]),
    on=st.sampled_from([Retry().on, ("connect", "reset", "timeout", "503"), ("reset",), ()]),
    replay_bytes=st.sampled_from([0, 100, 5000, 65_536]),
    try_timeout_ms=st.sampled_from([0, 0, 300]),
    unsafe_methods=st.sampled_from([False, False, True]),
    latency=st.sampled_from([0.0, 0.001, 0.02]),
    fragment=st.sampled_from([False, False, True]),
)
