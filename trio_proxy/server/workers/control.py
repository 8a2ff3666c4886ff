"""What the supervisor and its workers say to each other.

The supervisor commands, and a command that is asked (not told) is answered. Beside that a worker
reports its counters now and then, which is also how it shows that it is alive. Messages are
pickled: both ends are the same program, and nobody else can reach the channel.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import TypeAlias

import trio
from attrs import field, frozen

from trio_proxy.http.addresses import Address
from trio_proxy.net.channel import Channel, DescriptorsLost, Socket
from trio_proxy.settings import Settings
from trio_proxy.telemetry.stats import Stats


@frozen
class Start:
    """Serve by these settings; a socket for each address of ``listen`` comes along, in its order.

    ``number`` is the worker's place among the others, from 1.
    """

    number: int
    settings: Settings


@frozen
class Reload:
    """Go on by these settings; a socket for each of ``fresh`` comes along."""

    settings: Settings
    fresh: tuple[Address, ...]


@frozen
class Adopt:
    """Serve the sockets of another worker too, from now on these and no others of its."""

    worker: int
    addresses: tuple[Address, ...]


@frozen
class Count:
    """Answer with the counters."""


@frozen
class Drain:
    """Stop gracefully."""


@frozen
class Stop:
    """Stop at once."""


@frozen
class Done:
    """The answer to a command that was obeyed."""


@frozen
class Refusal:
    """The answer to one that could not be, and left everything as it was."""

    reason: str


@frozen
class Leaving:
    """Said unasked: the worker drains, and accepts nobody any more."""


Command: TypeAlias = Start | Reload | Adopt | Count | Drain | Stop
Answer: TypeAlias = Done | Refusal | Stats
Message: TypeAlias = Answer | Leaving


class Refused(Exception):
    """A worker cannot do what it was asked to; ``str()`` says why."""


#: What a question of the supervisor is called that wants no answer, and a report to no question.
UNASKED = 0


@frozen
class Order:
    """A command as it arrives. ``sockets`` are the receiver's to close."""

    question: int
    command: Command
    sockets: list[Socket] = field(factory=list)


class WorkerEnd:
    """The channel as a worker has it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def receive(self) -> Order:
        """The next command. Raises `trio.EndOfChannel` when the supervisor is gone, OSError.

        One whose sockets this process has no room for is refused in here.
        """
        while True:
            try:
                data, sockets = await self._channel.receive()
            except DescriptorsLost as exc:
                question, command = pickle.loads(exc.data)
                await self.answer(Order(question, command), Refusal(str(exc)))
            else:
                question, command = pickle.loads(data)
                return Order(question, command, sockets)

    async def answer(self, order: Order, answer: Answer) -> None:
        """Raises OSError."""
        await self._channel.send(pickle.dumps((order.question, answer)))

    async def tell(self, message: Message) -> None:
        """Say something unasked, as it is now. Raises OSError."""
        await self._channel.send(pickle.dumps((UNASKED, message)))

    def close(self) -> None:
        self._channel.close()


class SupervisorEnd:
    """The channel as the supervisor has it; `run` must be running for `ask` to be answered.

    ``on_stats`` is given the worker's counters whenever they come, asked for or not, and
    ``on_leaving`` is called when it drains.
    """

    def __init__(
        self,
        channel: Channel,
        on_stats: Callable[[Stats], None],
        on_leaving: Callable[[], None],
    ) -> None:
        self._channel = channel
        self._on_stats = on_stats
        self._on_leaving = on_leaving
        self._asked = UNASKED
        self._waiting: dict[int, trio.MemorySendChannel[Answer]] = {}
        #: How many messages have come.
        self.received = 0

    async def tell(self, command: Command) -> None:
        """Send a command that has no answer. Raises OSError."""
        await self._channel.send(pickle.dumps((UNASKED, command)))

    async def ask(self, command: Command, descriptors: Sequence[int] = ()) -> Answer:
        """Send a command and wait for its answer.

        Raises `Refused`, OSError, and `trio.EndOfChannel` if the worker ends before it answers.
        """
        self._asked = question = self._asked + 1
        send, receive = trio.open_memory_channel[Answer](1)
        self._waiting[question] = send
        try:
            await self._channel.send(pickle.dumps((question, command)), descriptors)
            answer = await receive.receive()
        finally:
            self._waiting.pop(question, send).close()
        if isinstance(answer, Refusal):
            raise Refused(answer.reason)
        return answer

    async def run(self) -> None:
        """Take answers and reports until the worker ends; raises OSError for what is neither."""
        try:
            while True:
                data, sockets = await self._channel.receive()
                assert not sockets
                question, message = pickle.loads(data)
                self._take(question, message)
        except trio.EndOfChannel:
            pass
        finally:
            for waiting in self._waiting.values():
                waiting.close()

    def _take(self, question: int, message: Message) -> None:
        self.received += 1
        if isinstance(message, Leaving):
            self._on_leaving()
            return
        if isinstance(message, Stats):
            self._on_stats(message)
        if question in self._waiting:  # who asked may have given up
            self._waiting[question].send_nowait(message)

    def close(self) -> None:
        self._channel.close()
