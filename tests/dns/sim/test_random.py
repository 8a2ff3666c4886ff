"""Whatever DNS says, and whenever: requests go where its last answer sends them, and none fails.

Chance changes what two names and a service stand for, lets look-ups fail, hang and recover, and
reloads, while clients ask servers that are all well. ``TRIO_PROXY_EXAMPLES=5000`` searches longer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import trio
from attrs import define, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from support.naming import (
    APP,
    HOST,
    OTHER,
    OTHER_HOST,
    SERVICE,
    NamedNet,
    Upstreams,
    named_settings,
    named_world,
    service,
    shown,
)
from support.outages import Answer, ask, run_apps
from support.pools import NAMES
from support.scenario import only
from support.world import World, run
from trio_proxy.net.network import ServiceRecord
from trio_proxy.settings import Dns, Retry, UpstreamSettings

EXAMPLES = int(os.environ.get("TRIO_PROXY_EXAMPLES", "0"))
HOSTS = [name.partition(":")[0] for name in NAMES]
FILES: list[Upstreams] = [
    [APP],
    [APP, OTHER],
    [OTHER, APP],
    [OTHER],
    [service()],
    [APP, service(backup=True)],
    [NAMES[0], APP],
]
COMMON = {
    "timeouts": only(connect_ms=200, drain_ms=60_000),
    "dns": Dns(refresh_ms=1000),
    # The name that was not found yet is a member too; its failures are no reason to stop.
    "retry": Retry(attempts=10, budget_percent=1000),
}


@frozen
class Step:
    """Do something, and then wait for so many milliseconds."""

    kind: str
    what: Any
    pause: int


def steps() -> st.SearchStrategy[Step]:
    hosts = st.lists(st.sampled_from(HOSTS), min_size=1, max_size=5, unique=True)
    record = st.tuples(
        st.sampled_from([*HOSTS, HOST, OTHER_HOST]),
        st.just(9000),
        st.integers(0, 2),
        st.integers(0, 3),
    )
    names = st.sampled_from([HOST, OTHER_HOST, SERVICE])
    kinds = st.one_of(
        st.tuples(st.sampled_from([HOST, OTHER_HOST]), hosts),
        st.tuples(st.just(SERVICE), st.lists(record, min_size=1, max_size=4)),
        st.tuples(st.sampled_from(["fail_names", "stall_names"]), names),
        st.tuples(st.just("heal_names"), st.none()),
        st.tuples(st.just("reload"), st.sampled_from(FILES)),
        st.tuples(st.just("ask"), st.integers(1, 4)),
    )
    pauses = st.sampled_from([0, 0, 300, 500, 1000, 2500])
    return st.builds(lambda pair, pause: Step(*pair, pause), kinds, pauses)


class Answers(NamedNet):
    """Notes what every look-up came to, in order."""

    def __init__(self, **options: Any) -> None:
        super().__init__(HOSTS[0], **options)
        self.name(OTHER_HOST, HOSTS[1])
        self.service(SERVICE, (HOST, 9000, 0, 1))
        self.said: list[tuple[str, Sequence[Any]]] = []

    async def lookup(self, host: str) -> Sequence[str]:
        found = await super().lookup(host)
        self.said.append((host, found))
        return found

    async def lookup_service(self, name: str) -> Sequence[ServiceRecord]:
        found = await super().lookup_service(name)
        self.said.append((name, found))
        return found

    def latest(self, name: str, since: int = 0) -> Sequence[Any]:
        """The last answer about a name, from that number on; empty if there was none."""
        return next((found for one, found in reversed(self.said[since:]) if one == name), ())


@define
class Model:
    """Who the members have to be by what DNS has said."""

    net: Answers
    file: Upstreams
    #: Since which answer each name has been in the file.
    since: dict[str, int] = field(factory=dict)

    def reloaded(self, file: Upstreams, before: int) -> None:
        """There is another file; ``before`` answers had been given when its names were asked."""
        names = {name_of(each): self.since.get(name_of(each), before) for each in file}
        self.file, self.since = file, names

    def members(self) -> set[str]:
        found: set[str] = set()
        for each in self.file:
            if each in (APP, OTHER):
                said = self.net.latest(name_of(each), self.since[name_of(each)])
                found |= {f"{host}:9000" for host in said} or {name_of(each) + ":9000"}
            elif isinstance(each, str):
                found.add(each)
            else:
                for record in self.net.latest(SERVICE):
                    found |= {f"{host}:9000" for host in self.net.latest(record.host)}
        return found

    @property
    def is_simple(self) -> bool:
        """Without a service, one answer says it all."""
        return all(isinstance(each, str) for each in self.file)


def name_of(upstream: str | UpstreamSettings) -> str:
    return upstream.partition(":")[0] if isinstance(upstream, str) else SERVICE


async def play(file: Upstreams, plan: list[Step], seed: int) -> None:
    net = Answers(seed=seed)
    async with named_world(net, file, servers=NAMES, **COMMON) as w:
        model = Model(net, ())
        model.reloaded(file, 0)
        run_apps(w)
        for step in plan:
            await take(w, model, step)
            if model.is_simple:
                assert members(w) == model.members()
        net.heal_names()
        await trio.sleep(2.5)
        assert members(w) == model.members()
        assert shown(w) == sorted(model.members())


def members(w: World) -> set[str]:
    return {member.name for member in w.proxy.pools["default"].members}


async def take(w: World, model: Model, step: Step) -> None:
    net = model.net
    match step.kind:
        case "fail_names" | "stall_names":
            getattr(net, step.kind)(step.what)
        case "heal_names":
            net.heal_names()
        case "reload":
            before = len(net.said)
            await w.reload(named_settings(step.what, **COMMON))
            model.reloaded(step.what, before)
        case "ask":
            await ask_some(w, step.what)
        case "app.test" | "other.test":
            net.name(step.kind, *step.what)
        case _:
            net.service(step.kind, *step.what)
    await trio.sleep(step.pause / 1000)


async def ask_some(w: World, count: int) -> None:
    """Requests at the same time; each is answered, unless nobody at all is known."""
    answers: list[Answer] = []

    async def one() -> None:
        async with await w.client() as client:
            answers.append(await ask(client))

    before, known = len(w.exchanges), members(w)
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    if known & set(NAMES):
        assert {answer.status for answer in answers} == {200}
    tried = {one.upstream for exchange in w.exchanges[before:] for one in exchange.tries}
    assert tried <= known | members(w)


@settings(max_examples=EXAMPLES or 60, derandomize=not EXAMPLES, deadline=None, print_blob=True)
@given(file=st.sampled_from(FILES), plan=st.lists(steps(), max_size=25), seed=st.integers(0, 3))
def test_requests_go_where_dns_says(file: Upstreams, plan: list[Step], seed: int) -> None:
    """See the top of this file."""
    run(play, file, plan, seed)
