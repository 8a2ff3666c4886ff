"""Chance drives clients, upstreams and the network through the whole proxy; the invariants hold.

- Every request is answered completely and with the body that was meant for it, or its connection
  is visibly cut. Bodies are made of the request's number, so a mix-up of two cannot hide.
- An upstream sees nothing but requests that were meant, with the beginnings of their bodies, and
  one that must not be repeated only once.
- A failure has a cause: a well-behaved upstream and client get a proper answer.
- No exchange exceeds its budgets, and one ended exchange belongs to each request that was begun.
- Nothing is left behind (see `world`).

A failing example prints as a `Plan`, which is code: give it to `play`. By default the same examples
are run each time; ``TRIO_PROXY_EXAMPLES=20000`` searches longer and by chance.
"""

from __future__ import annotations

import os
from contextlib import suppress

import trio
from attrs import asdict, field, frozen
from hypothesis import HealthCheck, given, settings

from support import random_plans
from support.conversation import Message, Speaker
from support.random_plans import Client, Exchange, Plan, cut_up, plans
from support.scenario import now_ms
from support.world import PROXY, World, run, settings_for, world
from trio_proxy.http.errors import Reason
from trio_proxy.settings import Limits, Timeouts
from trio_proxy.testing import SimNet

EXAMPLES = int(os.environ.get("TRIO_PROXY_EXAMPLES", "0"))
UPSTREAMS = ("10.1.0.1:9000", "10.1.0.2:9000")
BUDGETS = Timeouts(
    connect_ms=500,
    read_ms=1000,
    write_ms=1000,
    total_ms=4000,
    head_ms=1000,
    body_ms=1000,
    idle_ms=3000,
    upstream_idle_ms=400,
    tunnel_idle_ms=1000,
    drain_ms=2000,
)

#: From the first byte of a request to the end of its exchange: head, total, the proxy's own answer.
LONGEST_SECONDS = 1 + 4 + 1 + 0.001

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
        if one.fault == "trailing" and self._can_trail(one, data):
            await peer.send(data + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
            return one.keep
        for piece in cut_up(data, one.answer_pieces):
            await peer.send(piece)
            await trio.sleep(one.answer_gap / 1000)
        return one.keep and one.answer != "close"

    def _can_trail(self, one: Exchange, data: bytes) -> bool:
        """Only in one go with its own answer can the proxy tell it from the next."""
        return one.answer != "close" and self.plan.upstream_line.is_clean and len(data) < 60_000


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
        message = await peer.with_body(head, until_close=True)
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
    net.link(PROXY, **asdict(plan.client_line))
    for name in UPSTREAMS:
        net.link(name, **asdict(plan.upstream_line))
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
    # A pooled connection may be closing just now, and a body that was passed on cannot be repeated.
    if one.has_body or one.fault or one.early:
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


@settings(
    max_examples=EXAMPLES or 500,
    derandomize=not EXAMPLES,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(plan=plans)
def test_whatever_happens_the_invariants_hold(plan: Plan) -> None:
    """See the top of this file."""
    run(play, plan)


@settings(max_examples=20, derandomize=True)
@given(plan=plans)
def test_a_plan_prints_as_code(plan: Plan) -> None:
    """So that a failing example can be pasted."""
    assert eval(repr(plan), vars(random_plans)) == plan
