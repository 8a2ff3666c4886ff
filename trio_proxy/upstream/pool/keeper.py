"""What a pool does in the background: checks, look-ups, closing what is idle, seeing off.

Each piece of work is named by all that it depends on. After a change the names that are wanted are
compared with those at work, so a reload that changes an interval restarts those checks and
nothing else.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Hashable

import trio

from trio_proxy.upstream.health.probe import check_for_ever
from trio_proxy.upstream.pool.discovery import is_name
from trio_proxy.upstream.pool.member import Member
from trio_proxy.upstream.pool.pool import Pool

log = logging.getLogger("trio_proxy.upstream")

#: After a fault of ours in a piece of work it begins again so much later, in seconds.
RESTART_SECONDS = 1.0

Work = Callable[[], Awaitable[None]]


class Keeper:
    """Runs the background work of one pool."""

    def __init__(self, pool: Pool, forget: Callable[[str], None]) -> None:
        self._pool = pool
        #: Told the name of an upstream that has gone for good.
        self._forget = forget
        self._scopes: dict[Hashable, trio.CancelScope] = {}

    async def run(self) -> None:
        """Keep the pool until cancelled."""
        async with trio.open_nursery() as nursery:
            for work in (self._pool.reap_idle, self._pool.serve_in_time):
                nursery.start_soon(self._guard, work, trio.CancelScope())
            while True:
                self._pool.changed = trio.Event()
                self._reconcile(nursery)
                await self._pool.changed.wait()

    def _reconcile(self, nursery: trio.Nursery) -> None:
        for upstream in self._pool.membership.take_retired():
            nursery.start_soon(self._see_off, upstream)
        wanted = self._wanted()
        for name in self._scopes.keys() - wanted.keys():
            self._scopes.pop(name).cancel(reason="no longer configured")
        for name in wanted.keys() - self._scopes.keys():
            scope = self._scopes[name] = trio.CancelScope()
            nursery.start_soon(self._guard, wanted[name], scope)

    def _wanted(self) -> dict[Hashable, Work]:
        pool, plan = self._pool, self._pool.plan
        wanted: dict[Hashable, Work] = {}
        if (checks := plan.checks) is not None:
            for member in pool.members:
                wanted[member, checks] = functools.partial(
                    check_for_ever, member, checks, pool.directory.network, pool.random
                )
        seconds = plan.refresh_seconds
        for spec in filter(is_name, plan.members):
            wanted[spec, seconds] = functools.partial(
                pool.directory.refresh_for_ever,
                spec,
                seconds,
                pool.found,
                is_known=pool.membership.knows(spec),
            )
        return wanted

    @staticmethod
    async def _guard(work: Work, scope: trio.CancelScope) -> None:
        """A fault of ours in the background must not end a proxy that serves."""
        with scope:
            while True:
                try:
                    await work()
                except Exception:
                    log.exception("internal error in the background")
                await trio.sleep(RESTART_SECONDS)

    async def _see_off(self, upstream: Member) -> None:
        try:
            await self._let_go(upstream)
        except Exception:
            log.exception("internal error in seeing upstream %s off", upstream.name)

    async def _let_go(self, upstream: Member) -> None:
        """See an upstream off that is no longer a member: its exchanges have the drain's time."""
        log.info("upstream %s removed, %d exchanges left", upstream.name, len(upstream.leased))
        turn = upstream.retirements
        with trio.move_on_after(self._pool.plan.drain_seconds):
            await upstream.wait_until_unused()
        if not upstream.is_retired_since(turn):
            return  # it has come back
        for holder in list(upstream.leased.values()):
            try:
                holder.cut()
            except Exception:
                log.exception("internal error in cutting upstream %s off", upstream.name)
        await upstream.wait_until_unused()
        if upstream.is_retired_since(turn):
            self._pool.membership.has_left(upstream)
            self._forget(upstream.name)
