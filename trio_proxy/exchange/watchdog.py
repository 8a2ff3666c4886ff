"""The cancel scope of a task that serves exchanges, and the deadline that may cancel it.

Only a wait needs a deadline: an operation that finds its bytes ready never touches the clock.
`Watchdog.arm` starts the budget of one wait, and keeps its name so that the error can name it. The
scope has no deadline of its own; `Timers` cancels it, so that one scope does for many exchanges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import TracebackType

import trio

from trio_proxy.exchange.deadlines import Deadlines
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.exchange.streams import Stream
from trio_proxy.exchange.timers import Timed, Timers
from trio_proxy.http.errors import TIMEOUT_REASONS, ProxyError, Source

#: Operations in a row that found their bytes ready before a task lets the others run.
TURNS_WITHOUT_CHECKPOINT = 16

#: Whose fault it is when time runs out in a wait; the upstream's where nothing is said.
_BLAME = {
    "head": Source.CLIENT,
    "body": Source.CLIENT,
    "client_write": Source.CLIENT,
    "queue": Source.PROXY,
    "": Source.PROXY,
}


#: An event loop with much to do notices some tens of milliseconds late that time is up. One that is
#: so many seconds late stood still (SIGSTOP, a debugger, a paused machine), and cannot tell whether
#: the upstream had answered in time.
STANDSTILL_SECONDS = 0.5

#: The budgets that end an exchange, also while a try is under way: that is not its business.
_OF_EXCHANGE = frozenset(("total", "client_write"))


class Watchdog(Timed):
    """The cancel scope of one task, for one exchange or many, and why it was cancelled.

    Use ``with watchdog:`` once; afterwards ask `was_cancelled`, and `failure` for the reason.
    Between `start_try` and `stop_try`, a budget may run out without ending the exchange.
    """

    __slots__ = (
        "_aborted",
        "_budget",
        "_failed_try",
        "_interrupt",
        "_scope",
        "_try_budget",
        "_try_is_over",
        "_turns",
        "_wait",
        "deadlines",
        "is_over",
    )

    def __init__(self, deadlines: Deadlines, timers: Timers) -> None:
        super().__init__(timers)
        self.deadlines = deadlines
        self._scope = trio.CancelScope()
        self._interrupt: Callable[[], None] | None = None
        self._try_is_over = False
        self._budget = self._try_budget = self._wait = ""
        self._aborted: ProxyError | None = None
        self._failed_try: ProxyError | None = None
        self._turns = 0
        #: Whether it was cancelled, for whatever reason.
        self.is_over = False

    def __enter__(self) -> Watchdog:
        self._scope.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self.timers.forget(self)
        return self._scope.__exit__(exc_type, exc, traceback)

    @property
    def was_cancelled(self) -> bool:
        """Whether the block has ended by the cancellation of this scope."""
        return self._scope.cancelled_caught

    def restart(self, seconds: Mapping[str, float]) -> None:
        """Another exchange begins, with budgets of these lengths, and nothing is waited for."""
        self.deadlines.restart(seconds)
        self.due = math.inf

    def arm(self, wait: str) -> None:
        """Start the budget of one wait; call right before awaiting."""
        if self.is_over or self._try_is_over:
            return  # the budget that ran out keeps its name
        self._wait = wait
        nearest = self.deadlines.nearest_in_try if self._interrupt else self.deadlines.nearest
        due, self._budget = nearest(wait, self.timers.now())
        self.due = due
        if due < self.look_at:
            self.timers.watch(self, due)

    async def wait_readable(self, stream: Stream, wait: str) -> None:
        """Wait for bytes, the end or an error of a stream within the budget named ``wait``.

        What comes in the very step in which that runs out comes too late.
        """
        self.arm(wait)
        await stream.wait_readable()
        if self.is_over or self.timers.now() >= self.due:
            await self.too_late()

    async def too_late(self) -> None:
        """The deadline has passed, though `Timers` may not have seen it yet: do not go on.

        Raises what the wait would have raised, had `Timers` been in time. Whoever was cancelled in
        the very step in which the wait ended does not go on either: it was counted on.
        """
        if self.is_over:
            self.due = math.inf
        else:
            self.run_out(self.timers.now())
        await trio.lowlevel.checkpoint()
        raise trio.ClosedResourceError("the try is over")

    def expire(self) -> None:
        if self._interrupt is None or self._budget in _OF_EXCHANGE:
            self.cancel(f"{self._budget} deadline")
        else:
            self._end_try()

    def end(self) -> None:
        self.cancel(f"{self._budget} deadline")

    def cancel(self, reason: str) -> None:
        """End what runs inside, at its next checkpoint."""
        self.is_over = True
        self._scope.cancel(reason=reason)

    def abort(self, error: ProxyError) -> None:
        """Cancel from outside (the client left, the upload failed). The first reason stays."""
        if self._aborted is None:
            self._aborted = error
            self.cancel(str(error))

    def start_try(self, now: float, interrupt: Callable[[], None]) -> None:
        """One try at an upstream begins.

        When a budget of it runs out, ``interrupt`` is called: it has whatever the task waits for
        fail. That costs less than a scope for each try, and a connection whose time was up has to
        be closed anyway. What ends the whole exchange, as its total budget does, still cancels.
        """
        self._failed_try = None
        self._try_is_over = False
        self._interrupt = interrupt
        self._arm_total()
        self.deadlines.start_try(now)

    def stop_try(self) -> None:
        """The try has its response head, or has failed."""
        self._interrupt = None
        self._try_is_over = False
        self.deadlines.stop_try()
        if not self.is_over:
            self._arm_total()

    def _arm_total(self) -> None:
        self._budget = "total"
        self.put_off(self.deadlines.total_at)

    def _end_try(self) -> None:
        if self._interrupt is not None and not self._try_is_over:
            self._try_is_over = True
            self._try_budget = self._budget
            self._arm_total()
            self._interrupt()

    def fail_try(self, error: ProxyError) -> None:
        """End the try under way from outside; beyond the response head, the exchange."""
        if self._interrupt is None or self._wait == "client_write":
            self.abort(error)  # while half an interim head is on its way, nothing else can follow
        elif not self._try_is_over:
            self._failed_try = error
            self._end_try()

    def try_failure(self, exchange: Exchange) -> ProxyError | None:
        """Why the try under way was interrupted; None if it was not."""
        if not self._try_is_over:
            return None
        return self._failed_try or self._out_of_time(exchange, self._try_budget)

    @property
    def wait(self) -> str:
        """The name of the wait that was armed last."""
        return self._wait

    def failure(self, exchange: Exchange) -> ProxyError:
        """Why the scope was cancelled, as the error to report."""
        return self._aborted or self._out_of_time(exchange, self._budget)

    def _out_of_time(self, exchange: Exchange, budget: str) -> ProxyError:
        source = _BLAME.get(self._wait, Source.UPSTREAM)
        reason = TIMEOUT_REASONS[budget]
        seconds = self.deadlines.length(budget)
        detail = f"{budget} deadline of {seconds * 1000:.0f} ms passed"
        if source is Source.UPSTREAM and self.overdue > STANDSTILL_SECONDS:
            source = Source.PROXY
            detail += f" {self.overdue * 1000:.0f} ms ago, the proxy stood still"
        return ProxyError(source, exchange.phase, reason, detail=detail)

    def is_winded(self, turns: int = 1) -> bool:
        """Whether it is time to let other tasks run; call it where no wait was needed.

        A large operation counts for as many ``turns`` as it takes the time of.
        """
        self._turns += turns
        return self._turns >= TURNS_WITHOUT_CHECKPOINT

    async def breathe(self, wait: str) -> None:
        """Let other tasks run if it is time for it; cheap otherwise."""
        if self.is_winded():
            self._turns = 0
            self.arm(wait)
            await trio.lowlevel.checkpoint()
