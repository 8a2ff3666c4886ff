"""Checks whose answers are odd: without end, or in very small pieces."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from support.conversation import Speaker
from support.failing import send_slowly
from support.pools import A, is_up, told
from support.scenario import only, send_for_ever
from support.world import World, world
from trio_proxy.settings import Health

pytestmark = pytest.mark.usefixtures("no_chance")

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHECKS = {"path": "/up", "interval_ms": 1000, "timeout_ms": 300, "rise": 1, "fall": 1}


def rules(expect_body: str = "") -> Health:
    return Health(**{**CHECKS, "expect_body": expect_body})  # type: ignore[arg-type]


async def answer(peer: Speaker, start: bytes, piece: bytes) -> None:
    """The start of an answer, and then the same piece over and over again."""
    await peer.read_request()
    await peer.send(start)
    await send_for_ever(peer, piece, 0.01)


def reasons(w: World) -> list[str]:
    """Why the upstream is down."""
    start = f"upstream {A} down: health check failed: "
    return [line.removeprefix(start) for line in told(w) if line.startswith(start)]


async def test_interim_responses_without_end() -> None:
    """They are no answer, and the check fails before its time is up."""
    early = b"HTTP/1.1 103 Early\r\n\r\n"
    async with world(timeouts=only(), health=rules()) as w:
        w.upstreams[0].run(partial(answer, start=b"", piece=early * 10))
        await trio.sleep(0.6)
        assert reasons(w) == ["too many interim responses"]
        assert not is_up(w, A)


async def test_a_few_interim_responses() -> None:
    """They are passed over."""
    early = b"HTTP/1.1 103 Early\r\n\r\n" * 5
    async with world(timeouts=only(), health=rules()) as w:
        end = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        w.upstreams[0].run(partial(answer, start=early + end, piece=b""))
        await trio.sleep(1)
        assert not reasons(w)


def in_tiny_chunks(text: bytes) -> bytes:
    return b"".join(b"1\r\n%c\r\n" % byte for byte in text)


async def test_the_expected_text_in_tiny_chunks_is_found() -> None:
    """A byte each, one after the other, and far from the beginning."""

    async def write_slowly(peer: Speaker) -> None:
        await peer.read_request()
        await peer.send(CHUNKED + in_tiny_chunks(b"." * 2000))
        await send_slowly(peer, [in_tiny_chunks(b"%c" % byte) for byte in b"all is well"], 0.01)

    async with world(timeouts=only(), health=rules("all is well")) as w:
        w.upstreams[0].run(write_slowly)
        await trio.sleep(1)
        assert not reasons(w)
        assert is_up(w, A)


async def test_a_body_in_tiny_chunks_without_end_fails_the_check() -> None:
    """What is expected does not come, and not for longer than the check may take."""
    async with world(timeouts=only(), health=rules("all is well")) as w:
        w.upstreams[0].run(partial(answer, start=CHUNKED, piece=in_tiny_chunks(b"all is ")))
        await trio.sleep(0.9)
        assert reasons(w) == ["no answer within 300 ms"]
