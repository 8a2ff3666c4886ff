"""Clients that ask once each, and upstreams that work for as long as a request says."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import trio
from attrs import define, field
from trio.testing import wait_all_tasks_blocked as settle

from support.conversation import Message, ScriptedUpstream, Speaker
from support.scenario import now_ms, only
from support.world import CLIENT, World
from trio_proxy.exchange.exchange import Exchange
from trio_proxy.http.errors import Reason
from trio_proxy.settings import HeaderSettings, Limits

#: The one peer whose X-Budget is obeyed, and the settings that say so.
TRUSTED = "203.0.113.9"
OBEYED = HeaderSettings(deadline_header="X-Budget", trusted_proxies=(ip_network(TRUSTED),))

#: One connection to each upstream, and no bound on the wait for it.
NO_WAIT = Limits(max_conns_per_upstream=1, queue_ms=0)


def pool(conns: int = 1, **limits: Any) -> dict[str, Any]:
    """Tables for a world without deadlines, but for the budgets of `TRUSTED`."""
    rules = Limits(**{"max_conns_per_upstream": conns, "queue_ms": 0, **limits})
    return {"timeouts": only(), "headers": OBEYED, "limits": rules}


def works(upstream: ScriptedUpstream, *, at_once: float | None = None) -> None:
    """From now on answer each request after as many milliseconds as its X-Work says, if any.

    ``at_once`` bounds how many are worked upon at a time; further ones wait inside the upstream,
    as those do that the proxy has given up meanwhile. A request without X-Work, as a health check,
    is not noted.
    """
    places = trio.CapacityLimiter(at_once or 1_000_000)

    async def answer(peer: Speaker) -> None:
        while True:
            request = await peer.read_request()
            work = float(next(iter(request.all(b"x-work")), b"0")) / 1000
            if work:
                upstream.requests.append(request)
            async with places:
                await trio.sleep(work)
            if request.all(b"x-fails-at") == [upstream.name.encode()]:
                peer.abort()
                return
            await peer.respond()

    upstream.run(answer)


def order(upstream: ScriptedUpstream) -> list[int]:
    """The numbers of the requests that an upstream has got, in order."""
    return [int(request.start.split()[1][1:]) for request in upstream.requests]


@define
class Crowd:
    """Clients by number; time stands still while one comes."""

    w: World
    clients: dict[int, Speaker] = field(factory=dict)
    #: The status of each answer, and when it came, in milliseconds.
    ends: dict[int, tuple[int, float]] = field(factory=dict)
    answers: dict[int, Message] = field(factory=dict)

    async def come(
        self, *numbers: int, work: float = 100, fields: bytes = b"", source: str = CLIENT
    ) -> None:
        """So many clients ask one after the other, each when the one before is under way."""
        for number in numbers:
            await self.start(number, work=work, fields=fields, source=source)
            await settle()

    async def hurry(self, budget_ms: int, *numbers: int, work: float = 100) -> None:
        """So many clients ask through the trusted peer, each with so much time."""
        field = b"X-Budget: %d\r\n" % budget_ms
        await self.come(*numbers, work=work, fields=field, source=TRUSTED)

    async def start(
        self, number: int, *, work: float = 100, fields: bytes = b"", source: str = CLIENT
    ) -> None:
        """One client asks; what it asks for may not have got anywhere yet."""
        client = self.clients[number] = await self.w.client(source)
        head = b"GET /%d HTTP/1.1\r\nHost: a\r\nX-Work: %r\r\n" % (number, work)
        self.w.helpers.start_soon(self._await_answer, number, client)
        await client.send(head + fields + b"\r\n")

    async def _await_answer(self, number: int, client: Speaker) -> None:
        try:
            answer = await client.read_response()
        except (OSError, EOFError, trio.ClosedResourceError):
            return
        self.ends[number] = answer.status, now_ms()
        self.answers[number] = answer
        client.close()

    async def leave(self, *numbers: int) -> None:
        """So many clients go away without waiting any longer."""
        for number in numbers:
            self.clients[number].abort()
        await settle()

    def retry_after(self, number: int) -> int:
        """What one of them was told to wait, in seconds."""
        return int(self.answers[number][b"retry-after"])

    def exchange(self, number: int) -> Exchange:
        """The ended exchange of one of them."""
        (found,) = [one for one in self.w.exchanges if one.target == f"/{number}"]
        return found

    def reason(self, number: int) -> Reason | None:
        """Why the proxy refused one of them, None if it did not."""
        error = self.exchange(number).error
        return None if error is None else error.reason

    @property
    def waiting(self) -> int:
        """The length of the queue, which the metric must show too."""
        length = self.w.proxy.pools["default"].queue_length
        assert self.w.proxy.stats.queue_length == {"default": length}
        return length


def rejected(w: World) -> dict[str, int]:
    """The counters of ``proxy_rejected_total`` that are not 0."""
    return {reason.slug: n for reason, n in w.proxy.stats.rejected.items() if n}


def complaints(w: World, words: str) -> int:
    """How many warnings have these words in them."""
    return sum(words in line for line in w.messages(30))


def told(crowd: Crowd, *numbers: int) -> list[Any]:
    """Status and time of each answer, for one assert."""
    return [crowd.ends.get(number) for number in numbers]


def each_works(w: World) -> Crowd:
    """Let every upstream work; the clients that are to come."""
    for upstream in w.upstreams:
        works(upstream)
    return Crowd(w)
