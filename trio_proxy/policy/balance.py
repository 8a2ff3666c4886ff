"""Which upstream is next.

A policy is asked for one of the candidates: the members that are available and have room, in the
order of the configuration. What it must remember it keeps by the member's name, so the candidates
may change from one request to the next and members may come and go; `Balancer.keep` bounds what is
remembered by what is configured. Chance is an argument: the same calls give the same choices.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import accumulate
from math import inf, log
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from trio_proxy.policy.hashing import mix_all
from trio_proxy.policy.rotation import Rotation, scale_of

#: How far above its share a member may be before a hashed key goes elsewhere: the least that
#: HAProxy calls reasonable for ``hash-balance-factor`` (125 percent). A float holds it exactly.
LOAD_FACTOR = 1.25


class Candidate(Protocol):
    """An upstream that may be picked now."""

    @property
    def name(self) -> str:
        """What identifies it for as long as it is configured: ``10.0.0.1:9000``."""
        ...

    @property
    def weight(self) -> float:
        """Its weight now, above 0; a fraction of the configured one during a slow start."""
        ...

    @property
    def base_weight(self) -> int:
        """Its weight as configured, at least 1."""
        ...

    @property
    def in_flight(self) -> int:
        """How many requests it is serving."""
        ...

    @property
    def seed(self) -> int:
        """`hashing.seed_of` its name."""
        ...


C = TypeVar("C", bound=Candidate)

_IN_FLIGHT = attrgetter("in_flight")


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


class SmoothRoundRobin:
    """Each member in turn, as often as its weight says, and the turns of one spread out.

    nginx's default (``upstream``, ``weight``): all candidates gain their weight, the one that has
    most is chosen and loses what all gained together. Weights 5, 1, 1 give a a b a c a a, equal
    weights the order of the list, and W picks among weights that add up to W are divided exactly.
    At any moment a member has had less than one turn too many and, of n members, at most
    1/2 + 1/3 + … + 1/n too few; the proof is beside the test of it.

    A member that is no candidate neither gains nor loses. Unlike in nginx, what members have is
    scaled to the total weight: otherwise it would be worth hundreds of turns when a heavy member
    leaves or new weights are a hundredth of the old ones. The scale is a power of two, so sums of
    whole weights stay exact and ties are ties.
    """

    def __init__(self) -> None:
        #: What those are owed that are not in `_rotation`.
        self._owed: dict[str, float] = {}
        #: The candidates of the last choice, if they may be the same at the next.
        self._standing: tuple[Any, ...] | None = None
        #: Of the standing candidates, once they have been asked for again.
        self._rotation: Rotation[Any] | None = None

    def __repr__(self) -> str:
        return f"<SmoothRoundRobin owed={self._owed} rotation={self._rotation}>"

    def choose(self, candidates: Sequence[C], key: int, random: Callable[[], float]) -> C:
        if candidates is self._standing:
            rotation: Rotation[C] | None = self._rotation
            if rotation is None:
                rotation = self._rotation = self._rotation_of(candidates)
            return rotation.next()
        self._settle()
        self._standing = candidates if isinstance(candidates, tuple) else None
        return self._choose_plainly(candidates)

    def _rotation_of(self, candidates: Sequence[C]) -> Rotation[C]:
        weights = [candidate.weight for candidate in candidates]
        owed = [self._owed.get(candidate.name, 0.0) for candidate in candidates]
        return Rotation(candidates, weights, owed)

    def _settle(self) -> None:
        """End the rotation."""
        if self._rotation is not None:
            for candidate, owed in self._rotation.owed():
                self._owed[candidate.name] = owed
            self._rotation = None
        self._standing = None

    def _choose_plainly(self, candidates: Sequence[C]) -> C:
        chosen = candidates[0]
        if len(candidates) == 1:
            return chosen
        owed = self._owed
        weights = [candidate.weight for candidate in candidates]
        total = sum(weights)
        scale = scale_of(total)
        most = -inf
        for candidate, weight in zip(candidates, weights, strict=True):
            name = candidate.name
            owed[name] = due = owed.get(name, 0.0) + weight * scale
            if due > most:
                most, chosen = due, candidate
        owed[chosen.name] = most - total * scale
        return chosen

    def keep(self, names: Collection[str]) -> None:
        """Forget the others; those that stay share what the others were owed.

        So all together are owed nothing, and a newcomer is neither ahead nor behind.
        """
        self._settle()
        wanted = set(names)
        kept = {name: due for name, due in self._owed.items() if name in wanted}
        if len(kept) < len(self._owed):
            mean = sum(kept.values()) / max(1, len(kept))
            self._owed = {name: due - mean for name, due in kept.items()}


class LeastConnections:
    """The member with the fewest requests for its weight; several such take turns.

    nginx's ``least_conn``. An idle pool is smooth round robin.
    """

    def __init__(self) -> None:
        self._turns = SmoothRoundRobin()
        self._standing: tuple[Any, ...] | None = None
        #: Whether the standing candidates all have the same weight.
        self._are_equal = False

    def __repr__(self) -> str:
        return f"<LeastConnections turns={self._turns}>"

    def choose(self, candidates: Sequence[C], key: int, random: Callable[[], float]) -> C:
        if len(candidates) == 1:
            return candidates[0]
        if candidates is not self._standing:
            self._standing = candidates if isinstance(candidates, tuple) else None
            self._are_equal = len({candidate.weight for candidate in candidates}) == 1
        loads: list[float]
        if self._are_equal:
            loads = list(map(_IN_FLIGHT, candidates))
        else:
            loads = [candidate.in_flight / candidate.weight for candidate in candidates]
        least = min(loads)
        ties = loads.count(least)
        if ties == 1:
            return candidates[loads.index(least)]
        if ties == len(loads):
            return self._turns.choose(candidates, key, random)
        pairs = zip(loads, candidates, strict=True)
        tied = [candidate for load, candidate in pairs if load == least]
        return self._turns.choose(tied, key, random)

    def keep(self, names: Collection[str]) -> None:
        self._standing = None
        self._turns.keep(names)


class RandomTwo:
    """Two different members by chance, and of these the one with fewer requests for its weight.

    nginx's ``random two least_conn``. Nearly as even as least connections, and proxies that do not
    know of each other do not all run to the same member (Mitzenmacher, The power of two choices in
    randomized load balancing, 2001). Chances go by weight; the first drawn wins a tie, so an idle
    pool is divided by weight exactly. Takes two random numbers.
    """

    def __init__(self) -> None:
        self._standing: tuple[Any, ...] | None = None
        #: The weights of the standing candidates, each added to those before it.
        self._ends: list[float] = []

    def choose(self, candidates: Sequence[C], key: int, random: Callable[[], float]) -> C:
        last = len(candidates) - 1
        if last == 0:
            return candidates[0]
        if candidates is not self._standing:
            self._standing = candidates if isinstance(candidates, tuple) else None
            self._ends = list(accumulate([candidate.weight for candidate in candidates]))
        ends = self._ends
        # The bounds of each search say what rounding must not break: a member, and not the first.
        index = bisect(ends, random() * ends[last], 0, last)
        first = candidates[index]
        start = ends[index - 1] if index else 0.0
        point = random() * (ends[last] - first.weight)
        if point < start or index == last:
            second = candidates[bisect(ends, point, 0, index - 1)]
        else:
            second = candidates[bisect(ends, point + first.weight, index + 1, last)]
        if second.in_flight / second.weight < first.in_flight / first.weight:
            return second
        return first

    def keep(self, names: Collection[str]) -> None:
        """Nothing is remembered of any member."""
        self._standing = None


class RendezvousHash:
    """The same member for the same key, unless that one has far more than its share to do.

    Each member draws a number from the key and its own name, and the highest wins (Thaler and
    Ravishankar, Using name-based mappings to increase hit rates, 1998; for the weights,
    draft-mohanty-bess-weighted-hrw). A member that goes gives away its own keys and no others; a
    new one takes only what it wins. So all are asked for every request, and a choice costs in
    proportion to their number. A ring of points would be quicker for hundreds of members, but
    divides less evenly and has to be rebuilt whenever one of them fails or recovers.

    A member is passed over if this request would give it more than `LOAD_FACTOR` times its share
    of all requests in flight, rounded up (Mirrokni, Thorup and Zadimoghaddam, Consistent hashing
    with bounded loads, 2018; HAProxy's ``hash-balance-factor``). There is always one that has less.
    The weights are the configured ones: with those of a slow start, keys would move all the time.

    Without ``is_bounded`` a key stays with its member whatever the load, as sessions want it.
    """

    def __init__(self, *, is_bounded: bool = True) -> None:
        self._is_bounded = is_bounded
        self._standing: tuple[Any, ...] | None = None
        #: Of the standing candidates: their seeds, and whether they all have the same weight.
        self._seeds: list[int] = []
        self._are_equal = False

    def choose(self, candidates: Sequence[C], key: int, random: Callable[[], float]) -> C:
        if len(candidates) == 1:
            return candidates[0]
        first = self._highest(candidates, key)
        if first.in_flight == 0 or not self._is_bounded:
            return first
        in_flight = sum(map(_IN_FLIGHT, candidates))
        weights = sum([candidate.base_weight for candidate in candidates])
        # in_flight + 1 <= ceil(bound * base_weight / weights), without the division's rounding.
        bound = LOAD_FACTOR * (in_flight + 1)
        if first.in_flight * weights < bound * first.base_weight:
            return first
        room = [each for each in candidates if each.in_flight * weights < bound * each.base_weight]
        return self._highest(room, key)

    def keep(self, names: Collection[str]) -> None:
        """Nothing is remembered of any member."""
        self._standing = None

    def _highest(self, candidates: Sequence[C], key: int) -> C:
        """The candidate whose number, stretched by its weight, is highest."""
        if candidates is not self._standing:
            self._standing = candidates if isinstance(candidates, tuple) else None
            self._seeds = [candidate.seed for candidate in candidates]
            self._are_equal = len({candidate.base_weight for candidate in candidates}) == 1
        numbers = mix_all(key, self._seeds)
        if self._are_equal:
            return candidates[numbers.index(max(numbers))]
        chosen, highest = candidates[0], -inf
        for candidate, number in zip(candidates, numbers, strict=True):
            # log(u) / weight ranks as -weight / log(u) does, but u may be 1.
            score = log((number + 0.5) * 2.0**-64) / candidate.base_weight
            if score > highest:
                chosen, highest = candidate, score
        return chosen


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
