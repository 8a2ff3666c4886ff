"""Upstreams that fail as processes and machines do, and the load that notices.

    async with world(upstreams=3, retry=Retry()) as w:
        apps = run_apps(w)
        at(w, 1000, apps[0].kill)
        answers = await open_load(w, per_second=100, seconds=5)
    assert statuses(answers) == {200: 500}
    assert outcomes_at(w, 0) == {"200": 34, "connection_refused": 1}

Loads keep exact times and never give up: what happens to a client is an `Answer`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat

import trio
import trio.testing
from attrs import frozen

from support.conversation import ScriptedUpstream, Speaker
from support.scenario import GET, now_ms, until_ms
from support.world import World

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"

#: How long an `App` works on a request, in seconds, unless told otherwise.
WORK = 0.01


class App:
    """An upstream as the process that it is, healthy at first; its orders take effect at once.

    ``statuses`` are those of its next answers, each of which takes ``delay`` seconds of work and
    has these further ``fields``. A request whose target is ``deadly`` crashes it.
    """

    def __init__(self, w: World, upstream: ScriptedUpstream, delay: float = WORK) -> None:
        self.name = upstream.name
        self.delay = delay
        self.statuses: Iterator[int] = repeat(200)
        self.fields = b""
        self.deadly = b""
        #: When each request came, and each health check, in milliseconds.
        self.arrivals: list[float] = []
        self.checks: list[float] = []
        #: Requests that it works on, now, at most, and as each one came.
        self.active = self.most = 0
        self.crowds: list[int] = []
        self._w = w
        self.is_up = True
        self._resets = self._is_stopping = False
        self._awake = trio.Event()
        self._awake.set()
        self._connections: dict[Speaker, trio.CancelScope] = {}
        self._idle: dict[Speaker, None] = {}
        upstream.run(self._talk)

    # Orders

    def kill(self) -> None:
        """SIGKILL: every connection is reset and dials are refused."""
        self.is_up = False
        self._w.net.refuse(self.name)
        self._drop_all()

    def _drop_all(self) -> None:
        for peer, scope in self._connections.items():
            scope.cancel()
            peer.abort()

    def vanish(self) -> None:
        """The machine loses its power: nothing answers, dials and requests get no reply at all."""
        self.is_up = False
        self._w.net.blackhole(self.name)
        self.freeze()

    def start(self) -> None:
        """A new process, or the machine is back and knows nothing of its old connections."""
        self._drop_all()
        self.is_up = True
        self._resets = self._is_stopping = False
        self.thaw()
        self._w.net.heal(self.name)

    def stop(self, linger: float = 0.0) -> None:
        """SIGTERM: dials are refused, and what is under way is finished.

        Idle connections are closed one after the other within ``linger`` seconds; until then they
        can be used.
        """
        self._w.net.refuse(self.name)
        self._is_stopping = True
        if linger:
            self._w.helpers.start_soon(self._close_slowly, linger)
        else:
            self._close_idle()

    async def _close_slowly(self, seconds: float) -> None:
        ends_at = trio.current_time() + seconds
        while self._idle and self._is_stopping:
            await trio.sleep(max(0.0, ends_at - trio.current_time()) / len(self._idle))
            if self._idle and self._is_stopping:
                self._connections[next(iter(self._idle))].cancel()
                await trio.testing.wait_all_tasks_blocked()
        await trio.sleep_until(ends_at)
        if self._is_stopping:
            self._close_idle()

    def _close_idle(self) -> None:
        self.is_up = False
        for peer in self._idle:
            self._connections[peer].cancel()

    def freeze(self) -> None:
        """SIGSTOP: the kernel still accepts connections and bytes, and nobody answers."""
        self._awake = trio.Event()

    def thaw(self) -> None:
        """SIGCONT."""
        self._awake.set()

    def reset_everybody(self) -> None:
        """From now on reset each connection as soon as it is accepted."""
        self.kill()
        self._w.net.heal(self.name)
        self.is_up = self._resets = True

    # What it does

    async def _talk(self, peer: Speaker) -> None:
        if self._resets or not self.is_up:
            peer.abort()
            return
        with trio.CancelScope() as scope:
            self._connections[peer] = scope
            try:
                while self.is_up:
                    await self._serve(peer)
            except trio.ClosedResourceError:
                return  # dropped at the moment at which something came
            finally:
                del self._connections[peer]
                self._idle.pop(peer, None)

    async def _serve(self, peer: Speaker) -> None:
        self._idle[peer] = None
        request = await peer.read_request()
        del self._idle[peer]
        is_check = request.start == b"GET /healthz HTTP/1.1"
        if is_check:
            self.checks.append(now_ms())
        else:
            self._note_arrival()
        if request.start.split()[1] == self.deadly:
            self.kill()
        await self._answer(peer)

    def _note_arrival(self) -> None:
        self.arrivals.append(now_ms())
        self.crowds.append(self.active + 1)
        self.most = max(self.most, self.active + 1)

    async def _answer(self, peer: Speaker) -> None:
        self.active += 1
        try:
            await trio.sleep(self.delay)
            await self._awake.wait()
        finally:
            self.active -= 1
        fields = b"" if self.is_up else b"Connection: close\r\n"
        await peer.respond(status=next(self.statuses), fields=self.fields + fields)

    # Questions

    def crowd(self, since_ms: float, until_ms: float) -> int:
        """The most requests that it had at once when one came in that time."""
        pairs = zip(self.arrivals, self.crowds, strict=True)
        return max((crowd for at, crowd in pairs if since_ms <= at < until_ms), default=0)

    def arrived(self, since_ms: float, until_ms: float) -> int:
        """How many requests came from the one moment until just before the other."""
        return sum(since_ms <= at < until_ms for at in self.arrivals)


def run_apps(w: World, delay: float = WORK) -> list[App]:
    """An `App` for every upstream."""
    return [App(w, upstream, delay) for upstream in w.upstreams]


def at(w: World, milliseconds: float, order: Callable[[], object]) -> None:
    """Give an order then."""

    async def later() -> None:
        await until_ms(milliseconds)
        order()

    w.helpers.start_soon(later)


# Loads


@frozen
class Answer:
    """What a client saw: when it asked, how long it took, and the status.

    The status is 0 if the connection ended before a whole response.
    """

    at_ms: float
    took_ms: float
    status: int


async def ask(client: Speaker, request: bytes = GET) -> Answer:
    """Ask once, whatever comes of it."""
    began = now_ms()
    try:
        status = (await client.ask(request)).status
    except (EOFError, OSError):
        status = 0
    return Answer(began, round(now_ms() - began, 6), status)


async def open_load(
    w: World, *, per_second: float, seconds: float, requests: Sequence[bytes] = (GET,)
) -> list[Answer]:
    """Requests at even distances, whatever becomes of them, each on a connection of its own."""
    began = trio.current_time()
    answers: list[Answer] = []

    async def one(number: int) -> None:
        async with await w.client() as client:
            answers.append(await ask(client, requests[number % len(requests)]))

    async with trio.open_nursery() as nursery:
        for number in range(round(per_second * seconds)):
            await trio.sleep_until(began + number / per_second)
            nursery.start_soon(one, number)
    return answers


async def closed_load(w: World, *, clients: int, seconds: float) -> list[Answer]:
    """Clients that ask again as soon as they are answered."""
    ends_at = trio.current_time() + seconds
    answers: list[Answer] = []

    async def one() -> None:
        async with await w.client() as client:
            while trio.current_time() < ends_at:
                answers.append(await ask(client))

    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(one)
    return answers


# What came of it


def statuses(answers: Iterable[Answer]) -> Counter[int]:
    """How often each status was seen."""
    return Counter(answer.status for answer in answers)


def slowest(answers: Iterable[Answer]) -> float:
    """The longest time that an answer took, in milliseconds."""
    return max(answer.took_ms for answer in answers)


def outcomes_at(w: World, number: int) -> Counter[str]:
    """What became of the tries that one upstream got."""
    got = [one for exchange in w.exchanges for one in exchange.tries]
    return Counter(one.outcome for one in got if one.upstream == w.upstreams[number].name)


def failures_at(w: World, number: int) -> dict[str, int]:
    """The same without those that were answered with 200."""
    return {name: count for name, count in outcomes_at(w, number).items() if name != "200"}


def tries(w: World) -> int:
    """All the tries of all the exchanges that have ended."""
    return sum(len(exchange.tries) for exchange in w.exchanges)
