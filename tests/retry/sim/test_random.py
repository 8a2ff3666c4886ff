"""Chance drives upstreams that fail in every way, and requests with bodies, through the retries.

- A client gets exactly one answer to each request: a whole one, or one that is visibly cut off.
- Whoever gave it had the whole body: its answer says what it has read.
- An upstream never sees a byte that was not meant, and a POST only once.
- There are no more tries than attempts, beside those that met a stale connection.
- What was followed by another try is a condition that is listed; nothing is late; nothing is left.

A failing example prints as a `Plan`, which is code: give it to `play`.
``TRIO_PROXY_EXAMPLES=20000`` searches longer and by chance.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress

import trio
from attrs import field, frozen
from hypothesis import HealthCheck, given, settings

from support.conversation import Message, ScriptedUpstream, Speaker
from support.failing import send_slowly, steady
from support.retry_plans import Plan, Request, plans
from support.scenario import only
from support.world import PROXY, World, run, world
from trio_proxy.exchange.exchange import STALE, Exchange
from trio_proxy.http.addresses import Address
from trio_proxy.settings import Retry
from trio_proxy.testing import SimNet, SimStream

EXAMPLES = int(os.environ.get("TRIO_PROXY_EXAMPLES", "0"))
BUDGETS = only(connect_ms=200, read_ms=400, write_ms=400, body_ms=900, total_ms=3000)

OUTCOMES = {
    "connect": {"connection_refused", "connect_timeout"},
    "reset": {"connection_reset"},
    "timeout": {"read_timeout", "write_timeout", "try_timeout"},
    "503": {"503"},
}


class Upstreams(SimNet):
    """A network whose upstreams follow a plan, and what they saw."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(seed=plan.seed, latency=plan.latency)
        self.plan = plan
        self.scripts: dict[str, Iterator[str]] = {}
        #: How often a request's head was read, and how often all of it.
        self.heads: Counter[int] = Counter()
        self.wholes: Counter[int] = Counter()
        self.waiting: defaultdict[str, list[str]] = defaultdict(list)

    def step(self, name: str) -> str:
        """The next step of an upstream; a healthy answer when its script is over."""
        return self.waiting[name].pop() if self.waiting[name] else next(self.scripts[name], "ok")

    async def dial(self, address: Address | str, *, source: str = "127.0.0.1") -> SimStream:
        name = str(address)
        if name in self.scripts:
            step = self.step(name)
            if step == "refuse":
                raise ConnectionRefusedError(111, "refused")
            if step == "blackhole":
                await trio.sleep_forever()
            self.waiting[name].append(step)
        return await super().dial(address, source=source)

    def follow(self, upstream: ScriptedUpstream, script: tuple[str, ...]) -> None:
        self.scripts[upstream.name] = iter(script)

        async def talk(peer: Speaker) -> None:
            while await self._serve(peer, upstream.name):
                pass

        upstream.run(talk)

    async def _serve(self, peer: Speaker, name: str) -> bool:
        """Do one step with one request; whether the connection goes on."""
        await peer.stream.wait_readable()
        step = self.step(name)
        if step in ("reset_at_once", "refuse", "blackhole"):
            peer.abort()
            return False
        head = await peer.read_head()
        number = int(head.start.split()[1][1:])
        self.heads[number] += 1
        expected = self.plan.requests[number].body(number)
        if step == "reset_in_head":
            peer.abort()
            return False
        if step.startswith("hint"):
            await peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        if b"expect" in head and step != "busy_in_body":
            await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if step.endswith("_in_body"):
            received = await self._begin_of_body(peer, head, len(expected) // 2)
            assert expected.startswith(received)
            await self._answer(peer, step.removesuffix("_in_body"), b"", head)
            await peer.receive_all()
            return False
        whole = await peer.with_body(head, until_close=False)
        assert whole.body == expected
        assert bool(whole.trailers) == (b"transfer-encoding" in head)
        self.wholes[number] += 1
        return await self._answer(peer, step, whole.body, head)

    async def _begin_of_body(self, peer: Speaker, head: Message, count: int) -> bytes:
        received = b""
        while len(received) < count:
            chunked = b"transfer-encoding" in head
            received += await (peer.read_chunk() if chunked else peer.receive_some(count))
        return received

    async def _answer(self, peer: Speaker, step: str, body: bytes, head: Message) -> bool:
        text = b"%s %d" % (head.start.split()[1][1:], zlib.crc32(body))
        content = b"" if head.start.startswith(b"HEAD ") else text
        length = b"Content-Length: %d\r\n\r\n" % len(text)
        chunked = b"Transfer-Encoding: chunked\r\n\r\n"
        chunks = b"%x\r\n%s\r\n" % (len(text), text) if content else b""
        match step:
            case "reset":
                peer.abort()
            case "hint_reset":
                await trio.sleep(0.01)  # a reset would take the hints with it
                peer.abort()
            case "hang":
                while await peer.receive_some():
                    pass
            case "busy":
                await peer.send(b"HTTP/1.1 503 Busy\r\n" + length + content)
                return True
            case "busy_close":
                await peer.send(b"HTTP/1.1 503 Busy\r\nConnection: close\r\n" + length + content)
            case "cut_head":
                await peer.send(b"HTTP/1.1 200 OK\r\nConte")
            case "garbage":
                await peer.send(b"garbage\r\n\r\n")
            case "cut_body":
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + content)
            case "cut_chunks":
                await peer.send(b"HTTP/1.1 200 OK\r\n" + chunked + chunks)
            case "ok_chunked":
                end = b"0\r\n\r\n" if content else b""
                await peer.send(b"HTTP/1.1 200 OK\r\n" + chunked + chunks + end)
                return True
            case "ok_close":
                await peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + content)
            case "ok" | "hint_ok":
                await peer.send(b"HTTP/1.1 200 OK\r\n" + length + content)
                return True
        return False


@frozen
class Client:
    """Sends the requests one after the other, on as few connections as it may."""

    w: World
    plan: Plan
    #: What came of each: a message, or None for an answer that was cut off.
    answers: dict[int, Message | None] = field(factory=dict)

    async def run(self) -> None:
        peer = await self.w.client()
        for number, request in enumerate(self.plan.requests):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, peer, request, number)
                answer = self.answers[number] = await self._read(peer, request)
                nursery.cancel_scope.cancel()
            if answer is None or b"close" in answer.all(b"connection") or not is_framed(answer):
                peer.close()
                peer = await self.w.client()
        peer.close()

    async def _send(self, peer: Speaker, request: Request, number: int) -> None:
        with suppress(OSError, trio.ClosedResourceError):
            await send_slowly(peer, request.parts(number), request.gap / 1000)

    async def _read(self, peer: Speaker, request: Request) -> Message | None:
        while (head := await peer.read_head()).status < 200:
            assert head.status in (100, 103)
        if request.method == "HEAD":
            return head
        try:
            return await peer.with_body(head, until_close=True)
        except (EOFError, OSError):
            return None


def is_framed(message: Message) -> bool:
    return b"content-length" in message or b"transfer-encoding" in message


async def play(plan: Plan) -> None:
    """Run a plan and check what is said at the top of this file."""
    net = Upstreams(plan)
    net.link(PROXY, fragment=plan.fragment)
    retry = Retry(
        attempts=plan.attempts,
        on=plan.on,
        replay_bytes=plan.replay_bytes,
        try_timeout_ms=plan.try_timeout_ms,
        unsafe_methods=plan.unsafe_methods,
    )
    upstreams = steady(len(plan.scripts))
    async with world(upstreams=upstreams, network=net, retry=retry, timeouts=BUDGETS) as w:
        for upstream, script in zip(w.upstreams, plan.scripts, strict=True):
            net.follow(upstream, script)
        client = Client(w, plan)
        await client.run()
    assert len(w.exchanges) == len(plan.requests)
    for exchange in w.exchanges:
        number = int(exchange.target[1:])
        check_tries(plan, exchange)
        check_answer(plan, exchange, client.answers[number], number)
        if plan.requests[number].is_post and not plan.unsafe_methods:
            assert net.heads[number] <= 1
    assert sum(w.proxy.stats.retries.values()) == sum(len(e.tries) - 1 for e in w.exchanges)


def check_tries(plan: Plan, exchange: Exchange) -> None:
    outcomes = [one.outcome for one in exchange.tries]
    counted = [outcome for outcome in outcomes if outcome != STALE]
    assert 1 <= len(counted) <= plan.attempts
    assert outcomes.count(STALE) <= len(counted)
    listed = {STALE}.union(*(OUTCOMES.get(each, {each}) for each in plan.on))
    assert set(outcomes[:-1]) <= listed
    assert exchange.ended_at - exchange.started_at <= 3.001 + 0.9
    if outcomes[-1] in listed and plan.attempts > 1:
        check_obstacle(plan, exchange, len(counted))
    else:
        assert exchange.not_retried == ""


def check_obstacle(plan: Plan, exchange: Exchange, tries: int) -> None:
    """What is named as the reason why there was no further try is one."""
    request = plan.requests[int(exchange.target[1:])]
    match exchange.not_retried:
        case "attempts":
            assert tries == plan.attempts
        case "method":
            assert request.is_post
            assert not plan.unsafe_methods
        case "replay_bytes":
            assert request.size > plan.replay_bytes
        case "deadline":
            assert exchange.ended_at - exchange.started_at > 2.7
        case "no_upstream":
            assert exchange.tries[-1].outcome.endswith("_timeout")
            assert len({one.upstream for one in exchange.tries}) == len(plan.scripts)
        case other:
            assert other == "budget"
            assert len(plan.requests) * (plan.attempts - 1) > 10


def check_answer(plan: Plan, exchange: Exchange, answer: Message | None, number: int) -> None:
    last = exchange.tries[-1].outcome
    if answer is None:
        assert last in ("response_truncated", "read_timeout")
        assert exchange.status == 200
        return
    assert answer.status == exchange.status
    assert (b"proxy-status" in answer) == (exchange.error is not None)
    if answer.status == 200:
        body = plan.requests[number].body(number)
        told = b"%d %d" % (number, zlib.crc32(body))
        assert answer.body == (b"" if plan.requests[number].method == "HEAD" else told)
    if exchange.error is None:
        assert last == str(answer.status)
    elif exchange.error.source == "upstream":
        assert last == exchange.error.reason.slug


@settings(
    max_examples=EXAMPLES or 300,
    derandomize=not EXAMPLES,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(plan=plans)
def test_whatever_fails_there_is_one_answer(plan: Plan) -> None:
    """See the top of this file."""
    run(play, plan)


@settings(max_examples=20, derandomize=True)
@given(plan=plans)
def test_a_plan_prints_as_code(plan: Plan) -> None:
    """So that a failing example can be pasted."""
    assert eval(repr(plan)) == plan
