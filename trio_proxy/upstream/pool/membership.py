"""Who the members of a pool are: the servers that its plan names, or that DNS finds behind names.

An upstream that stays a member stays the same object, with its connections and all that is known of
its health. One that is a member no longer is seen off by the `keeper`; if it is named again before
its last request has ended, it comes back with all that is known of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import attrs
import trio

from trio_proxy.http.addresses import Address
from trio_proxy.upstream.pool.discovery import Endpoint, Spec
from trio_proxy.upstream.pool.member import Member
from trio_proxy.upstream.pool.rules import MemberRules, PoolRules

log = logging.getLogger("trio_proxy.upstream")


class Membership:
    """The members of one pool, in the order of its plan. ``make`` makes one that is new."""

    def __init__(self, plan: PoolRules, make: Callable[[Address, MemberRules], Member]) -> None:
        self.members: list[Member] = []
        self._plan = plan
        self._make = make
        #: Who is behind each name of the plan that was looked up with success.
        self._found: dict[Spec, Sequence[Endpoint]] = {}
        self._retired: list[Member] = []
        #: Those that are members no longer, and still have requests under way.
        self._leaving: dict[Address, Member] = {}

    def __repr__(self) -> str:
        return f"<Membership {self.members} leaving={list(self._leaving.values())}>"

    def apply(self, plan: PoolRules, found: Mapping[Spec, Sequence[Endpoint]]) -> None:
        """Take on a new plan, and who was found behind its names."""
        self._plan = plan
        known = {**self._found, **found}
        self._found = {spec: known[spec] for spec in plan.members if spec in known}
        self._rebuild(is_reload=True)

    def moved(self, spec: Spec, endpoints: Sequence[Endpoint]) -> bool:
        """Take on who is behind a name now; whether that is news."""
        if spec not in self._plan.members or self._found.get(spec) == endpoints:
            return False
        self._found[spec] = endpoints
        self._rebuild(is_reload=False)
        return True

    def knows(self, spec: Spec) -> bool:
        """Whether a name was looked up with success before."""
        return spec in self._found

    def _wanted(self) -> dict[Address, MemberRules]:
        """Every member that there should be, the first mention of an address counting."""
        wanted: dict[Address, MemberRules] = {}
        for spec, rules in self._plan.members.items():
            for endpoint in self._endpoints(spec):
                own = attrs.evolve(
                    rules,
                    authority=endpoint.authority,
                    weight=rules.weight * endpoint.weight,
                    backup=rules.backup or endpoint.backup,
                )
                wanted.setdefault(endpoint.address, own)
        return wanted

    def _endpoints(self, spec: Spec) -> Sequence[Endpoint]:
        if spec in self._found:
            return self._found[spec]
        # A host that was never found is a member by its name, so that requests say what is wrong.
        return [Endpoint(spec)] if isinstance(spec, Address) else []

    def _rebuild(self, *, is_reload: bool) -> None:
        wanted = self._wanted()
        known = {member.address: member for member in self.members}
        is_first = not known
        self.members = []
        for address, rules in wanted.items():
            member = known.pop(address, None)
            is_back = member is None and (member := self._returning(address)) is not None
            if member is None:
                member = self._make(address, rules)
                if not is_first:
                    log.info("upstream %s added", member.label)
                    member.condition.start_slowly(trio.current_time())
            elif is_reload or is_back or rules != member.rules:
                health, idle_seconds = self._plan.health, self._plan.idle_seconds
                member.apply(rules, health, idle_seconds, is_reload=is_reload)
            self.members.append(member)
        for member in self.members:
            member.condition.set_sole(len(self.members) == 1)
            if self._plan.checks is None:
                member.condition.forget_checks()
        for member in known.values():
            member.retire()
            self._leaving[member.address] = member
            self._retired.append(member)

    def _returning(self, address: Address) -> Member | None:
        """The upstream of that address if it was taken away, but has requests under way."""
        member = self._leaving.pop(address, None)
        if member is not None:
            member.unretire()
        return member

    def take_retired(self) -> list[Member]:
        """The upstreams that are no longer members, for the keeper to see off."""
        retired, self._retired = self._retired, []
        return retired

    def has_left(self, upstream: Member) -> None:
        """The last request of an upstream that was taken away has ended."""
        self._leaving.pop(upstream.address, None)
