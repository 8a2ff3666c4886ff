"""The circuit breaker of one upstream: stop asking what keeps failing, then ask with care.

    CLOSED ── too large a share of errors ──▶ OPEN ── open_seconds, next request ──▶ HALF_OPEN
       ▲                                       ▲                                      │    │
       │                                       └──────────── any failure ─────────────┘    │
       └──────────────────────── half_open_requests successes ─────────────────────────────┘

The states are those of Resilience4j and of Fowler's "CircuitBreaker". Each change of state begins
an epoch, whose number is the ticket of the requests sent in it, so a slow request from before the
change has no say in what follows.
"""

from __future__ import annotations

import enum

from attrs import frozen

from trio_proxy.policy.windows import SlidingCount

#: A probe that has no outcome gives its place to another after ``open_seconds``, so that slow
#: clients cannot hold them all, but not sooner than this: an answer may take so long.
LEAST_PROBE_SECONDS = 1.0

#: Seconds to wait for a place among the probes: nobody knows when one comes back, and this is the
#: least delay but none that Retry-After can name.
PROBE_WAIT_SECONDS = 1.0

#: The ticket of a request that was not admitted. No epoch has this number.
_NOT_ADMITTED = 0


class State(enum.StrEnum):
    """What a breaker does with requests: all pass, none passes, a few pass as probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@frozen(kw_only=True)
class BreakerRules:
    """When a breaker opens and how it closes.

    It opens when the last ``window_seconds`` (counted in tenths, so nine to ten tenths of them)
    hold ``min_requests`` outcomes or more, of which ``error_percent`` (1 to 100) or more are
    failures. It stays open for ``open_seconds``. Then up to ``half_open_requests`` are sent at
    once, and that many successes close it.
    """

    window_seconds: float
    min_requests: int
    error_percent: int
    open_seconds: float
    half_open_requests: int


class Breaker:
    """One breaker; `admits` is asked first, then `began`, then one of the three outcomes."""

    __slots__ = (
        "_epoch",
        "_errors",
        "_opened_at",
        "_outcomes",
        "_probes",
        "_rules",
        "_serial",
        "_state",
        "_successes",
    )

    def __init__(self, rules: BreakerRules) -> None:
        self._rules = rules
        self._state = State.CLOSED
        self._epoch = 1
        self._opened_at = 0.0
        # Tickets are drawn from this; one that is smaller than the number at which the present
        # state began, the epoch, is of an earlier state.
        self._serial = 1
        #: When the probes under way began, by their tickets, oldest first.
        self._probes: dict[int, float] = {}
        self._successes = 0
        self._outcomes = SlidingCount(rules.window_seconds)
        self._errors = SlidingCount(rules.window_seconds)

    def __repr__(self) -> str:
        return (
            f"<Breaker {self._state} outcomes={self._outcomes} errors={self._errors} "
            f"opened_at={self._opened_at} probes={len(self._probes)} successes={self._successes}>"
        )

    @property
    def state(self) -> State:
        """OPEN lasts until a request is sent after its time, not until the time is up."""
        return self._state

    def apply(self, rules: BreakerRules) -> None:
        """Take the rules of a new configuration; the state stays.

        They count from the next call on, ``open_seconds`` from the moment it opened. Only a new
        ``window_seconds`` forgets the outcomes so far.
        """
        if rules.window_seconds != self._rules.window_seconds:
            self._outcomes = SlidingCount(rules.window_seconds)
            self._errors = SlidingCount(rules.window_seconds)
        self._rules = rules

    def admits(self, now: float) -> bool:
        """Whether a request may be sent ``now``. Asking changes nothing."""
        if self._state is State.CLOSED:
            return True
        if self._state is State.OPEN:
            return now >= self._opened_at + self._rules.open_seconds
        if len(self._probes) < self._rules.half_open_requests:
            return True
        oldest = next(iter(self._probes.values()))
        return now >= oldest + max(self._rules.open_seconds, LEAST_PROBE_SECONDS)

    def wait(self, now: float) -> float:
        """Seconds until it may admit a request: 0.0 exactly if it admits one ``now``.

        `PROBE_WAIT_SECONDS` while every probe is under way.
        """
        if self.admits(now):
            return 0.0
        if self._state is State.OPEN:
            return self._opened_at + self._rules.open_seconds - now
        return PROBE_WAIT_SECONDS

    def began(self, now: float) -> int:
        """A request is sent: its ticket, to be handed in once with its outcome.

        Turns OPEN into HALF_OPEN when its time is up, and takes a place among the probes. A
        request that is sent although it is not admitted takes none and has no say later.
        """
        if self._state is State.CLOSED:
            return self._epoch
        if not self.admits(now):
            return _NOT_ADMITTED
        if self._state is State.OPEN:
            self._change(State.HALF_OPEN)
            self._successes = 0
        if len(self._probes) >= self._rules.half_open_requests:
            del self._probes[next(iter(self._probes))]
        self._serial += 1
        self._probes[self._serial] = now
        return self._serial

    def succeeded(self, ticket: int, now: float) -> State | None:
        """The request of a ticket was answered; the new state if that changed it.

        That is CLOSED after a probe, and can be OPEN after an ordinary request: the first that
        makes the outcomes enough for a verdict may be a success.
        """
        if ticket < self._epoch:
            return None
        if self._state is State.CLOSED:
            self._outcomes.add(now)
            return self._judge(now)
        self._probes.pop(ticket, None)
        self._successes += 1
        if self._successes < self._rules.half_open_requests:
            return None
        self._outcomes.clear()
        self._errors.clear()
        return self._change(State.CLOSED)

    def failed(self, ticket: int, now: float) -> State | None:
        """The request of a ticket failed; OPEN if that opened the breaker."""
        if ticket < self._epoch:
            return None
        if self._state is State.CLOSED:
            self._outcomes.add(now)
            self._errors.add(now)
            return self._judge(now)
        return self._open(now)

    def abandoned(self, ticket: int, now: float) -> None:
        """The request of a ticket was given up without a verdict: its client left."""
        self._probes.pop(ticket, None)

    def _judge(self, now: float) -> State | None:
        errors = self._errors.total(now)
        if not errors:
            return None
        outcomes = self._outcomes.total(now)
        if outcomes < self._rules.min_requests:
            return None
        if errors * 100 < self._rules.error_percent * outcomes:
            return None
        return self._open(now)

    def _open(self, now: float) -> State:
        self._opened_at = now
        return self._change(State.OPEN)

    def _change(self, state: State) -> State:
        self._serial += 1
        self._epoch = self._serial
        self._probes.clear()
        self._state = state
        return state
