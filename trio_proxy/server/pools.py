"""The pools of a proxy, by name: they outlive a reload, which adds some and takes others away.

A pool that goes is seen off as an upstream is. For a while requests still come to it: those whose
head was being read when the routes changed. So it serves as ever, checks included, for as long as
the reading of a head may take, and then until its last request has ended; after ``drain_ms`` what
is left is cut. Only then is it forgotten, and its metrics with it. Named again before, it comes
back with all that is known of it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs
import trio
from attrs import define, frozen

from trio_proxy.net.dial import SocketNetwork
from trio_proxy.net.network import Network
from trio_proxy.server import build
from trio_proxy.settings import DEFAULT_POOL, Settings
from trio_proxy.telemetry.stats import Stats
from trio_proxy.upstream.pool.discovery import Directory, Endpoint, Spec
from trio_proxy.upstream.pool.keeper import Keeper
from trio_proxy.upstream.pool.pool import Pool
from trio_proxy.upstream.pool.rules import PoolRules

log = logging.getLogger("trio_proxy.server")


@define(eq=False)
class _Kept:
    """A pool, who keeps it, and what is to be cancelled if it need not be seen off after all."""

    pool: Pool
    keeper: Keeper
    leaving: trio.CancelScope | None = None


@frozen
class _Change:
    """What a pool is to become; ``directory`` is whom its names are asked of."""

    rules: PoolRules
    directory: Directory
    found: dict[Spec, Sequence[Endpoint]]


class Pools:
    """All the pools of the settings in force, and those that are on their way out."""

    def __init__(self, network: Network, stats: Stats) -> None:
        self._network = network
        self._stats = stats
        self._serving: dict[str, _Kept] = {}
        self._leaving: dict[str, _Kept] = {}
        self._changes: dict[str, _Change] = {}
        self._prepared: Settings
        #: How long a request may take to come by the routes in force.
        self._head_seconds = 0.0
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<Pools {list(self._serving)} leaving={list(self._leaving)}>"

    @property
    def by_name(self) -> Mapping[str, Pool]:
        """Those that routes can lead to, in the order of the settings."""
        return MappingProxyType({name: kept.pool for name, kept in self._serving.items()})

    def start(self, nursery: trio.Nursery) -> None:
        """From now on keep them in tasks of this nursery."""
        self._nursery = nursery
        for kept in self._serving.values():
            nursery.start_soon(kept.keeper.run)

    def close_idle(self) -> None:
        """Close every idle connection."""
        for kept in (*self._serving.values(), *self._leaving.values()):
            kept.pool.close_idle()

    # Reload

    async def prepare(self, settings: Settings) -> None:
        """Ask DNS for the names that are new; takes bounded time. A name that fails is no error."""
        self._changes = {
            name: self._change_of(name, build.pool_rules(settings, pool))
            for name, pool in settings.every_pool.items()
        }
        self._prepared = settings
        looked_up = [each for each in self._changes.items() if self._unknown_names(*each)]
        if looked_up:
            async with trio.open_nursery() as nursery:
                for name, change in looked_up:
                    nursery.start_soon(self._look_up, name, change)

    def _known(self, name: str) -> _Kept | None:
        return self._serving.get(name) or self._leaving.get(name)

    def _change_of(self, name: str, rules: PoolRules) -> _Change:
        kept = self._known(name)
        if kept is None:
            return _Change(rules, Directory(self._network_asking(rules.nameservers)), {})
        directory = kept.pool.directory
        if rules.nameservers != kept.pool.plan.nameservers:
            directory = directory.asking(self._network_asking(rules.nameservers))
        return _Change(rules, directory, {})

    def _network_asking(self, nameservers: Sequence[str]) -> Network:
        if isinstance(self._network, SocketNetwork):
            return self._network.asking(nameservers)
        return self._network  # a simulated one knows all names by itself

    def _unknown_names(self, name: str, change: _Change) -> Sequence[Spec]:
        kept = self._known(name)
        return change.rules.names if kept is None else kept.pool.unknown_names(change.rules)

    async def _look_up(self, name: str, change: _Change) -> None:
        change.found.update(await change.directory.look_up_all(self._unknown_names(name, change)))

    def abandon(self) -> None:
        """Forget what was prepared."""
        self._changes = {}

    def commit(self) -> None:
        """Put what was prepared in force."""
        before, self._serving = self._serving, {}
        for name, change in self._changes.items():
            kept = before.pop(name, None) or self._come_back(name) or self._new(name, change)
            kept.pool.directory.take_over(change.directory)
            kept.pool.apply(change.rules, change.found)
            self._serving[name] = kept
        for name, kept in before.items():
            self._remove(name, kept)
        self._changes = {}
        self._head_seconds = self._prepared.timeouts.seconds["head"]

    def _new(self, name: str, change: _Change) -> _Kept:
        pool = Pool(
            name,
            change.rules,
            change.directory,
            functools.partial(self._stats.upstream, name),
            self._stats.queue_length,
            label="" if name == DEFAULT_POOL else f" of pool {name}",
        )
        kept = _Kept(pool, self._keeper_of(pool))
        if self._nursery is not None:
            log.info("pool %s added", name)
            self._nursery.start_soon(kept.keeper.run)
        return kept

    def _keeper_of(self, pool: Pool) -> Keeper:
        return Keeper(pool, functools.partial(self._stats.forget_upstream, pool.name))

    def _come_back(self, name: str) -> _Kept | None:
        """The pool of that name if it was taken away and is not gone yet."""
        kept = self._leaving.pop(name, None)
        if kept is None:
            return None
        log.info("pool %s is back", name)
        assert kept.leaving is not None
        kept.leaving.cancel(reason="the pool is back")
        kept.leaving = None
        if kept.keeper.is_finishing and self._nursery is not None:
            kept.keeper = self._keeper_of(kept.pool)
            self._nursery.start_soon(kept.keeper.run)
        return kept

    def _remove(self, name: str, kept: _Kept) -> None:
        log.info("pool %s removed, %d requests left", name, kept.pool.in_flight)
        self._leaving[name] = kept
        kept.leaving = trio.CancelScope()
        assert self._nursery is not None
        self._nursery.start_soon(self._see_off, kept, kept.leaving, self._head_seconds)

    async def _see_off(self, kept: _Kept, scope: trio.CancelScope, head_seconds: float) -> None:
        # What has been waited for can happen in the very step in which the pool comes back, so each
        # wait is followed by a look at the scope.
        pool, plan = kept.pool, kept.pool.plan
        with scope:
            with trio.move_on_after(plan.drain_seconds):
                await trio.sleep(head_seconds)
                await pool.wait_until_unused()
            if scope.cancel_called:
                return
            pool.apply(attrs.evolve(plan, members={}, drain_seconds=0.0), {})
            kept.keeper.finish()
            await kept.keeper.finished.wait()
            if scope.cancel_called:
                return
            del self._leaving[pool.name]
            self._stats.forget_pool(pool.name)
            log.info("pool %s is gone", pool.name)
