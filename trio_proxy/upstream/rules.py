"""What the configuration says of the members of a pool."""

from __future__ import annotations

from collections.abc import Set

from attrs import frozen

from trio_proxy.policy.breaker import BreakerRules


@frozen(kw_only=True)
class MemberRules:
    """What the configuration says of one member of a pool; times in seconds."""

    max_conns: int
    #: What Host says when the client's is not preserved; empty for the address.
    authority: str = ""
    weight: int = 1
    backup: bool = False
    drain: bool = False
    max_fails: int = 1
    fail_seconds: float = 10.0
    slow_start_seconds: float = 0.0


@frozen(kw_only=True)
class HealthRules:
    """What of a pool's configuration bears on every member's condition.

    ``fail_statuses`` count as failures for the passive checks and ``error_statuses`` for the
    breaker, None for no breaker; ``rise`` and ``fall`` are those of active checks.
    """

    rise: int = 2
    fall: int = 3
    fail_statuses: Set[int] = frozenset()
    breaker: BreakerRules | None = None
    error_statuses: Set[int] = frozenset()
