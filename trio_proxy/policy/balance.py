"""Which upstream is next.

A policy is asked for one of the candidates: the members that are available and have room, in the
order of the configuration. What it must remember it keeps by the member's name, so the candidates
may change from one request to the next and members may come and go; `Balancer.keep` bounds what is
remembered by what is configured. Chance is an argument: the same calls give the same choices.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Protocol

from trio_proxy.policy.candidate import C
from trio_proxy.policy.least_conn import LeastConnections
from trio_proxy.policy.random_two import RandomTwo
from trio_proxy.policy.rendezvous import RendezvousHash
from trio_proxy.policy.round_robin import SmoothRoundRobin


class Balancer(Protocol):
    """One balancing policy, with the state of one pool."""

    def choose(self, candidates: Sequence[C], key: int, random: Callable[[], float]) -> C:
        """The candidate that gets the next request, which counts as sent there.

        There is at least one candidate. ``key`` is `hashing.hash_of` what requests are told apart
        by, 0 if the policy does not look; ``random`` gives numbers in [0, 1).

        A tuple promises more: whenever the same one is given, its members have the weights that
        they had before. So what follows from these is worked out once for it.
        """
        ...

    def keep(self, names: Collection[str]) -> None:
        """Forget every member but those named, because the others are no longer configured."""
        ...


_BALANCERS: dict[str, Callable[[], Balancer]] = {
    "round_robin": SmoothRoundRobin,
    "least_conn": LeastConnections,
    "random_two": RandomTwo,
    "ip_hash": partial(RendezvousHash, is_bounded=False),
    "hash": RendezvousHash,
}

#: The policies by the names that a configuration knows.
POLICIES = tuple(_BALANCERS)


def make_balancer(policy: str) -> Balancer:
    """A balancer with nothing remembered. Raises KeyError unless ``policy`` is in `POLICIES`."""
    return _BALANCERS[policy]()
