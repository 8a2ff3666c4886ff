"""Whether a member may be sent requests, from what its requests and its probes came to.

Neither class keeps a timer: what was seen is a timestamp, and is judged when somebody asks.

`PassiveHealth` tells requests apart by tickets, because an outcome says something about the state
in which its request was sent only: a request from before an ejection that fails late is the same
trouble once more, one that succeeds late may have been answered before it. A count of requests
under way would do with less, but cannot say whose outcome it was.
"""

from __future__ import annotations

import math
from collections import deque


class PassiveHealth:
    """nginx's ``max_fails`` and ``fail_timeout``.

    ``max_fails`` failures within ``fail_seconds`` put a member out for ``fail_seconds``; 0 never
    does. Then it is on trial: one request is let in, and no other before its outcome is known, or
    for ``fail_seconds`` at most. If it succeeds, the member is in again with a clean sheet; if it
    fails, it is out for another ``fail_seconds``; if it is abandoned, the next may try at once.

    A request may also be sent while the member is out, when all the others are out too. Its
    success brings the member back; its failure changes nothing.

    A success while the member is in erases no failure: only time does.
    """

    __slots__ = (
        "_epoch",
        "_failures",
        "_is_ejected",
        "_serial",
        "_shut_at",
        "_trial",
        "fail_seconds",
        "max_fails",
    )

    def __init__(self, max_fails: int, fail_seconds: float) -> None:
        self.max_fails = max_fails
        self.fail_seconds = fail_seconds
        self._failures: deque[float] = deque()
        self._is_ejected = False
        # Counts changes of state and trials. Tickets are drawn from it, so one that is smaller
        # than the number at which the present state began, the epoch, is of an earlier state.
        self._serial = 0
        self._epoch = 0
        self._trial: int | None = None
        self._shut_at = -math.inf

    def __repr__(self) -> str:
        state = "in" if not self._is_ejected else "on trial" if self._trial else "out"
        return f"<PassiveHealth {state} failures={len(self._failures)}/{self.max_fails}>"

    @property
    def was_ejected(self) -> bool:
        """It was put out and is not back yet: out, or on trial."""
        return self._is_ejected

    def is_out(self, now: float) -> bool:
        """Nobody should be sent ``now``: it is out, or its trial is under way."""
        return now < self.back_at

    @property
    def back_at(self) -> float:
        """When it is out no longer, unless its trial fails; minus infinity if it is in."""
        return self._shut_at + self.fail_seconds

    def apply(self, max_fails: int, fail_seconds: float) -> None:
        """Take the numbers of a new configuration.

        A member that is out stays so, for the new ``fail_seconds`` from the moment it was put out;
        one that is in is judged by the new numbers at its next failure. 0 for ``max_fails`` brings
        it back.
        """
        self.max_fails = max_fails
        self.fail_seconds = fail_seconds
        if not max_fails:
            self.clear()
        while len(self._failures) > max_fails:
            self._failures.popleft()

    def clear(self) -> None:
        """Bring it back with a clean sheet, whatever it was."""
        self._failures.clear()
        if self._is_ejected:
            self._is_ejected = False
            self._shut_at = -math.inf
            self._change()

    def began(self, now: float) -> int:
        """A request is sent: its ticket, to be handed in once with its outcome.

        It is positive for a trial, zero or negative otherwise.
        """
        if not self._is_ejected or self.is_out(now):
            return -self._epoch
        self._serial += 1
        self._trial = self._serial
        self._shut_at = now
        return self._trial

    def succeeded(self, ticket: int, now: float) -> bool:
        """The request of a ticket was answered; whether that brought the member back."""
        if not self._is_ejected or abs(ticket) < self._epoch:
            return False
        self.clear()
        return True

    def failed(self, ticket: int, now: float) -> bool:
        """The request of a ticket failed; whether that put the member out, or out again."""
        if self._is_ejected:
            if ticket != self._trial:
                return False
            self._trial = None
            self._shut_at = now
            return True
        if not self.max_fails or abs(ticket) < self._epoch:
            return False
        return self._count_failure(now)

    def abandoned(self, ticket: int, now: float) -> None:
        """The request of a ticket was given up without a verdict: its client left."""
        if ticket == self._trial:
            self._trial = None
            self._shut_at = -math.inf

    def let_try(self) -> None:
        """Put it on trial at once if it is out: its failures were no fact about it alone."""
        if self._is_ejected and self._trial is None:
            self._shut_at = -math.inf

    def _count_failure(self, now: float) -> bool:
        failures = self._failures
        failures.append(now)
        while now - failures[0] > self.fail_seconds:
            failures.popleft()
        if len(failures) < self.max_fails:
            return False
        failures.clear()
        self._is_ejected = True
        self._shut_at = now
        self._change()
        return True

    def _change(self) -> None:
        self._serial += 1
        self._epoch = self._serial
        self._trial = None


class ActiveHealth:
    """HAProxy's ``rise`` and ``fall``: probes in a row that change the state.

    A member starts up, so that a proxy serves before its first probes are answered. ``fall``
    probes in a row that fail take it down, ``rise`` in a row that pass bring it up.
    """

    __slots__ = ("_streak", "fall", "is_up", "rise")

    def __init__(self, rise: int, fall: int) -> None:
        self.rise = rise
        self.fall = fall
        self.is_up = True
        self._streak = 0

    def __repr__(self) -> str:
        needed = self.fall if self.is_up else self.rise
        return f"<ActiveHealth {'up' if self.is_up else 'down'} {self._streak}/{needed}>"

    def apply(self, rise: int, fall: int) -> None:
        """Take the numbers of a new configuration; they count from the next probe on."""
        self.rise = rise
        self.fall = fall

    def passed(self) -> bool:
        """A probe passed; whether that brought the member up."""
        return self._note(against=not self.is_up, needed=self.rise)

    def failed(self) -> bool:
        """A probe failed; whether that took the member down."""
        return self._note(against=self.is_up, needed=self.fall)

    def _note(self, *, against: bool, needed: int) -> bool:
        self._streak = self._streak + 1 if against else 0
        if not against or self._streak < needed:
            return False
        self._streak = 0
        self.is_up = not self.is_up
        return True
