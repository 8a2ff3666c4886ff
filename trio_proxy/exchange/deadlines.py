"""The deadlines of an exchange: of all of it, of a try, and of each wait; and whose fault it is.

An exchange runs in one cancel scope, whose deadline is the total budget: whatever code runs inside,
a plugin's too, ends by then at the latest. Within it each wait has a budget of its own kind:

    with exchange.wait(Wait.READ) as block:
        await stream.wait_readable()
        if block.is_late:
            await block.too_late()

Leaving the block puts back what was before. Forgetting one costs precision, never the bound. Whose
budget runs out is told in one place, `Deadlines._out_of_time`, and ends the try that is under way
if it is the upstream's, or else the exchange.

To move the deadline of a scope costs 2 µs, and a wait hardly ever lasts to its end; so the deadline
of a wait is an attribute that one shared task looks at now and then (`trio_proxy.exchange.timers`).
Rejected: a scope for each wait, which costs 7 µs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

import trio

from trio_proxy.exchange.timers import Timed, Timers
from trio_proxy.exchange.waits import Wait
from trio_proxy.http.errors import ProxyError, Reason, Source
from trio_proxy.http.phases import Phase

#: An event loop with much to do notices some tens of milliseconds late that time is up. One that is
#: so many seconds late stood still (SIGSTOP, a debugger, a paused machine), and cannot tell whether
#: the upstream had answered in time.
STANDSTILL_SECONDS = 0.5


class Budgets:
    """How long everything may take, in seconds; `math.inf` for no limit. It is never changed.

    ``seconds`` has a length for each `Wait` by its name, and for ``total``, ``try``, ``idle`` and
    ``tunnel_idle``; what is not there has no limit.
    """

    __slots__ = ("idle", "total", "try_", "tunnel_idle", "waits")

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.waits = [seconds.get(wait.value, math.inf) for wait in Wait]
        self.total = seconds.get("total", math.inf)
        self.try_ = seconds.get("try", math.inf)
        self.idle = seconds.get("idle", math.inf)
        self.tunnel_idle = seconds.get("tunnel_idle", math.inf)

    def of(self, wait: Wait) -> float:
        """The length of one wait."""
        return self.waits[wait.index]


class Subject(Protocol):
    """What the deadlines are for."""

    phase: Phase


class TryUnderWay(Protocol):
    """What a budget that is the upstream's ends."""

    is_over: bool

    def fail(self, error: ProxyError) -> None:
        """End the try; synchronous, and may come more than once."""
        ...


class ExchangeScope:
    """The cancel scope of an exchange, and of the next one on the same connection.

    Its deadline is the total budget. To make, enter and leave a scope costs three times as much as
    to move the deadline of one that is there. So one that was not cancelled is not left at the end
    of an exchange, but serves the next one; until then its deadline is the last one's, and whoever
    waits meanwhile has `Deadlines.absorb` look at what cancels him. Nothing else may stay entered
    between two exchanges.
    """

    __slots__ = ("_deadlines", "_scope", "cancelled_caught")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._scope: trio.CancelScope | None = None
        #: Whether the block has ended by its cancellation.
        self.cancelled_caught = False

    def __enter__(self) -> ExchangeScope:
        scope, deadlines = self._scope, self._deadlines
        self.cancelled_caught = False
        if scope is not None and scope.cancel_called:
            self.leave(None, None, None)  # its deadline has passed since
            scope = None
        if scope is None:
            scope = self._scope = trio.CancelScope(deadline=deadlines.total_at)
            scope.__enter__()
        else:
            scope.deadline = deadlines.total_at
        deadlines.scope_opened(scope)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        scope = self._scope
        assert scope is not None
        if not scope.cancel_called:
            return False
        self._scope = None
        absorbed = scope.__exit__(exc_type, exc, traceback)
        self.cancelled_caught = scope.cancelled_caught
        return bool(absorbed)

    def leave(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Leave the scope for good, if there is one; whether that has absorbed the exception."""
        scope, self._scope = self._scope, None
        return scope is not None and bool(scope.__exit__(exc_type, exc, traceback))


class Deadlines:
    """The deadlines of the exchanges on one connection, one exchange after the other.

    It is a ``with`` block around all of them.
    """

    __slots__ = (
        "_ended_in",
        "_exchange_scope",
        "_spare",
        "budgets",
        "failure",
        "is_inherited",
        "is_over",
        "scope",
        "subject",
        "timers",
        "total_at",
        "total_seconds",
        "try_at",
        "try_under_way",
    )

    def __init__(self, timers: Timers, budgets: Budgets) -> None:
        self.timers = timers
        self._spare: WaitBlock | None = None
        self._exchange_scope = ExchangeScope(self)
        self.restart(None, budgets)

    def restart(self, subject: Subject | None, budgets: Budgets) -> None:
        """Another exchange begins, ``subject``, and nothing is running yet but the waits."""
        self.subject = subject
        self.budgets = budgets
        self.total_at = self.total_seconds = self.try_at = math.inf
        #: The total budget is one that a trusted peer has shortened.
        self.is_inherited = False
        self.scope: trio.CancelScope | None = None
        #: Why the exchange is to end early; the first reason stays.
        self.failure: ProxyError | None = None
        self.is_over = False
        self.try_under_way: TryUnderWay | None = None
        #: What was waited for when a cancellation came.
        self._ended_in: Wait | None = None

    def let_go(self) -> None:
        """The exchange is over: hold on to nothing of it."""
        self.subject = self.scope = self.failure = self.try_under_way = None

    # The whole exchange

    def start_total(self, now: float, at_most: float | None = None) -> None:
        """Let the total budget run from ``now``; ``at_most`` seconds can shorten it only."""
        seconds = self.budgets.total
        if at_most is not None and at_most < seconds:
            seconds, self.is_inherited = at_most, True
        self.total_seconds = seconds
        self.total_at = now + seconds

    def stop_total(self) -> None:
        """Take the total budget away: what follows is a tunnel."""
        self.total_at = math.inf
        if self.scope is not None:
            self.scope.deadline = math.inf

    def open_scope(self) -> ExchangeScope:
        """The scope to run the exchange in, a ``with`` block to be entered at once."""
        return self._exchange_scope

    def scope_opened(self, scope: trio.CancelScope) -> None:
        """The block was entered."""
        self.scope = scope
        if self.failure is not None:
            scope.cancel(reason=str(self.failure))

    def absorb(self, cancelled: trio.Cancelled) -> bool:
        """Between two exchanges: whether it was the last one's scope that has been cancelled."""
        return self._exchange_scope.leave(trio.Cancelled, cancelled, cancelled.__traceback__)

    def leave_scope(self) -> None:
        """There is no further exchange on this connection."""
        self._exchange_scope.leave(None, None, None)

    def __enter__(self) -> Deadlines:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """The connection ends."""
        return self._exchange_scope.leave(exc_type, exc, traceback)

    def remaining(self) -> float:
        """Seconds left of the total budget, never negative; `math.inf` if it is not running."""
        if math.isinf(self.total_at):
            return math.inf
        return max(0.0, self.total_at - self.timers.now())

    def abort(self, error: ProxyError) -> None:
        """End the exchange from wherever this is called: between task steps, or in another task."""
        if self.failure is None:
            self.failure = error
            self.is_over = True
            if self.scope is not None:
                self.scope.cancel(reason=str(error))

    def why_over(self) -> ProxyError | None:
        """Why the exchange's scope is cancelled; None if it is not, but perhaps one around it."""
        if self.failure is None and self.scope is not None and self.scope.cancel_called:
            late = self.timers.now() - self.total_at
            self.failure = self._out_of_time(self._ended_in, _TOTAL, late)
        return self.failure

    def begin_last_words(self) -> None:
        """The exchange has failed, and the client is to be told: only the wait for it counts."""
        self.restart(self.subject, self.budgets)

    # Waits

    def wait(self, wait: Wait) -> WaitBlock:
        """A block in which something is waited for; enter it at once."""
        block = self._spare
        if block is None:
            block = WaitBlock(self)
        else:
            self._spare = None
        block.wait = wait
        return block

    def end_wait(self, block: WaitBlock, wait: Wait | None) -> None:
        """A block is left; ``wait`` is what a cancellation has ended, None if none has."""
        if wait is not None and self._ended_in is None:
            self._ended_in = wait
        self._spare = block

    def run_out(self, wait: Wait, budget: str, late: float) -> None:
        """A budget has run out ``late`` seconds ago: end what it was for."""
        error = self._out_of_time(wait, budget, late)
        attempt = self.try_under_way
        if attempt is not None and wait.is_of_try and budget != _TOTAL:
            attempt.fail(error)
        else:
            self.abort(error)

    def _out_of_time(self, wait: Wait | None, budget: str, late: float) -> ProxyError:
        """Whose fault it is that time is up: of whoever was waited for, or of nobody but us."""
        source = Source.PROXY if wait is None else wait.source
        if budget == _TOTAL:
            reason, seconds = Reason.TOTAL_TIMEOUT, self.total_seconds
        elif budget == _TRY or wait is None:
            reason, seconds = Reason.TRY_TIMEOUT, self.budgets.try_
        else:
            reason, seconds = wait.reason, self.budgets.of(wait)
        detail = f"{budget} deadline of {seconds * 1000:.0f} ms passed"
        if source is Source.UPSTREAM and late > STANDSTILL_SECONDS:
            source = Source.PROXY
            detail += f" {late * 1000:.0f} ms ago, the proxy stood still"
        phase = Phase.READ_HEAD if self.subject is None else self.subject.phase
        return ProxyError(source, phase, reason, detail=detail)


_TOTAL = "total"
_TRY = "try"


class WaitBlock(Timed):
    """One wait for something, within its budget; see `Deadlines.wait`."""

    __slots__ = ("_budget", "_deadlines", "_is_suspended", "wait")

    wait: Wait

    def __init__(self, deadlines: Deadlines) -> None:
        super().__init__(deadlines.timers)
        self._deadlines = deadlines
        self._budget = ""
        self._is_suspended = False

    def __enter__(self) -> WaitBlock:
        self.begin()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.due = math.inf
        ended = exc_type is trio.Cancelled and not self._is_suspended
        self._is_suspended = False
        self._deadlines.end_wait(self, self.wait if ended else None)

    def begin(self) -> None:
        """Let the budget run from now on, anew if it was running."""
        self._is_suspended = False
        deadlines, wait = self._deadlines, self.wait
        due = self.timers.now() + deadlines.budgets.waits[wait.index]
        budget = wait.key
        if deadlines.try_at <= due and wait.is_of_try:
            due, budget = deadlines.try_at, _TRY
        if deadlines.total_at <= due:
            due, budget = deadlines.total_at, _TOTAL
        self._budget = budget
        self.due = due
        if due < self.look_at:
            self.timers.watch(self, due)

    def suspend(self) -> None:
        """It is not their turn: until `begin` nothing but the total budget counts."""
        self._is_suspended = True
        self.due = math.inf

    @property
    def is_late(self) -> bool:
        """Whether what has come came too late; to be asked after each await in the block.

        What comes in the very step in which its time is up comes too late, whichever of the two
        the event loop takes up first; and so does what comes when all is over for another reason.
        """
        deadlines = self._deadlines
        if deadlines.is_over or self.timers.now() >= self.due:
            return True
        attempt = deadlines.try_under_way
        return attempt is not None and attempt.is_over

    async def too_late(self) -> None:
        """Do not go on. Raises `trio.Cancelled`, as the wait would have, had it been noticed."""
        now = self.timers.now()
        if now >= self.due:
            super().run_out(now)
        await trio.lowlevel.checkpoint()
        raise trio.ClosedResourceError("time is up")

    def expire(self) -> None:
        self._deadlines.run_out(self.wait, self._budget, self.overdue)

    def end(self) -> None:
        """To expire has failed: the exchange must end all the same."""
        scope = self._deadlines.scope
        if scope is not None:
            scope.cancel(reason="a deadline that failed")
