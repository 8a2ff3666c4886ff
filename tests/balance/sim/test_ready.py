"""Who is ready is kept at hand: it is always what asking every upstream would have told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from support.exchanges import exchange_with
from trio_proxy.http.addresses import TcpAddress
from trio_proxy.http.errors import ProxyError
from trio_proxy.policy.breaker import BreakerRules
from trio_proxy.upstream.pool.discovery import Directory
from trio_proxy.upstream.pool.member import Member
from trio_proxy.upstream.pool.picker import Choice
from trio_proxy.upstream.pool.pool import Pool
from trio_proxy.upstream.pool.rules import HealthRules, MemberRules, PoolRules
from trio_proxy.upstream.session import Slot

BREAKER = BreakerRules(
    window_seconds=10.0, min_requests=3, error_percent=50, open_seconds=2.0, half_open_requests=1
)


class Wire:
    """A stream that nothing ever comes from."""

    def is_readable(self) -> bool:
        return False

    def close(self) -> None:
        pass


class Onlooker:
    """A policy that takes the first, and remembers among whom."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.now = 0.0

    def choose(self, candidates: Sequence[Any], key: int, random: Callable[[], float]) -> Any:
        self.seen = [each.name for each in candidates]
        assert all(each.weight == each.condition.effective_weight(self.now) for each in candidates)
        return candidates[0]

    def keep(self, names: Collection[str]) -> None:
        pass


def gauges() -> Any:
    checks = {"pass": 0, "fail": 0}
    return SimpleNamespace(
        up=True, draining=False, breaker="", weight=1, checks=checks, active=0, idle=0
    )


def plan_by(random: Random) -> PoolRules:
    """One to six members of a few addresses, with whatever may matter."""
    members = {
        TcpAddress(f"10.0.0.{number}", 80): MemberRules(
            max_conns=random.randint(1, 3),
            weight=random.randint(1, 2),
            backup=random.random() < 0.2,
            drain=random.random() < 0.1,
            max_fails=random.randint(0, 2),
            fail_seconds=3.0,
            slow_start_seconds=random.choice([0.0, 2.0]),
        )
        for number in random.sample(range(8), random.randint(1, 6))
    }
    breaker = random.choice([None, BREAKER])
    statuses = frozenset((500,))
    health = HealthRules(breaker=breaker, fail_statuses=statuses, error_statuses=statuses)
    panic_percent = random.choice([0, 50, 100])
    return PoolRules(members=members, health=health, panic_percent=panic_percent)


class Play:
    """One pool and its requests, driven by chance."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        plan = plan_by(self.random)
        self.pool = Pool("play", plan, Directory(SimpleNamespace()), lambda _: gauges(), {})
        self.pool.apply(plan, {})
        self.onlooker = self.pool._picker.balancer = Onlooker()
        self.leased: list[Slot] = []

    def begin(self) -> None:
        try:
            slot = self.pool.lease_nowait(exchange_with(), Choice(), self.now)
        except ProxyError:
            return
        if slot is not None:
            if slot.session.stream is None:
                stream: Any = Wire()
                slot.session.opened(stream)
            self.leased.append(slot)

    def end(self) -> None:
        if not self.leased:
            return
        slot = self.leased.pop(self.random.randrange(len(self.leased)))
        condition, ticket = slot.upstream.condition, slot.ticket
        outcome = self.random.random()
        if outcome < 0.4:
            condition.answered(ticket, 200, self.now)
        elif outcome < 0.7:
            condition.answered(ticket, 500, self.now)
        elif outcome < 0.9:
            condition.failed(ticket, "reset", self.now)
        else:
            condition.abandoned(ticket, self.now)
        if self.random.random() < 0.7:
            self.pool.give_back(slot)
        else:
            slot.upstream.discard(slot)

    def hang_up(self) -> None:
        member = self.random.choice(self.pool.members)
        member.close_idle()

    def order(self) -> None:
        member = self.random.choice(self.pool.members)
        if self.random.random() < 0.5:
            member.set_weight(self.random.randint(1, 3))
        else:
            member.condition.drain(self.random.random() < 0.3)

    def reload(self) -> None:
        plan = plan_by(self.random)
        self.pool.apply(plan, {})
        self.pool._picker.balancer = self.onlooker

    def pass_time(self) -> None:
        self.now += self.random.choice([0.01, 0.5, 2.0, 5.0])
        self.onlooker.now = self.now

    def check(self) -> None:
        """Ask every upstream, and compare."""
        picker = self.pool._picker
        for member in self.pool.members:
            has_room = bool(member._with_room) or member.limiter.available_tokens > 0
            assert (member.has_room, member.is_ready) == (
                has_room,
                has_room and member.condition.is_fit,
            )
        self.onlooker.seen, self.onlooker.now = [], self.now
        try:
            picked = picker.pick(Choice(), self.now)
        except ProxyError:
            picked = None
        seen = self.onlooker.seen or ([] if picked is None else [picked.name])
        assert seen == [member.name for member in self.expected()]

    def expected(self) -> list[Member]:
        picker, members = self.pool._picker, self.pool.members
        primaries = [member for member in members if not member.backup]
        if primaries and all(member.condition.is_fit for member in primaries):
            return [member for member in primaries if member.has_room]
        try:
            found = picker.candidates(Choice(), self.now)
        except ProxyError:
            return []
        return [member for member in found if member.has_room]


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens(seed: int, autojump_clock: object) -> None:
    """Requests and their outcomes, hang-ups, orders, reloads and time, in any order."""
    play = Play(seed)
    steps = [play.begin] * 6 + [play.end] * 5 + [play.hang_up, play.order, play.pass_time]
    for _ in range(400):
        play.random.choice(steps)()
        if play.random.random() < 0.02:
            play.reload()
        play.check()
