"""Words that the tests of the rate limit share."""

from __future__ import annotations

from typing import Any

from support.conversation import Message, Speaker
from support.scenario import GET
from support.world import World
from trio_proxy.settings import RateLimitSettings


def limit(burst: int, rate: float = 0.1, **keys: Any) -> RateLimitSettings:
    """A ``[rate_limit]`` table; unless told otherwise, a token comes every ten seconds."""
    return RateLimitSettings(rate=rate, burst=burst, **keys)


def get(*fields: bytes) -> bytes:
    """A request with further field lines."""
    return b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", *fields, b"", b""])


async def statuses(client: Speaker, count: int, request: bytes = GET) -> list[int]:
    """The statuses of so many answers on one connection, one after the other."""
    return [(await client.ask(request)).status for _ in range(count)]


async def status_of(w: World, source: str, request: bytes = GET, address: str | None = None) -> int:
    """The status of one answer to a client at an address, on a connection of its own."""
    async with await w.client(source, address) as client:
        return (await client.ask(request)).status


def stand(answer: Message) -> tuple[int, int, int]:
    """What the older three fields say: limit, remaining, and seconds to the reset."""
    names = (b"ratelimit-limit", b"ratelimit-remaining", b"ratelimit-reset")
    limit, remaining, reset = (int(answer[name]) for name in names)
    return limit, remaining, reset


def rate_fields(answer: Message) -> dict[bytes, list[bytes]]:
    """Every RateLimit field of an answer, by its name in lower case."""
    names = {name.lower() for name, _ in answer.fields}
    return {name: answer.all(name) for name in sorted(names) if name.startswith(b"ratelimit")}
