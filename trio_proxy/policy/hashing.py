"""Hashes that mean the same on every machine and in every process.

A key and a name become 64 bits each by BLAKE2b (RFC 7693), once per request and once per member.
`mix_all` then joins the two, once per request *and* member, so it has to be cheap in Python.
Python's own ``hash`` is no choice: for bytes it differs from process to process, for tuples from
version to version.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

_LOW_64_BITS = (1 << 64) - 1

#: The multipliers of splitmix64.
_FIRST, _LAST = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def hash_of(key: bytes) -> int:
    """64 bits that stand for ``key``, which may have any length."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def seed_of(name: str) -> int:
    """64 bits that stand for the name of a member, wherever in the list it is."""
    return hash_of(name.encode("utf-8", "surrogatepass"))


def mix_all(key: int, seeds: Iterable[int]) -> list[int]:
    """64 bits from two hashes of 64 bits each: from the key and each of the seeds.

    With one of the two given, no two results are equal.

    The middle of splitmix64 (Steele, Lea and Flood, Fast splittable pseudorandom number generators,
    2014). Its first step helps inputs that are no hashes, and its last only the lower bits of
    the result; a ranking lives on the upper ones.
    """
    return [
        (((bits := (key ^ seed) * _FIRST & _LOW_64_BITS) ^ (bits >> 32)) * _LAST) & _LOW_64_BITS
        for seed in seeds
    ]
