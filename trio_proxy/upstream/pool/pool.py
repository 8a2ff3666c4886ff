"""A pool of upstreams: who its members are, who gets the next request, who waits.

`Pool.lease` decides synchronously; the only IO is the dial. When every upstream is at its cap,
requests wait in one bounded queue (`queue`), and whatever becomes free goes to one of them. The
pool outlives a reload: `apply` changes its members in place, so that connections to an upstream
that stays are kept, and so is all that is known of its health. What has to be done in the
background (checks, look-ups, seeing upstreams off) is the `keeper`'s.
"""

from __future__ import annotations

import logging
import math
import random
import secrets
from collections.abc import Callable, Mapping, Sequence

import trio

from trio_proxy.exchange.complaint import Complaint
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.addresses import Address
from trio_proxy.http.client import Client
from trio_proxy.http.messages import Request
from trio_proxy.policy.balance import make_balancer
from trio_proxy.policy.retry_budget import RetryBudget
from trio_proxy.upstream.pool.discovery import Directory, Endpoint, Spec
from trio_proxy.upstream.pool.keys import key_reader
from trio_proxy.upstream.pool.member import Gauges, Member
from trio_proxy.upstream.pool.membership import Membership
from trio_proxy.upstream.pool.picker import Choice, Picker
from trio_proxy.upstream.pool.queue import Queue
from trio_proxy.upstream.pool.rules import MemberRules, PoolRules
from trio_proxy.upstream.session import Slot
from trio_proxy.upstream.sticky import Sticky

log = logging.getLogger("trio_proxy.upstream")


class Pool:
    """One named pool.

    ``directory`` looks up the names of its upstreams. ``gauges_of`` gives the counters of one by
    its name; ``queue_lengths`` is where the pool shows how many requests wait. ``label`` is what
    the log adds to the name of an upstream.
    """

    def __init__(
        self,
        name: str,
        plan: PoolRules,
        directory: Directory,
        gauges_of: Callable[[str], Gauges],
        queue_lengths: dict[str, int],
        *,
        label: str = "",
    ) -> None:
        self.name = name
        #: Requests that have come to this pool and have not ended.
        self.in_flight = 0
        self.membership = Membership(plan, self._new_member)
        self.plan = plan
        self.directory = directory
        self.random = random.random
        self.budget = RetryBudget(plan.budget_percent)
        self.queue = Queue(name, self._maybe_assign, queue_lengths)
        #: Set when the background work may have to change.
        self.changed = trio.Event()
        self.sticky: Sticky | None = None
        self._gauges_of = gauges_of
        self._label = label
        self._own_secret = secrets.token_hex()
        self._picker = Picker(name, make_balancer(plan.policy), self.random)
        self._key_of = key_reader(plan.policy, plan.key)
        self._budget_spent = Complaint(log)
        self._attention = trio.Event()
        self._unused = trio.Event()
        self._reaper_wakeup = trio.Event()
        self._reaper_parked = False

    def __repr__(self) -> str:
        return f"<Pool {self.name} {self.members} waiting={len(self.queue)}>"

    @property
    def members(self) -> Sequence[Member]:
        """The upstreams that requests may go to, in the order of the configuration."""
        return self.membership.members

    @property
    def queue_length(self) -> int:
        """How many requests wait for an upstream."""
        return len(self.queue)

    # Configuration

    def unknown_names(self, plan: PoolRules) -> Sequence[Spec]:
        """The names of a plan that DNS has to be asked for before `apply`.

        Those that are known are asked for again only if nobody else does so, or others are asked.
        """
        if not plan.is_refreshed_like(self.plan):
            return plan.names
        return [spec for spec in plan.names if not self.membership.knows(spec)]

    def apply(self, plan: PoolRules, found: Mapping[Spec, Sequence[Endpoint]]) -> None:
        """Take on a new plan, and what was found for its names.

        An upstream that stays keeps its connections and its health; a lowered cap is reached as
        leases end. One that is named no longer takes no more requests.
        """
        if plan.policy != self.plan.policy:
            self._picker.balancer = make_balancer(plan.policy)
        self.plan = plan
        self._key_of = key_reader(plan.policy, plan.key)
        self._picker.panic_percent = plan.panic_percent
        secret = plan.sticky_secret or self._own_secret
        self.sticky = Sticky(plan.sticky_cookie, secret.encode()) if plan.sticky_cookie else None
        self.queue.apply(plan.queue)
        self.budget.apply(plan.budget_percent)
        self.directory.keep(plan.members)
        self.membership.apply(plan, found)
        self._members_changed()

    def found(self, spec: Spec, endpoints: Sequence[Endpoint]) -> None:
        """DNS says who is behind a name of the plan."""
        if self.membership.moved(spec, endpoints):
            self._members_changed()

    def _members_changed(self) -> None:
        self._picker.apply(self.members, self._cookies())
        self.changed.set()
        self._reaper_wakeup.set()
        self.queue.serve()

    def _new_member(self, address: Address, rules: MemberRules) -> Member:
        gauges = self._gauges_of(str(address))
        member = Member(
            address,
            rules,
            self.plan.health,
            gauges,
            freed=self.queue.serve,
            changed=self._condition_changed,
            room_changed=self._picker.room_changed,
            label=f"{address}{self._label}",
        )
        member.idle_seconds = self.plan.idle_seconds
        return member

    def _condition_changed(self) -> None:
        self._picker.condition_changed()
        if len(self.queue):
            self._attention.set()

    def _cookies(self) -> dict[str, Member]:
        if self.sticky is None:
            return {}
        for member in self.members:
            member.cookie = self.sticky.value_of(member.name)
        return {member.cookie: member for member in self.members}

    # Runtime control

    def member(self, name: str) -> Member:
        """The member of that name, as logs show it. Raises LookupError."""
        for member in self.members:
            if member.name == name:
                return member
        raise LookupError(f"pool {self.name} has no upstream {name}")

    def drain(self, name: str) -> None:
        """Send an upstream no new requests but those of clients stuck to it, until `undrain`.

        A reload sets it to what the file says. Raises LookupError.
        """
        self.member(name).condition.drain(True)
        self.queue.serve()

    def undrain(self, name: str) -> None:
        """Use an upstream again. Raises LookupError."""
        self.member(name).condition.drain(False)
        self.queue.serve()

    def set_weight(self, name: str, weight: int) -> None:
        """Change an upstream's share of the load until the next reload.

        Raises LookupError, or ValueError if the weight is less than 1.
        """
        if weight < 1:
            raise ValueError(f"weight: is {weight} (expected at least 1)")
        self.member(name).set_weight(weight)

    # Requests

    def entered(self) -> None:
        """A request has come; `left` has to follow."""
        self.in_flight += 1

    def left(self) -> None:
        """A request has ended."""
        self.in_flight -= 1
        if not self.in_flight:
            self._unused.set()

    async def wait_until_unused(self) -> None:
        """Wait until no request is in flight."""
        while self.in_flight:
            self._unused = trio.Event()
            await self._unused.wait()

    def choice_for(self, request: Request, client: Client) -> Choice:
        """What a request asks of the balancer."""
        key = self._key_of(request, client)
        if self.sticky is None:
            return Choice(key)
        values = self.sticky.values_in(request.fields)
        return Choice(key, next(filter(self._picker.knows_cookie, values), ""))

    def next_try(self, choice: Choice) -> tuple[bool, float] | None:
        """Where a request that failed can go next; see `Picker.next_try`."""
        return self._picker.next_try(choice, trio.current_time())

    def tell_budget_is_spent(self) -> None:
        """Log that failures are no longer retried, because too many were."""
        self._budget_spent.warn("pool %s: retry.budget_percent reached, not retrying", self.name)

    def lease_nowait(self, holder: Exchange, choice: Choice, now: float) -> Slot | None:
        """A slot for one try, None if it has to wait.

        Raises ProxyError.
        """
        # Who comes now must not overtake those who wait for the same.
        if self.queue.has_general and not choice.is_particular:
            return None
        return self._maybe_assign(holder, choice, now)

    async def lease(self, holder: Exchange, choice: Choice, now: float) -> Slot:
        """Wait in the queue for a slot for one try.

        Raises ProxyError.
        """
        if not len(self.queue):
            self._attention.set()
        return await self.queue.wait(holder, choice, now)

    def _maybe_assign(self, holder: Exchange, choice: Choice, now: float) -> Slot | None:
        while (upstream := self._picker.pick(choice, now)) is not None:
            slot = upstream.maybe_lease(holder, now)
            if slot is not None:
                return slot
        return None

    def give_back(self, slot: Slot, now: float | None = None) -> None:
        """End a lease whose session can be used again; ``now`` saves asking for the time."""
        slot.upstream.give_back(slot, now)
        if self._reaper_parked:
            self._reaper_wakeup.set()

    async def serve_in_time(self) -> None:
        """Serve the queue when an upstream's condition changes, or time alone has changed it.

        Runs until cancelled.
        """
        while True:
            self._attention = trio.Event()
            next_at = self._picker.changes_at(trio.current_time()) if len(self.queue) else math.inf
            with trio.CancelScope(deadline=next_at):
                await self._attention.wait()
            self.queue.serve()

    # Idle connections

    async def reap_idle(self) -> None:
        """Close pooled connections when their idle deadline passes, until cancelled."""
        while True:
            now = trio.current_time()
            next_at = min((member.expire_idle(now) for member in self.members), default=math.inf)
            self._reaper_wakeup = trio.Event()
            self._reaper_parked = math.isinf(next_at)
            with trio.CancelScope(deadline=next_at):
                await self._reaper_wakeup.wait()

    def close_idle(self) -> None:
        """Close every idle connection of every member."""
        for member in self.members:
            member.close_idle()
