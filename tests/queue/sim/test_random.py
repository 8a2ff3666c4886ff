"""Chance fills and empties the queue; its laws hold.

- Each request gets exactly one answer, and only for a reason that it has.
- An upstream never has more requests than its cap, and no more than before while it is above a cap
  that was lowered.
- Nobody waits while an upstream that would do has room.
- Of those who want the same, whoever came first is served first (while the queue does not stand).
- No wait is longer than queue_ms or the request's own budget.
- Nothing is shed before there is any experience, and nothing is left behind (see `world`).

A failing example prints as a `Plan`: give it to `play`. By default the same examples are run each
time; ``TRIO_PROXY_EXAMPLES=20000`` searches longer and by chance.
"""

from __future__ import annotations

import math
import os
from itertools import combinations

import trio
from attrs import field, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.conversation import ScriptedUpstream, Speaker
from support.crowd import OBEYED, TRUSTED
from support.pools import A, B
from support.scenario import now_ms, only, until_ms
from support.world import CLIENT, World, run, settings_for, world
from trio_proxy.http.errors import Reason
from trio_proxy.policy.queueing import LEAST_SAMPLES
from trio_proxy.settings import Balance, Limits, Settings
from trio_proxy.testing import SimNet

EXAMPLES = int(os.environ.get("TRIO_PROXY_EXAMPLES", "0"))
NAMES = (A, B)


@frozen
class Ask:
    """One request; times in milliseconds."""

    at: int
    work: int
    #: The upstream that it is stuck to, None for any.
    wants: int | None
    budget: int | None
    leaves_after: int | None


@frozen
class Plan:
    """One run. ``caps`` are those of both upstreams, and when a reload sets them."""

    seed: int
    asks: tuple[Ask, ...]
    caps: tuple[tuple[int, int], ...]
    max_queue: int
    queue_ms: int
    queue: str
    policy: str

    def settings(self, cap: int) -> Settings:
        limits = Limits(
            max_conns_per_upstream=cap,
            max_queue=self.max_queue,
            queue_ms=self.queue_ms,
            queue=self.queue,  # type: ignore[arg-type]
        )
        return settings_for(
            2,
            timeouts=only(),
            limits=limits,
            balance=Balance(policy=self.policy, sticky_cookie="at", sticky_secret="s"),  # type: ignore[arg-type]
            headers=OBEYED,
        )


asks = st.builds(
    Ask,
    at=st.integers(0, 40).map(lambda fifths: 5 * fifths),
    work=st.sampled_from([20, 20, 20, 0, 1, 7, 50, 300]),
    wants=st.sampled_from([None] * 6 + [0, 1]),
    budget=st.sampled_from([None, None, None, None, 60, 200, 1000]),
    leaves_after=st.sampled_from([None] * 8 + [0, 5, 40, 150]),
)
plans = st.builds(
    Plan,
    seed=st.integers(0, 1000),
    asks=st.lists(asks, min_size=12, max_size=40).map(tuple),
    caps=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 3)), max_size=3).map(
        lambda changes: ((0, 1), *sorted(changes))
    ),
    max_queue=st.sampled_from([100] * 6 + [0, 3]),
    queue_ms=st.sampled_from([0, 0, 30, 120]),
    queue=st.sampled_from(["fifo", "fifo", "lifo"]),
    policy=st.sampled_from(["round_robin", "least_conn", "random_two", "hash"]),
)


@frozen
class Run:
    """What happens in one run; everything by the request's number, times in milliseconds."""

    plan: Plan
    w: World
    came: dict[int, float] = field(factory=dict)
    #: When an upstream got it, and which.
    served: dict[int, tuple[float, int]] = field(factory=dict)
    ends: dict[int, tuple[float, int]] = field(factory=dict)
    left: dict[int, float] = field(factory=dict)
    #: The requests that each upstream has now.
    active: tuple[set[int], set[int]] = field(factory=lambda: (set(), set()))

    async def talk(self, index: int, peer: Speaker) -> None:
        """One connection of an upstream."""
        number = -1
        try:
            while True:
                request = await peer.read_request()
                number = int(request.start.split()[1][1:])
                assert number not in self.served, "sent twice"
                self.served[number] = now_ms(), index
                self.active[index].add(number)
                with trio.move_on_after(self.plan.asks[number].work / 1000):
                    # The proxy may give up; nothing else is to come before the answer.
                    assert await peer.receive_some() == b""
                    return
                self.active[index].discard(number)
                await peer.respond(b"%d" % number)
        finally:
            self.active[index].discard(number)

    async def ask(self, number: int) -> None:
        """One client, from its coming to its end."""
        ask = self.plan.asks[number]
        await until_ms(ask.at)
        client = await self.w.client(CLIENT if ask.budget is None else TRUSTED)
        fields = b"" if ask.budget is None else b"X-Budget: %d\r\n" % ask.budget
        if ask.wants is not None:
            cookie = self.w.proxy.pools["default"].member(NAMES[ask.wants]).cookie
            fields += b"Cookie: at=%s\r\n" % cookie.encode()
        self.came[number] = now_ms()
        async with client:
            with trio.move_on_after(
                math.inf if ask.leaves_after is None else ask.leaves_after / 1000
            ) as patience:
                await client.send(
                    b"GET /%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%s\r\n" % (number, fields)
                )
                answer = await client.read_response()
                self.ends[number] = now_ms(), answer.status
                assert answer.status != 200 or answer.body == b"%d" % number
                assert await client.receive_some() == b"", "more than one answer"
            if patience.cancelled_caught:
                self.left[number] = now_ms()
                client.abort()

    def waiting(self) -> set[int]:
        return self.came.keys() - self.served.keys() - self.ends.keys() - self.left.keys()

    async def watch(self) -> None:
        """Between any two moments at which something can happen: nobody waits in vain."""
        before = (0, 0)
        cap_before = self.plan.caps[0][1]
        tick = 0
        while True:
            await until_ms(tick + 0.5)
            tick += 3
            cap = [cap for at, cap in self.plan.caps if at <= tick - 3][-1]
            active = (len(self.active[0]), len(self.active[1]))
            for index in (0, 1):
                # What began right before the cap was lowered may go on.
                assert active[index] <= max(cap, cap_before, before[index]), "above the cap"
            before, cap_before = active, cap
            waiting = self.waiting()
            assert self.w.proxy.pools["default"].queue_length == len(waiting)
            for number in waiting:
                wants = self.plan.asks[number].wants
                for index in (0, 1) if wants is None else (wants,):
                    assert active[index] >= cap, f"{number} waits though there is room"
            if len(self.came) == len(self.plan.asks) and not waiting:
                return

    async def reload(self) -> None:
        for at, cap in self.plan.caps[1:]:
            await until_ms(at)
            await self.w.reload(self.plan.settings(cap))


async def play(plan: Plan) -> None:
    config = plan.settings(plan.caps[0][1])
    tables = {name: getattr(config, name) for name in ("timeouts", "limits", "balance", "headers")}
    async with world(upstreams=2, network=SimNet(seed=plan.seed), **tables) as w:
        this = Run(plan, w)
        for index, upstream in enumerate(w.upstreams):
            run_upstream(this, index, upstream)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(this.reload)
                nursery.start_soon(this.watch)
                for number in range(len(plan.asks)):
                    nursery.start_soon(this.ask, number)
    check_each(this)
    check_order(this)


def run_upstream(this: Run, index: int, upstream: ScriptedUpstream) -> None:
    upstream.run(lambda peer: this.talk(index, peer))


def check_each(this: Run) -> None:
    """The one answer that each got, and why."""
    plan = this.plan
    reasons = {int(e.target[1:]): e.error.reason if e.error else None for e in this.w.exchanges}
    for number, ask in enumerate(plan.asks):
        assert (number in this.ends) != (number in this.left) or reasons[number] is None
        came = this.came[number]
        until = min(plan.queue_ms or math.inf, ask.budget or math.inf)
        if number in this.served:
            at, index = this.served[number]
            assert at - came <= until
            assert ask.wants in (None, index)
        if number in this.ends:
            check_end(this, number, this.ends[number], reasons[number])


def check_end(this: Run, number: int, end: tuple[float, int], reason: Reason | None) -> None:
    plan, ask = this.plan, this.plan.asks[number]
    at, status = end
    waited = round(at - this.came[number], 6)
    assert waited <= (ask.budget or math.inf)
    if reason is None:
        assert status == 200
        assert round(at - this.served[number][0], 6) == ask.work
        return
    assert status == (504 if reason is Reason.TOTAL_TIMEOUT else 503)
    if reason is Reason.TOTAL_TIMEOUT:
        assert waited == ask.budget
        return
    assert number not in this.served
    if reason is Reason.QUEUE_TIMEOUT:
        assert waited == plan.queue_ms
    elif reason is Reason.QUEUE_FULL:
        assert waited == 0
    else:
        assert reason is Reason.QUEUE_SHED
        ended = [n for n, (began, _) in this.served.items() if began < at]
        assert len(ended) >= LEAST_SAMPLES


def check_order(this: Run) -> None:
    """First come, first served, among those who want the same."""
    if this.plan.queue == "lifo":
        return
    order = sorted(this.served, key=lambda number: this.came[number])
    for one, other in combinations(order, 2):
        same = this.plan.asks[one].wants == this.plan.asks[other].wants
        if same and this.came[one] < this.came[other]:
            assert this.served[one][0] <= this.served[other][0], f"{other} has overtaken {one}"


@settings(
    max_examples=EXAMPLES or 60,
    derandomize=not EXAMPLES,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(plan=plans)
def test_the_laws_of_the_queue(plan: Plan) -> None:
    """Whatever comes, in whatever order, and whoever leaves."""
    run(play, plan)
