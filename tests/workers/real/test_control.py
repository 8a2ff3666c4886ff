"""What supervisor and worker say to each other, over a real pair of sockets."""

from __future__ import annotations

import os
import pickle
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio
import trio.testing

from trio_proxy.http.addresses import TcpAddress
from trio_proxy.net import channel as channels
from trio_proxy.net.channel import Channel, new_pair
from trio_proxy.server.workers.control import (
    UNASKED,
    Adopt,
    Count,
    Done,
    Drain,
    Leaving,
    Refusal,
    Refused,
    Reload,
    Start,
    SupervisorEnd,
    WorkerEnd,
)
from trio_proxy.settings import Settings, Timeouts, UpstreamSettings
from trio_proxy.telemetry.stats import Stats

SETTINGS = Settings(upstreams=(UpstreamSettings(host="127.0.0.1", port=9001),))
WHERE = TcpAddress("127.0.0.1", 80)

#: More than a socket takes at once.
LARGE = b"x" * 5_000_000


@contextmanager
def pair() -> Iterator[tuple[Channel, Channel]]:
    """Both ends of a channel."""
    ours, theirs = new_pair()
    other = Channel(theirs)
    try:
        yield ours, other
    finally:
        ours.close()
        other.close()


class Conversation:
    """Both sides; the supervisor's takes what comes."""

    def __init__(self, ours: Channel, theirs: Channel) -> None:
        self.stats: list[Stats] = []
        self.left = 0
        self.supervisor = SupervisorEnd(ours, self.stats.append, self._leaves)
        self.worker = WorkerEnd(theirs)

    def _leaves(self) -> None:
        self.left += 1


@asynccontextmanager
async def conversation() -> AsyncIterator[tuple[Conversation, trio.Nursery]]:
    with pair() as ends, trio.fail_after(20):
        talk = Conversation(*ends)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.supervisor.run)
            yield talk, nursery
            nursery.cancel_scope.cancel()


# The channel


@pytest.mark.parametrize("data", [b"", b"a", LARGE])
async def test_a_message_arrives_as_it_was_sent(data: bytes) -> None:
    """Of whatever length, and the next one after it."""
    with pair() as (one, other), trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send, data)
            nursery.start_soon(one.send, data + b"!")
            received = {(await other.receive())[0] for _ in range(2)}
    assert received == {data, data + b"!"}


async def test_sockets_travel_with_their_message() -> None:
    """As copies, each to the message that it was sent with, and not inherited further."""
    with pair() as (one, other), socket.socket() as first, socket.socket() as second:
        await one.send(b"none")
        await one.send(b"two", [first.fileno(), second.fileno()])
        await one.send(b"one", [second.fileno()])
        assert await other.receive() == (b"none", [])
        for name, sent in ((b"two", [first, second]), (b"one", [second])):
            data, got = await other.receive()
            assert data == name
            assert [_inode(sock) for sock in got] == [_inode(sock) for sock in sent]
            assert not any(sock.get_inheritable() for sock in got)
            for sock in got:
                sock.close()


def _inode(sock: socket.socket) -> str:
    return os.readlink(f"/proc/self/fd/{sock.fileno()}")


async def test_the_other_end_may_go() -> None:
    """Between messages or within one: the end of the channel."""
    for data in (b"", b"\0\0\0\x05abc"):
        ours, theirs = new_pair()
        theirs.sendall(data)
        theirs.close()
        with pytest.raises(trio.EndOfChannel):
            await ours.receive()
        with pytest.raises(OSError, match="Broken pipe"):
            await ours.send(b"anybody?")
        ours.close()


async def test_an_end_that_goes_with_something_unread_is_gone_too() -> None:
    """The system calls it a reset."""
    ours, theirs = new_pair()
    await ours.send(b"not read")
    theirs.close()
    with pytest.raises(trio.EndOfChannel):
        await ours.receive()
    ours.close()


async def test_a_message_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By who sends, and by who receives."""
    with pair() as (one, other):
        await one.send(b"x" * 101)
        monkeypatch.setattr(channels, "MAX_MESSAGE_BYTES", 100)
        with pytest.raises(OSError, match="a message of 101 bytes is too long"):
            await one.send(b"x" * 101)
        with pytest.raises(OSError, match="a message of 101 bytes is too long"):
            await other.receive()


async def test_after_half_a_message_nothing_more_is_sent() -> None:
    """It would be taken for the rest."""
    with pair() as (one, _), trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send, LARGE)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        with pytest.raises(OSError, match="the last message was cut off"):
            await one.send(b"next")


# Questions and answers


async def test_settings_and_their_sockets_reach_the_worker() -> None:
    """Whatever was computed from the settings before."""
    assert SETTINGS.timeouts.seconds["drain"] == 30
    async with conversation() as (talk, nursery):
        with socket.socket() as sock:
            nursery.start_soon(talk.supervisor.ask, Start(2, SETTINGS), [sock.fileno()])
            order = await talk.worker.receive()
            assert order.command == Start(2, SETTINGS)
            assert [_inode(each) for each in order.sockets] == [_inode(sock)]
            order.sockets[0].close()


async def test_a_worker_without_room_for_sockets_refuses_them() -> None:
    """And obeys the next command."""
    async with conversation() as (talk, nursery):
        refusals = []

        async def ask() -> None:
            with pytest.raises(Refused, match="Too many open files") as refused:
                await talk.supervisor.ask(Adopt(1, (WHERE,)), [sock.fileno()])
            refusals.append(refused)
            await talk.supervisor.tell(Drain())

        with socket.socket() as sock:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.01)
            with no_room():
                assert (await talk.worker.receive()).command == Drain()
        assert len(refusals) == 1


@contextmanager
def no_room() -> Iterator[None]:
    """This process can open nothing more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(lowest_free := os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_answers_find_their_questions() -> None:
    """In whichever order they come."""
    async with conversation() as (talk, nursery):
        answers: dict[int, object] = {}

        async def ask(worker: int) -> None:
            try:
                answers[worker] = await talk.supervisor.ask(Adopt(worker, (WHERE,)))
            except Refused as exc:
                answers[worker] = str(exc)

        for worker in (1, 2):
            nursery.start_soon(ask, worker)
        first, second = await talk.worker.receive(), await talk.worker.receive()
        assert isinstance(first.command, Adopt)
        await talk.worker.answer(second, Refusal("no room"))
        await talk.worker.answer(first, Done())
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert answers.pop(first.command.worker) == Done()
        assert list(answers.values()) == ["no room"]


async def test_counters_come_asked_and_unasked() -> None:
    """Each as they were at that moment."""
    async with conversation() as (talk, nursery):
        stats = Stats()
        stats.requests_total = 1
        await talk.worker.tell(stats)
        stats.requests_total = 2
        nursery.start_soon(talk.supervisor.ask, Count())
        await talk.worker.answer(await talk.worker.receive(), stats)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert [each.requests_total for each in talk.stats] == [1, 2]
        assert talk.supervisor.received == 2


async def test_a_worker_says_that_it_leaves() -> None:
    """Between two answers."""
    async with conversation() as (talk, nursery):
        nursery.start_soon(talk.supervisor.ask, Count())
        order = await talk.worker.receive()
        await talk.worker.tell(Leaving())
        await talk.worker.answer(order, Stats())
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (talk.left, len(talk.stats)) == (1, 1)


async def test_a_question_to_a_worker_that_ends_is_answered_by_its_end() -> None:
    """Nobody waits for a dead one."""
    async with conversation() as (talk, nursery):

        async def end() -> None:
            await talk.worker.receive()
            talk.worker.close()

        nursery.start_soon(end)
        with pytest.raises(trio.EndOfChannel):
            await talk.supervisor.ask(Reload(SETTINGS, ()))


async def test_an_answer_that_comes_too_late_is_dropped() -> None:
    """Who asked has given up; the next question gets its own."""
    async with conversation() as (talk, nursery):
        patience = trio.CancelScope()
        answers: list[object] = []

        async def ask_impatiently() -> None:
            with patience:
                answers.append(await talk.supervisor.ask(Reload(SETTINGS, ())))

        async def ask() -> None:
            answers.append(await talk.supervisor.ask(Adopt(1, (WHERE,))))

        nursery.start_soon(ask_impatiently)
        late = await talk.worker.receive()
        patience.cancel()
        nursery.start_soon(ask)
        order = await talk.worker.receive()
        await talk.worker.answer(late, Refusal("too late"))
        await talk.worker.answer(order, Done())
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert answers == [Done()]


async def test_a_command_that_wants_no_answer() -> None:
    """It is told, and that is all."""
    async with conversation() as (talk, _):
        await talk.supervisor.tell(Drain())
        order = await talk.worker.receive()
        assert (order.question, order.command) == (UNASKED, Drain())


def test_settings_survive_the_trip_between_processes() -> None:
    """With what is computed from them at first use."""
    settings = Settings(upstreams=SETTINGS.upstreams, timeouts=Timeouts(drain_ms=1))
    assert settings.timeouts.seconds["drain"] == 0.001
    copy = pickle.loads(pickle.dumps(settings))
    assert copy == settings
    assert copy.timeouts.seconds["drain"] == 0.001
