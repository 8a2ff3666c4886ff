"""The cap on upstream connections holds at every instant."""

from __future__ import annotations

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.conversation import Speaker
from support.scenario import OK, connections, get, member, only
from support.world import World, run, world
from trio_proxy.settings import Limits
from trio_proxy.testing import SimNet


class Census(SimNet):
    """Counts the proxy's connections to each upstream whenever one is made, dials included."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed, latency=0.01)
        self.dialling: dict[str, int] = {}
        self.most: dict[str, int] = {}

    async def dial(self, address: object, *, source: str = "127.0.0.1") -> object:  # type: ignore[override]
        name = str(address)
        self.dialling[name] = self.dialling.get(name, 0) + 1
        self._count(name)
        try:
            return await super().dial(address, source=source)  # type: ignore[arg-type]
        finally:
            self.dialling[name] -= 1

    def _count(self, name: str) -> None:
        is_open = sum(s.remote == name and s.local == "127.0.0.1" for s in self.open_streams)
        self.most[name] = max(self.most.get(name, 0), is_open + self.dialling[name])


#: When a client comes, how long it has its request take, and when it loses patience (all ms).
visits = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, 200), st.none() | st.integers(0, 300)),
    min_size=1,
    max_size=30,
)


@settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    cap=st.integers(1, 4),
    upstreams=st.integers(1, 3),
    seed=st.integers(0, 99),
    idle_ms=st.sampled_from([0, 20]),
    plan=visits,
)
def test_never_more_connections_than_the_cap(
    cap: int,
    upstreams: int,
    seed: int,
    idle_ms: int,
    plan: list[tuple[int, int, int | None]],
) -> None:
    """Dialling, leased and idle ones together, at every instant; all who wait are served."""

    async def serve(peer: Speaker) -> None:
        while True:
            milliseconds = int((await peer.read_request()).start.split()[1][1:])
            await trio.sleep(milliseconds / 1000)
            await peer.send(OK)
            if milliseconds % 7 == 0:
                return

    async def visit(w: World, start: int, service: int, patience: int | None) -> None:
        await trio.sleep(start / 1000)
        async with await w.client() as client:
            with trio.move_on_after(10**6 if patience is None else patience / 1000) as scope:
                assert (await client.ask(get(service))).body == b"ok"
        assert patience is not None or not scope.cancelled_caught

    async def main() -> None:
        net = Census(seed)
        limits = Limits(max_conns_per_upstream=cap, queue_ms=0)
        budgets = only(upstream_idle_ms=idle_ms, drain_ms=0)
        async with world(upstreams=upstreams, network=net, timeouts=budgets, limits=limits) as w:
            for upstream in w.upstreams:
                upstream.run(serve)
            async with trio.open_nursery() as nursery:
                for one in plan:
                    nursery.start_soon(visit, w, *one)
            for number, upstream in enumerate(w.upstreams):
                assert net.most.get(upstream.name, 0) <= cap
                assert member(w, number).limiter.borrowed_tokens == sum(connections(w, number))

    run(main)
