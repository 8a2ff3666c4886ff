"""What the configuration says of a pool, its members, its queue and its checks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set

from attrs import field, frozen

from trio_proxy.policy.breaker import BreakerRules
from trio_proxy.policy.retry import RetryRules
from trio_proxy.upstream.pool.discovery import Spec, is_name


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


@frozen(kw_only=True)
class CheckRules:
    """What is asked and what is expected; times in seconds, ``host`` empty for the upstream's."""

    path: str
    host: str = ""
    interval_seconds: float = 5.0
    timeout_seconds: float = 1.0
    expect: Set[int] = frozenset()
    expect_body: str = ""


@frozen(kw_only=True)
class QueueRules:
    """``max_length`` requests wait at most ``seconds`` each; ``target_seconds`` is for LIFO."""

    max_length: int = 1000
    seconds: float = math.inf
    is_lifo: bool = False
    target_seconds: float = 0.1


@frozen(kw_only=True)
class PoolRules:
    """All of it; times in seconds.

    ``members`` maps each server, or name that stands for servers, to its rules.
    """

    members: Mapping[Spec, MemberRules]
    policy: str = "round_robin"
    key: str = "client_ip"
    sticky_cookie: str = ""
    sticky_secret: str = ""
    panic_percent: int = 0
    health: HealthRules = field(factory=HealthRules)
    #: None for no active checks.
    checks: CheckRules | None = None
    queue: QueueRules = field(factory=QueueRules)
    retry: RetryRules = field(factory=RetryRules)
    budget_percent: int = 20
    idle_seconds: float = math.inf
    drain_seconds: float = math.inf
    refresh_seconds: float = math.inf
    #: Whom names are asked of; none is the system.
    nameservers: Sequence[str] = ()

    @property
    def names(self) -> Sequence[Spec]:
        """What DNS has to be asked for."""
        return [spec for spec in self.members if is_name(spec)]

    def is_refreshed_like(self, other: PoolRules) -> bool:
        """Whether names are looked up by themselves, and of the same servers."""
        is_refreshed = not math.isinf(self.refresh_seconds)
        return is_refreshed and self.nameservers == other.nameservers
