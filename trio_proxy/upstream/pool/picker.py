"""Which member of a pool a request goes to.

Candidates are found in this order: the upstream that the client is stuck to; the primaries that
are available; the backups that are; and when nobody is, those that look least bad, because an
answer that may fail is better than one that has failed already. A balancing policy chooses among
the candidates that have room.

Nearly always every primary is fit and nothing is particular about the request. Then those that are
ready are at hand, and stay so until an upstream tells that its condition, its weight or its having
room has changed: no list is made for each request.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

from trio_proxy.exchange.complaint import Complaint
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.phases import Phase
from trio_proxy.policy.balance import Balancer
from trio_proxy.upstream.pool.member import Member
from trio_proxy.upstream.session import Owner

log = logging.getLogger("trio_proxy.upstream")


class Choice:
    """What one request asks for.

    ``key`` is the hash that hashing policies go by and ``stuck_to`` the cookie that pins it to an
    upstream. ``tried`` are the upstreams that have failed it, each with the time before which it
    does not want to be asked again.
    """

    __slots__ = ("key", "stuck_to", "tried")

    def __init__(self, key: int = 0, stuck_to: str = "") -> None:
        self.key = key
        self.stuck_to = stuck_to
        self.tried: dict[Owner, float] = {}

    @property
    def is_particular(self) -> bool:
        """Whether another request can have room where this one has none."""
        return bool(self.stuck_to or self.tried)

    @property
    def kind(self) -> tuple[str, frozenset[Owner]]:
        """What it has in common with those that have room where it has, and nowhere else."""
        return self.stuck_to, frozenset(self.tried)


class Picker:
    """Chooses among the members of one pool."""

    def __init__(self, pool: str, balancer: Balancer, random: Callable[[], float]) -> None:
        self._pool = pool
        self._random = random
        self._primaries: Sequence[Member] = ()
        self._backups: Sequence[Member] = ()
        #: The primaries that are not fit, so that their conditions have to be asked.
        self._unfit: Sequence[Member] = ()
        #: Whether the primaries that are ready are all that there is to think of.
        self._is_usual = False
        #: Whether `_unfit` and `_is_usual` are up to date.
        self._has_looked = False
        #: Those, None when it has to be found out anew. A tuple, as `Balancer.choose` has it.
        self._ready: tuple[Member, ...] | None = None
        self._cookies: dict[str, Member] = {}
        self._panicking = Complaint(log)
        self._all_were_out = False
        self.balancer = balancer
        #: With less than this share of the primaries available, their health is ignored.
        self.panic_percent = 0

    def apply(self, members: Sequence[Member], cookies: dict[str, Member]) -> None:
        """Take on the members of the pool, and the cookie that sticks to each."""
        self._primaries = [each for each in members if not each.backup]
        self._backups = [each for each in members if each.backup]
        self._cookies = cookies
        self.balancer.keep({each.name for each in members})
        self.condition_changed()

    def condition_changed(self) -> None:
        """The condition, or the weight, of a member is another."""
        self._has_looked = False
        self._ready = None

    def room_changed(self) -> None:
        """A member has no room any more, or has some again."""
        self._ready = None

    def knows_cookie(self, value: str) -> bool:
        """Whether a cookie stands for a member."""
        return value in self._cookies

    def pick(self, choice: Choice, now: float) -> Member | None:
        """The upstream for a request; None if it has to wait for room.

        Raises ProxyError if there is nobody to wait for.
        """
        ready: Sequence[Member] | None = self._ready
        if ready is None:
            ready = self._look()
        if choice.tried or choice.stuck_to or not self._is_usual:
            ready = self._consider(choice, now, ready)
        if len(ready) > 1:
            return self.balancer.choose(ready, choice.key, self._random)
        return ready[0] if ready else None

    def _look(self) -> Sequence[Member]:
        """Find out who is ready."""
        primaries = self._primaries
        if not self._has_looked:
            self._has_looked = True
            self._unfit = [each for each in primaries if not each.condition.is_fit]
            self._is_usual = bool(primaries) and not self._unfit
            if self._is_usual:
                self._all_were_out = False
        self._ready = tuple([each for each in primaries if each.is_ready])
        return self._ready

    def _consider(self, choice: Choice, now: float, ready: Sequence[Member]) -> Sequence[Member]:
        """The candidates with room where there is something to think about."""
        if not choice.is_particular and self._are_fit_ones_all(now):
            return ready
        return [each for each in self.candidates(choice, now) if each.has_room]

    def _are_fit_ones_all(self, now: float) -> bool:
        """Whether the candidates are the primaries that are fit, and nobody else."""
        fit = len(self._primaries) - len(self._unfit)
        if not fit or self._all_were_out or self._are_too_few(fit):
            return False
        return not any(each.condition.is_available(now) for each in self._unfit)

    def candidates(self, choice: Choice, now: float) -> Sequence[Member]:
        """Who may get the request, with room or without. Raises ProxyError if nobody may."""
        stuck = self._cookies.get(choice.stuck_to) if choice.stuck_to else None
        if stuck in choice.tried:
            stuck = None
        if stuck is not None and stuck.condition.takes_stuck(now):
            return (stuck,)
        found = self._available(now)
        if stuck is not None and stuck in found:
            return (stuck,)
        if choice.tried:
            found = self._untried(found, choice.tried, now)
        for each in found:
            if not each.condition.is_fit:
                each.weight = each.condition.effective_weight(now)
        return found

    def next_try(self, choice: Choice, now: float) -> tuple[bool, float] | None:
        """Whether an upstream is left that has not failed the request, and the wait before it.

        The wait, in seconds, is what an upstream has asked for that has to be asked again. None if
        nobody is left at all.
        """
        try:
            found = self._untried(self._available(now), choice.tried, now)
        except ProxyError:
            return None
        if any(each not in choice.tried for each in found):
            return True, 0.0
        return False, max(0.0, min(choice.tried[each] for each in found) - now)

    def _untried(
        self, found: Sequence[Member], tried: Mapping[Owner, float], now: float
    ) -> Sequence[Member]:
        """Another upstream while there is one, a backup too; else one that wants to be asked.

        A further try is for an answer, so those that are well come before the least bad.
        """
        others = [each for each in found if each not in tried]
        return (
            _available_of(others, now)
            or others
            or [each for each in _available_of(self._backups, now) if each not in tried]
            or [each for each in found if tried[each] <= now]
            or found
        )

    def changes_at(self, now: float) -> float:
        """When a member may become available by nothing but time."""
        members = (*self._primaries, *self._backups)
        return min((each.condition.changes_at(now) for each in members), default=math.inf)

    def _available(self, now: float) -> Sequence[Member]:
        found = _available_of(self._primaries, now)
        if found and self._all_were_out:
            # One is back: the others need not wait for fail_timeout, or it would carry all alone.
            self._all_were_out = False
            for each in self._primaries:
                each.condition.let_try()
            found = _available_of(self._primaries, now)
        if found and not self._are_too_few(len(found)):
            return found
        if not found:
            found = _available_of(self._backups, now)
            if found:
                return found
            return self._least_bad(now)
        self._panic("too few upstreams are available")
        return [each for each in self._primaries if each.condition.is_worth_a_try(now)]

    def _are_too_few(self, available: int) -> bool:
        """Whether the available primaries are below ``panic_percent``; a drain is no illness."""
        if available * 100 >= self.panic_percent * len(self._primaries):
            return False
        in_use = sum(not each.condition.draining for each in self._primaries)
        return available * 100 < self.panic_percent * in_use

    def _least_bad(self, now: float) -> Sequence[Member]:
        """Those to try although all are out: what has failed may work again by now."""
        groups = (self._primaries, self._backups)
        worth = [[e for e in group if e.condition.is_worth_a_try(now)] for group in groups]
        passing = [[e for e in group if e.condition.passes_checks] for group in worth]
        for group in (*passing, *worth):
            if group:
                self._all_were_out = True
                self._panic("no upstream is available")
                return group
        raise self._nobody(now)

    def _panic(self, why: str) -> None:
        self._panicking.warn("pool %s: %s, ignoring their health", self._pool, why)

    def _nobody(self, now: float) -> ProxyError:
        members = (*self._primaries, *self._backups)
        waits = [each.condition.breaker_wait(now) for each in members]
        closed_at = [wait for wait in waits if wait is not None]
        if closed_at:
            retry_after = min(closed_at)
            return ProxyError(
                Source.PROXY, Phase.PICK, Reason.BREAKER_OPEN, retry_after=retry_after
            )
        return ProxyError(Source.PROXY, Phase.PICK, Reason.NO_UPSTREAM)


def _available_of(members: Sequence[Member], now: float) -> Sequence[Member]:
    """Those of the members that are available; nearly all are fit, and have not to be asked."""
    conditions = [(each, each.condition) for each in members]
    return [each for each, its in conditions if its.is_fit or its.is_available(now)]
