"""What a configuration says of a pool."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attrs import field, frozen

from trio_proxy.policy.retry import RetryRules
from trio_proxy.upstream.discovery import Spec
from trio_proxy.upstream.probe import CheckRules
from trio_proxy.upstream.queue import QueueRules
from trio_proxy.upstream.rules import HealthRules, MemberRules


@frozen(kw_only=True)
class ClusterPlan:
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

    def is_refreshed_like(self, other: ClusterPlan) -> bool:
        """Whether names are looked up by themselves, and of the same servers."""
        is_refreshed = not math.isinf(self.refresh_seconds)
        return is_refreshed and self.nameservers == other.nameservers
